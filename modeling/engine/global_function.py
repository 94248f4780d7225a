"""`@global_function`: turns a plain Python function of tensors into a compiled static graph.

The documents' code declared its jobs with `oneflow.global_function`, which no installable OneFlow has any more. This
gives the shape back,
as a thin layer on `oneflow.nn.Graph`:

    @global_function(type="train", variables=variables, optimizer=optimizer, schedule=schedule)
    def train_job(variables, word_rows, label):
        ...
        return loss, metrics          # the first value is what is minimised

    loss, metrics = train_job(word_rows=…, label=…)

An input may be a tuple of tensors instead, the parts of a batch for the CPU's lanes (see modeling/engine/lanes/plan.py): the function is applied to
each part; a train function's outputs are means over a batch then, and a predict function's begin with the batch's dimension.

The function runs once for each shape of its inputs, to build that shape's graph; from then on a call runs the compiled
plan and nothing runs eagerly. The graphs of one train function share weights, optimizer moments and the step counter,
so a run may change between a few shapes freely.
"""

import gc

from modeling.engine import memo, parallel
from modeling.engine.lanes.job import CompiledJob
from modeling.engine.lanes.replicate import repeat_lane
from modeling.engine.lanes.streams import deal_out
from modeling.engine.runtime import calm_scheduler, flow

_class_of = type  # `type` is a parameter's name below, as in the documents' `global_function(type="train")`


# Graphs live until `forget_graphs`: OneFlow breaks where train graphs that share their state are freed and others are
# built after them ("must be a variable created in nn.Graph", or a crash)
_ALIVE = []


def forget_graphs():
    """Lets go of the graphs that nobody holds any more, each of which costs three threads and 30 MB or more.

    For programs that build many one after the other. Never while a graph is being built or run, and not where a train function
    that has compiled several shapes is gone and another one over the same variables is to come.
    """
    _ALIVE.clear()
    gc.collect()


# OneFlow hands a graph's inputs over before it notes that the graph is running, and a graph that is done by then ends the process: on a
# busy machine once in some thousand steps, where they take less than a turn of the system's scheduler. So graphs of small models compute
# products of 512 x 512 beside their outputs, 4 to 7 ms at the rate of a core with and without AVX-512. With two of them none of 7,600
# steps failed in six processes on two cores, without any every process ended
_SMALL_MODEL, _PRODUCTS, _PRODUCT_SIZE = 2_000_000, 3, 512


def _is_soon_done(variables):
    return _device_of(variables) == "cpu" and sum(parameter.numel() for parameter in variables.parameters()) < _SMALL_MODEL


def _take_time():
    """Inside a graph, a tensor that takes a few milliseconds."""
    product = parallel.constant((_PRODUCT_SIZE, _PRODUCT_SIZE), 1.0 / _PRODUCT_SIZE, "cpu")
    for _ in range(_PRODUCTS):
        product = flow.matmul(product, product)
    return product.sum()


def _device_of(variables):
    parameter = next(variables.parameters())
    return parameter.placement.type if parameter.is_global else parameter.device.type


