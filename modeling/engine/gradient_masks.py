"""Factors of the gradients of a training step: gradients are clipped by their global norm, then multiplied by masks, then used.

OneFlow clips inside the optimizer, so anything that a graph does to a gradient comes before the clip. Here the gradients are sums
(modeling/engine/accumulation.py), which are clipped and masked in the graph of the update. The optimizer must not clip again.
"""

import numpy as np

from modeling.engine import parallel
from modeling.engine.runtime import flow

_EPSILON = 1e-6  # in the denominator of the clip's factor, as OneFlow and PyTorch have it


class GradientMasks(flow.nn.Module):
    """A mask for each of some trained parameters, and the norm to which the gradients are clipped.

    Args:
        variables: a `Variables`.
        device: "cpu" or "cuda".
        max_norm: limit of the norm of all gradients together; None for no clip.
        names: the parameters that have a mask; None for all trained ones. Masks are ones at first.
    Attributes:
        shapes: dict of parameter's name -> shape of its mask.
    """

    def __init__(self, variables, device, max_norm=None, names=None):
        super().__init__()
        self._device, self._max_norm = device, max_norm
        trained = [(name, value) for name, value in variables.named_parameters() if value.requires_grad]
        chosen = {name: tuple(value.shape) for name, value in trained if names is None or name in names}
        self.shapes = chosen
        self._places = {name: f"mask_{place}" for place, name in enumerate(chosen)}
        for name, shape in chosen.items():
            ones = parallel.replicate(np.ones(shape, np.float32), device)
            self.register_parameter(self._places[name], flow.nn.Parameter(ones, requires_grad=False))

    def set(self, name, mask):
        """Sets the mask of a parameter. Later updates use it; one that still runs does not.

        Args:
            name: of the parameter.
            mask: float32 array of the parameter's shape.
        """
        with flow.no_grad():
            getattr(self, self._places[name]).copy_(parallel.replicate(mask, self._device))

    def surrogate(self, view, pairs):
        """A scalar whose gradient with respect to each variable is the clipped and masked gradient.

        It is a sum of scalar products, which are GEMMs, so that the graph keeps two arrays of the size of the variables only.

        Args:
            view: the graph's view of this module.
            pairs: dict of parameter's name -> (variable, gradient), tensors of one shape. The gradients are constants.
        """
        products, powers = [], []
        for name, (variable, gradient) in pairs.items():
            row = gradient.reshape(1, gradient.numel())
            if self._max_norm is not None:
                powers.append(flow.matmul(row, row, transpose_b=True))
            if name in self._places:
                row = row * getattr(view, self._places[name]).reshape(1, gradient.numel())
            products.append(flow.matmul(variable.reshape(1, gradient.numel()), row, transpose_b=True))
        total = flow.cat(products, dim=0).sum()
        if self._max_norm is None:
            return total
        norm = flow.sqrt(flow.cat(powers, dim=0).sum())
        return total * flow.clamp(self._max_norm / (norm + _EPSILON), max=1.0)
