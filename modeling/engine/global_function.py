"""`@global_function`: turns a plain Python function of tensors into a compiled static graph.

The original code declared its jobs with `oneflow.global_function`, which the installable versions of OneFlow no longer have. This
module restores the form, as a thin layer on `oneflow.nn.Graph`:

    @global_function(type="train", variables=variables, engine=engine, optimizer=optimizer, schedule=schedule)
    def train_job(variables, word_rows, label):
        ...
        return loss, metrics          # the first value is minimised

    loss, metrics = train_job({"word_rows": ..., "label": ...})

A call takes a batch as NumPy arrays by name. This module turns the arrays into tensors and divides the batch among ranks and among the
lanes of a CPU (modeling/engine/lanes). The function gets one lane's part of a batch. Therefore the outputs of a train function must be
means over the batch, and the first dimension of a predict function's outputs must be that of the batch.

The function runs once per shape of its inputs, to build the graph of that shape. Later calls with that shape run the compiled plan. Nothing
runs eagerly. The graphs of one train function share variables, optimizer moments and the step counter, so a run may alternate between a
few shapes.
"""

from modeling.engine import memo, parallel
from modeling.engine.accumulation import GradientSums
from modeling.engine.cpu_threads import calm_scheduler
from modeling.engine.engine import Engine
from modeling.engine.lanes import build as lanes_build
from modeling.engine.lanes.plan import by_lane, interleave, rows_and_length
from modeling.engine.runtime import flow
from modeling.engine.workarounds import clear_symbolic_gradients, is_short, keep_alive, pad_short_graph
from ofrecord_util.on_demand import OnDemand

_class_of = type  # below, `type` is the name of a parameter, as in the original `global_function(type="train")`
_last_output = None  # the smallest output of the latest call: reading it waits for the graph


def _finish_last_call():
    """Waits for the smallest output of the latest graph."""
    global _last_output
    if _last_output is not None:
        parallel.to_numpy(_last_output)
        _last_output = None


def _smallest(outputs):
    """The tensor with the fewest elements among a function's outputs, which may be nested tuples."""
    if not isinstance(outputs, (tuple, list)):
        return outputs
    return min(map(_smallest, outputs), key=lambda output: output.numel())


