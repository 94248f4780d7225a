"""Sums of gradients: training on a batch in parts, gradients without an update, and updates with changed gradients.

OneFlow's CPU engine keeps the output of each operation for the whole step, so the memory of a train graph grows with its batch. A batch can
therefore be computed in k parts of equal size. One graph computes the gradients of a part and adds them to sums; it runs k times per step.
A second graph clips the sums and updates the variables; it runs once, and all batch shapes share it.

The step is that of the whole batch, up to the rounding of float32: the outputs of a train function are means over the batch, and the mean
over equal parts of their means is the mean over the batch.

Two other uses need the sums. A program may read them instead of updating (`GlobalFunction.gradients`). And the update may change the
gradients between clipping and optimizer (modeling/engine/gradient_masks.py).

With one process on a CPU, the first graph adds to the sums itself. Otherwise it returns its gradients, which are then added to the sums.
"""

import numpy as np

from modeling.engine import parallel
from modeling.engine.gradient_masks import GradientMasks
from modeling.engine.lanes.build import build_update_graph
from modeling.engine.runtime import flow
from modeling.engine.workarounds import clear_symbolic_gradients, is_short, pad_short_graph

_SUM = "-momentum"  # ending of the name under which OneFlow keeps an optimizer's momentum


class GradientSums(flow.nn.Module):
    """The sums of gradients over the parts of a batch, and the update that uses them.

    Args:
        variables: a `Variables`.
        optimizer, schedule: OneFlow's optimizer and learning-rate schedule (or None) for the update; None if nothing is updated.
        engine: `Engine`.
        masks: `GradientMasks` that change the gradients of the update, or None.
    Attributes:
        optimizer: the optimizer of the graphs that compute gradients. It does not change the variables.
        in_job: whether these graphs add their gradients to the sums. Otherwise they return them, and `add` adds them.
    """

    def __init__(self, variables, optimizer, schedule, engine, masks=None):
        super().__init__()
        self.in_job, device = engine.sums_gradients, engine.device
        if masks is None and not self.in_job:  # the job of a graph can be changed with one process only
            masks = GradientMasks(variables, device, names=())
        # In a tuple, so that the variables do not become variables of this module too
        self._outer = variables, optimizer, schedule, engine.lanes.count, masks
        self._trained = {name: value for name, value in variables.named_parameters() if value.requires_grad}
        self._places = {name: f"sum_{place}" for place, name in enumerate(self._trained)}
        for name, value in self._trained.items():
            zeros = parallel.replicate(np.zeros(tuple(value.shape), np.float32), device)
            self.register_parameter(self._places[name], flow.nn.Parameter(zeros, requires_grad=False))
        self._update, self._used, self._clearing = None, (), False
        # OneFlow creates one momentum per variable. modeling/engine/lanes/sums.py changes the update in the job to
        # momentum -= lr * gradient: with learning rate -1 a momentum is a sum of gradients, and the variables stay as they are
        rate = {"lr": -1.0, "momentum": 1.0} if self.in_job else {"lr": 0.0}
        self.optimizer = flow.optim.SGD([{"params": list(self._trained.values()), **rate}])

    def state(self):
        """The state that lets a graph with this object's `optimizer` add its gradients to the sums; empty if not `in_job`."""
        return {f"variables.{name}{_SUM}": getattr(self, place) for name, place in self._places.items()} if self.in_job else {}

    def of_graph(self, variables):
        """The gradients of a graph under construction, after its backward pass: tuple of tensors that `add` takes.

        A trained parameter that the function does not use has no gradient.
        """
        gradients = {name: value.grad for name, value in variables.named_parameters() if value.requires_grad}
        self._used = [name for name, gradient in gradients.items() if gradient is not None]
        return tuple(gradients[name] for name in self._used)

    def add(self, gradients):
        """Adds the gradients that a graph has returned to the sums."""
        for name, gradient in zip(self._used, gradients):
            total = gradient.to_global(sbp=flow.sbp.broadcast) if gradient.is_global else gradient
            getattr(self, self._places[name]).add_(total)

    def take(self):
        """The sums as dict of parameter's name -> float32 array. Then sets them to 0."""
        parallel.wait_for_graphs(self._outer[0])
        sums = {name: parallel.to_numpy(getattr(self, place)).copy() for name, place in self._places.items()}
        self._clear()
        return sums

    def _clear(self):
        for place in self._places.values():
            getattr(self, place).zero_()
        self._clearing = True

    def wait_until_clear(self):
        """Call this before a graph adds to the sums. OneFlow knows of no order between it and an operation that sets them to 0, because the
        sums are the state of the graph's optimizer."""
        if self._clearing:
            parallel.to_numpy(getattr(self, next(reversed(self._places.values()))))  # the last one that is set to 0
            self._clearing = False

    def update(self, restored=None):
        """Updates the variables from the sums, and sets the sums to 0.

        Args:
            restored: state of the optimizer from which the first update continues, dict of name -> array, or None.
        """
        if self._update is None:
            clear_symbolic_gradients(self._outer[0])
            self._update = self._update_graph(restored)
        self._update()
        self._clear()

    def graphs(self):
        """List with the graph that updates, whose state is that of the optimizer; empty before the first update."""
        return [self._update] if self._update is not None else []

    def _update_graph(self, restored):
        variables, optimizer, schedule, lanes, masks = self._outer
        sums, places, short = self, self._places, is_short(variables)

        class UpdateGraph(flow.nn.Graph):
            """Its gradients are replaced by the sums in the job, or are the masked sums."""

            def __init__(self):
                super().__init__()
                self.variables, self.sums = variables, sums
                if masks is not None:
                    self.masks = masks
                self.add_optimizer(optimizer, lr_sch=schedule)
                self.config.allow_fuse_model_update_ops(True)

            def build(self):
                if masks is not None:
                    pairs = {name: (getattr(self.variables, name), getattr(self.sums, place)) for name, place in places.items()}
                    used = masks.surrogate(self.masks, pairs)
                    used.backward()
                    return (used, pad_short_graph()) if short else used
                corner = [_corner(getattr(self.variables, name)) for name in places]
                loss = flow.cat(corner, dim=0).sum()
                loss.backward()
                used = flow.cat([_corner(getattr(self.sums, place)) for place in places.values()], dim=0).sum()
                return (used, pad_short_graph()) if short else used

            def build_graph(self):
                if masks is not None:
                    return flow.nn.Graph.build_graph(self)
                return build_update_graph(self, {f"variables.{name}": f"sums.{place}" for name, place in places.items()}, lanes)

        graph = UpdateGraph()
        if restored:
            state = {name: parallel.replicate(value, parallel.device_of(variables)) for name, value in restored.items()}
            graph.load_state_dict(dict(state, variables=variables.state_dict(), sums=sums.state_dict()), strict=False)
        return graph


def _corner(tensor):
    """The first element of a tensor, [1]."""
    for _ in range(len(tensor.shape) - 1):
        tensor = tensor[0]
    return tensor[:1]