class GlobalFunction:
    """A static graph built from a function at its first call.

    Args:
        function: takes the graph's view of the variables first, then tensors by name.
        type: "train" (the first returned tensor is minimised) or "predict".
        variables: a `Variables` (or any `nn.Module`) whose parameters the graph uses.
        optimizer, schedule: for "train", an OneFlow optimizer and its learning-rate schedule (or None).
        mixed_precision: float16 where it is safe, with a loss scaler; CUDA only.
        accumulation: parts that a batch is cut into along the first dimension of its inputs; the function sees a part, the
            step takes the mean of the parts' gradients, and each output comes as the parts' outputs one after the other.
        frozen: modules whose parameters the graph reads and no optimizer holds (a teacher); the function gets their views
            behind that of `variables`.
    """

    def __init__(self, function, type, variables, optimizer=None, schedule=None, mixed_precision=False, accumulation=1, frozen=()):
        if type not in ("train", "predict"):
            raise ValueError(f"type must be 'train' or 'predict', not {type!r}")
        if (type == "train") != (optimizer is not None):
            raise ValueError("a train function needs an optimizer, a predict function none")
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self._names = None

        def build(graph, *tensors):
            views = [getattr(graph, f"frozen_{position}") for position in range(len(frozen))]
            count = len(tensors) // len(self._names)
            parts = [tensors[lane::count] for lane in range(count)]
            rows = [part[0].shape[0] for part in parts]
            if self._repeats_lanes(parts):
                parts = parts[:1]
            with memo.scope():
                outputs = [function(graph.variables, *views, **dict(zip(self._names, part))) for part in parts]
            outputs = outputs[0] if count == 1 else self._join(outputs, rows)
            if type == "train":
                (outputs[0] if isinstance(outputs, tuple) else outputs).backward()
            return (outputs, _take_time()) if self._soon_done else outputs

        def build_graph(graph, *tensors):
            built = flow.nn.Graph.build_graph(graph, *tensors)
            count = len(tensors) // len(self._names)
            if count > 1:
                job = CompiledJob(graph._full_graph_proto)
                if self._repeats_lanes([tensors[lane::count] for lane in range(count)]):
                    repeat_lane(job, count, self._trains)
                deal_out(job, count)
                graph._full_graph_proto = job.proto
            return built

        def init(graph):
            flow.nn.Graph.__init__(graph)
            graph.variables = variables
            for position, module in enumerate(frozen):
                setattr(graph, f"frozen_{position}", module)
            if optimizer is not None:
                graph.add_optimizer(optimizer, lr_sch=schedule)
            if _device_of(variables) == "cpu":  # a bias, and another lane's gradient, are added by the GEMM that makes the product
                graph.config.allow_fuse_add_to_output(True)
                graph.config.allow_fuse_model_update_ops(True)
            if accumulation > 1:
                graph.config.set_gradient_accumulation_steps(accumulation)
            if mixed_precision:
                graph.config.enable_amp(True)
                if type == "train":
                    graph.set_grad_scaler(
                        flow.amp.GradScaler(init_scale=2.0**14, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000)
                    )

        # one class a function: OneFlow names plan and graph after the class
        self._graph_class = _class_of(function.__name__, (flow.nn.Graph,), {"__init__": init, "build": build, "build_graph": build_graph})
        _ALIVE.append(self)
        self._graphs, self._variables, self._trains = {}, variables, type == "train"
        self._soon_done = _is_soon_done(variables)
        self._restored = None

    def __call__(self, **tensors):
        if self._names is None:
            self._names = tuple(tensors)
        inputs = [tensors[name] for name in self._names]
        arguments = [part for value in inputs for part in (value if isinstance(value, tuple) else (value,))]
        if len(arguments) % len(inputs):
            raise ValueError("inputs of different numbers of parts")
        shapes = tuple(tuple(argument.shape) for argument in arguments)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._new_graph()
        outputs = self._graphs[shapes](*arguments)
        if self._soon_done:
            outputs = outputs[0]
        if len(arguments) > len(inputs):
            calm_scheduler()
        return outputs

    def _repeats_lanes(self, parts):
        """Whether the first of a batch's parts stands for all of them in tracing."""
        shapes = {tuple(tuple(tensor.shape) for tensor in part) for part in parts}
        return len(parts) > 1 and len(shapes) == 1

    def _join(self, outputs, rows):
        """The outputs of all lanes as those of the batch: means weighted by the lanes' rows, or the rows one behind the other. Of one lane
        that is traced for all: its share of the means, or its rows in place of those of every lane."""
        if not isinstance(outputs[0], tuple):
            return self._join([(output,) for output in outputs], rows)[0]
        if not self._trains:
            outputs = outputs if len(outputs) > 1 else outputs * len(rows)
            return tuple(flow.cat(parts, dim=0) for parts in zip(*outputs))
        joined = []
        for parts in zip(*outputs):
            weighted = [part * (count / sum(rows)) for part, count in zip(parts, rows)]
            joined.append(sum(weighted[1:], weighted[0]))
        return tuple(joined)

    def optimizer_state(self):
        """What a train function has gathered beside the variables: dict name -> array of the optimizer's moments (named like their
        variable with -m and -v behind), the step counter and, with mixed precision, the loss scaler's; empty before the first call."""
        for graph in self._graphs.values():
            state = graph.state_dict().items()
            return {name: parallel.to_numpy(value).copy() for name, value in state if not isinstance(value, dict)}
        return {}

    def restore(self, state):
        """Continues from an `optimizer_state`; before the first call."""
        if self._graphs:
            raise ValueError("a graph is compiled already")
        self._restored = state

    def _new_graph(self):
        graph = self._graph_class()
        if self._restored and not self._graphs:
            device = _device_of(self._variables)
            state = {name: parallel.replicate(value, device) for name, value in self._restored.items()}
            graph.load_state_dict(dict(state, variables=self._variables.state_dict()), strict=False)
        if self._trains and self._graphs:
            # A loaded state is not copied: the new graph works on the moments and the step counter of the first one
            # (tests/modeling/engine/test_global_function.py holds OneFlow to this)
            graph.load_state_dict(next(iter(self._graphs.values())).state_dict())
            for parameter in self._variables.parameters():
                parameter.grad = None  # the first graph's symbolic gradient, which 0.9.0 would add to
        return graph


def global_function(type="predict", **settings):
    """Decorator form of `GlobalFunction`."""

    def decorate(function):
        return GlobalFunction(function, type, **settings)

    return decorate