def _rows_of_part(array, part, parts):
    """The rows of an array that belong to part number `part` of `parts`."""
    return array[len(array) * part // parts : len(array) * (part + 1) // parts]


def _concatenated(outputs):
    """The outputs of all parts of a batch as one, along the first dimension; a scalar becomes [number of parts]."""
    if not isinstance(outputs[0], tuple):
        return flow.cat([value if value.ndim else value.reshape(1) for value in outputs], dim=0)
    return tuple(map(_concatenated, zip(*outputs)))


class GlobalFunction:
    """A static graph that is built from a function at its first call.

    Args:
        function: takes the graph's view of the variables as its first argument, then tensors by name.
        type: "train" (the first returned tensor is minimised), "gradient" (for `gradients` only) or "predict".
        variables: a `Variables` (or any `nn.Module`) whose parameters the graph uses.
        optimizer, schedule: for "train", a OneFlow optimizer and its learning-rate schedule (or None).
        engine: `Engine`; None for one lane on the device of the variables.
        mixed_precision: whether OneFlow uses float16 where it is safe, with a loss scaler; CUDA only.
        parts: number of parts of equal size in which a train function computes a batch. The function gets one part, the step uses the
            mean of the parts' gradients, and each output is the concatenation of the parts' outputs. Memory is needed for one part.
        frozen: modules whose parameters the graph reads but does not train (a teacher). The function gets their views after that of
            `variables`.
        masks: `GradientMasks` that change the gradients before the update, or None. They clip, so the optimizer must not.
    """

    def __init__(
        self,
        function,
        type,
        variables,
        optimizer=None,
        schedule=None,
        engine=None,
        mixed_precision=False,
        parts=1,
        frozen=(),
        masks=None,
    ):
        if type not in ("train", "gradient", "predict"):
            raise ValueError(f"type must be 'train', 'gradient' or 'predict', not {type!r}")
        if (type == "train") != (optimizer is not None):
            raise ValueError("a train function needs an optimizer, another function none")
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.engine = engine or Engine(parallel.device_of(variables))
        self._function, self._variables, self._frozen, self._trains = function, variables, frozen, type != "predict"
        self._optimizer, self._schedule = optimizer, schedule
        self._mixed_precision, self._parts = mixed_precision, parts
        self._sums = None
        if type == "gradient" or masks is not None or (parts > 1 and self.engine.sums_gradients):
            self._sums = GradientSums(variables, optimizer, schedule, self.engine, masks)
            self._optimizer, self._schedule = self._sums.optimizer, None
        self._names, self._graphs, self._restored = None, {}, None
        self._pads = is_short(variables)
        keep_alive(self)

    def __call__(self, batch):
        """Runs the graph on a batch.

        Args:
            batch: dict of name -> NumPy array [B, ...], the same on every rank, or tensor of this rank's part. If the engine has several
                lanes, the first array is [R, S, ...], and every other array has a multiple of R rows.
        Returns:
            the outputs of the function, as tensors. The graph may still be running. Reading a value waits for it.
        Raises:
            KeyError: an input of the first call is missing.
        """
        if self._sums is None:
            self._prepare(batch)
            return self._run({name: batch[name] for name in self._names})
        outputs = self._add_gradients(batch)
        self._sums.update(self._restored)
        return outputs

    def gradients(self, batch):
        """The gradients of the first output for a batch, without an update. The function must be one of type "gradient" or have masks.

        Args:
            batch: as for a call.
        Returns:
            (outputs of the function, as tensors; dict of parameter's name -> float32 array).
        """
        return self._add_gradients(batch), self._sums.take()

    def _prepare(self, batch):
        self.engine.activate(_finish_last_call)
        if self._names is None:
            self._names = tuple(batch)

    def _add_gradients(self, batch):
        """Adds the gradients of a batch to the sums. Returns the outputs."""
        self._prepare(batch)
        outputs = []
        for part in range(self._parts):
            if part > 1:  # the arrays of a part are reused: stay at most one part ahead of the one that the engine runs
                parallel.to_numpy(_smallest(outputs[-2]))
            outputs.append(self._run({name: _rows_of_part(batch[name], part, self._parts) for name in self._names}))
        return _concatenated(outputs) if self._parts > 1 else outputs[0]

    def _run(self, batch):
        """The outputs of one run of the graph for the shape of a batch, or of a part of it."""
        global _last_output
        parts = self.engine.lanes.cut(batch)
        count = len(next(iter(parts.values())))
        inputs = [parallel.shard(part, self.engine.device) for part in interleave(parts)]
        shapes = tuple(tuple(value.shape) for value in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._new_graph(count)
        if self._sums is not None:
            self._sums.wait_until_clear()
        outputs = self._graphs[shapes](*inputs)
        if self._pads:
            outputs = outputs[0]
        if self._sums is not None and not self._sums.in_job:
            outputs, gradients = outputs
            self._sums.add(gradients)
        if count > 1 or self.engine.lanes.known_as_long(*rows_and_length(batch)):
            calm_scheduler()
        _last_output = _smallest(outputs)
        return outputs

    # ------------------------------------------------------------------------------------------------------- building

    def _new_graph(self, lanes):
        """A graph for one more shape. It continues from the state of the existing graphs."""
        graph = self._graph_class(lanes)()
        if self._sums is not None:
            graph.load_state_dict(dict(self._sums.state(), variables=self._variables.state_dict()), strict=False)
            clear_symbolic_gradients(self._variables)
            return graph
        if self._restored and not self._graphs:
            state = {name: parallel.replicate(value, self.engine.device) for name, value in self._restored.items()}
            graph.load_state_dict(dict(state, variables=self._variables.state_dict()), strict=False)
        if self._trains:
            clear_symbolic_gradients(self._variables)  # of another train function
        if self._trains and self._graphs:
            # A loaded state is not copied: the new graph works on the moments and the step counter of the first one
            # (tests/modeling/engine/test_global_function.py fails if OneFlow changes this)
            graph.load_state_dict(next(iter(self._graphs.values())).state_dict())
        return graph

    def _graph_class(self, lanes):
        """A new class with the name of the function, since OneFlow names plan and graph after the class."""
        methods = {
            "__init__": lambda graph: self._configure(graph),
            "build": lambda graph, *inputs: self._build(graph, by_lane(inputs, lanes)),
        }
        sums = self._sums is not None and self._sums.in_job
        if lanes > 1 or sums:
            methods["build_graph"] = lambda graph, *inputs: lanes_build.build_graph(graph, inputs, lanes, self._trains, sums)
        return _class_of(self.__name__, (flow.nn.Graph,), methods)

    def _configure(self, graph):
        flow.nn.Graph.__init__(graph)
        graph.variables = self._variables
        for position, module in enumerate(self._frozen):
            setattr(graph, f"frozen_{position}", module)
        if self._optimizer is not None:
            graph.add_optimizer(self._optimizer, lr_sch=self._schedule)
        if self.engine.device == "cpu":  # a GEMM also adds a bias, or the gradient of another lane, to its product
            graph.config.allow_fuse_add_to_output(True)
            graph.config.allow_fuse_model_update_ops(True)
        if self._parts > 1 and self._sums is None:
            graph.config.set_gradient_accumulation_steps(self._parts)
        if self._mixed_precision:
            graph.config.enable_amp(True)
            if self._trains:
                scaler = flow.amp.GradScaler(init_scale=2.0**14, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000)
                graph.set_grad_scaler(scaler)

    def _build(self, graph, parts):
        """The graph's outputs. `parts` is a list with the inputs of each lane."""
        views = [getattr(graph, f"frozen_{position}") for position in range(len(self._frozen))]
        rows = [part[0].shape[0] for part in parts]
        # lanes of one shape are replicated in the job, so only the first lane is traced
        traced = parts[:1] if lanes_build.have_one_shape(parts) else parts
        with memo.scope():
            outputs = [self._function(graph.variables, *views, **dict(zip(self._names, part))) for part in traced]
        outputs = outputs[0] if len(parts) == 1 else self._merge(outputs, rows)
        if self._trains:
            loss = outputs[0] if isinstance(outputs, tuple) else outputs
            (loss if self._sums is None else loss * (1.0 / self._parts)).backward()
            if self._sums is not None and not self._sums.in_job:
                outputs = outputs, self._sums.of_graph(self._variables)
        return (outputs, pad_short_graph()) if self._pads else outputs

    def _merge(self, outputs, rows):
        """Merges the outputs of all lanes into those of the batch: means weighted by the lanes' rows, or concatenated rows.

        If only the first lane is traced, the result is its term of the means, or its rows repeated in place of every lane's rows.
        """
        if not isinstance(outputs[0], tuple):
            return self._merge([(output,) for output in outputs], rows)[0]
        if not self._trains:
            outputs = outputs if len(outputs) > 1 else outputs * len(rows)
            return tuple(flow.cat(parts, dim=0) for parts in zip(*outputs))
        merged = []
        for parts in zip(*outputs):
            weighted = [part * (count / sum(rows)) for part, count in zip(parts, rows)]
            merged.append(sum(weighted[1:], weighted[0]))
        return tuple(merged)

    # ---------------------------------------------------------------------------------------------------------- state

    def optimizer_state(self):
        """The state of a train function without the variables.

        Returns:
            `OnDemand` of name -> array: the optimizer's moments (the name of the variable, with the ending -m or -v), the step counter
            and, with mixed precision, the counter of the loss scaler. Empty before the first call. On a CPU an array shares the memory of
            the state, so that the next step changes it.
        """
        state = self._state()
        names = [name for name, value in state.items() if not isinstance(value, dict)]
        return OnDemand(names, lambda name: parallel.to_numpy(state[name]))

    def _state(self):
        """The state of the optimizer's graph, tensors by name, when the graph has run to its end; empty before the first call."""
        graphs = list(self._graphs.values()) if self._sums is None else self._sums.graphs()
        if not graphs:
            return {}
        parallel.wait_for_graphs(self._variables)
        return graphs[0].state_dict()

    def reset(self, state=None):
        """Sets the optimizer's moments and the step counter of a train function, before its first call or after any other.

        Args:
            state: values of `optimizer_state`, copied when they were read; None for the state before the first step.
        """
        tensors = {name: value for name, value in self._state().items() if not isinstance(value, dict)}
        if not tensors:
            self._restored = state
            return
        for name, value in tensors.items():
            if state is None:
                value.zero_()
            else:
                value.copy_(parallel.replicate(state[name], self.engine.device))
        for value in tensors.values():  # a graph does not wait for changes of an optimizer's state
            parallel.to_numpy(value)

    def restore(self, state):
        """Continues from an `optimizer_state`, whose arrays are read at the first call. It must run before that call.

        Raises:
            ValueError: a graph has been compiled already.
        """
        if self._graphs:
            raise ValueError("a graph is compiled already")
        self._restored = state


def global_function(type="predict", **settings):
    """Decorator form of `GlobalFunction`."""

    def decorate(function):
        return GlobalFunction(function, type, **settings)

    return decorate
