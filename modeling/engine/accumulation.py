"""Trains on a batch in parts, so that the graph needs memory for one part only.

OneFlow's CPU engine keeps the output of each operation for the whole step, so the memory of a train graph grows with its batch. A batch can
therefore be computed in k parts of equal size. One graph computes the gradients of a part and adds them to sums; it runs k times per step.
A second graph clips the sums and updates the variables; it runs once, and all batch shapes share it.

The step is that of the whole batch, up to the rounding of float32: the outputs of a train function are means over the batch, and the mean
over equal parts of their means is the mean over the batch.
"""

from modeling.engine.lanes.build import build_update_graph
from modeling.engine.runtime import flow
from modeling.engine.workarounds import clear_symbolic_gradients, is_short, pad_short_graph

_SUM = "-momentum"  # ending of the name under which OneFlow keeps an optimizer's momentum


class GradientSums(flow.nn.Module):
    """The sums of gradients over the parts of a batch, and the update that uses them.

    Args:
        variables: a `Variables` on a CPU.
        optimizer, schedule: OneFlow's optimizer and learning-rate schedule (or None) for the update.
        lanes: number of lanes.
    """

    def __init__(self, variables, optimizer, schedule, lanes):
        super().__init__()
        # In a tuple, so that the variables do not become variables of this module too
        self._outer = variables, optimizer, schedule, lanes
        self._trained = {name: value for name, value in variables.named_parameters() if value.requires_grad}
        self._places = {name: f"sum_{place}" for place, name in enumerate(self._trained)}
        for name, value in self._trained.items():
            self.register_parameter(self._places[name], flow.nn.Parameter(flow.zeros(*value.shape), requires_grad=False))
        self._update = None
        # OneFlow creates one momentum per variable. modeling/engine/lanes/sums.py changes the update in the job to
        # momentum -= lr * gradient: with learning rate -1 a momentum is a sum of gradients, and the variables stay as they are
        self.optimizer = flow.optim.SGD([{"params": list(self._trained.values()), "lr": -1.0, "momentum": 1.0}])

    def state(self):
        """The state that lets a graph with this object's `optimizer` add its gradients to the sums."""
        return {f"variables.{name}{_SUM}": getattr(self, place) for name, place in self._places.items()}

    def update(self, restored=None):
        """Updates the variables from the sums, and sets the sums to 0.

        Args:
            restored: state of the optimizer from which the first update continues, dict of name -> array, or None.
        """
        if self._update is None:
            clear_symbolic_gradients(self._outer[0])
            self._update = self._update_graph(restored)
        self._update()
        for place in self._places.values():
            getattr(self, place).zero_()

    def graphs(self):
        """List with the graph that updates, whose state is that of the optimizer; empty before the first update."""
        return [self._update] if self._update is not None else []

    def _update_graph(self, restored):
        variables, optimizer, schedule, lanes = self._outer
        sums, places, short = self, self._places, is_short(variables)

        class UpdateGraph(flow.nn.Graph):
            """Its gradients are replaced by the sums in the job."""

            def __init__(self):
                super().__init__()
                self.variables, self.sums = variables, sums
                self.add_optimizer(optimizer, lr_sch=schedule)
                self.config.allow_fuse_model_update_ops(True)

            def build(self):
                corner = [_corner(getattr(self.variables, name)) for name in places]
                loss = flow.cat(corner, dim=0).sum()
                loss.backward()
                used = flow.cat([_corner(getattr(self.sums, place)) for place in places.values()], dim=0).sum()
                return (used, pad_short_graph()) if short else used

            def build_graph(self):
                return build_update_graph(self, {f"variables.{name}": f"sums.{place}" for name, place in places.items()}, lanes)

        graph = UpdateGraph()
        if restored:
            state = {name: flow.tensor(value) for name, value in restored.items()}
            graph.load_state_dict(dict(state, variables=variables.state_dict(), sums=sums.state_dict()), strict=False)
        return graph


def _corner(tensor):
    """The first element of a tensor, [1]."""
    for _ in range(len(tensor.shape) - 1):
        tensor = tensor[0]
    return tensor[:1]
