"""Child-Tuning (Xu et al. 2021, arXiv 2109.05687): which elements of the gradients a step uses. In NumPy.

    F (task-free):    g' = g * M / p    M ~ Bernoulli(p), drawn again for each element and each step
    D (task-driven):  g' = g * M        M = 1 for the share p of the elements with the largest Fisher information, fixed for a run

g is the gradient after clipping. Masked elements enter the moments of Adam as zeros. In D, only variables of the layers have masks;
embeddings, pooler and heads are trained fully. Weight decay applies to all elements, masked ones too, as in SOFA (Alibaba's
implementation): with weight decay 0, an element outside the child network of D keeps its value.
"""

import math

import numpy as np

from modeling.bert.dropout import sample_mask
from modeling.bert.names import is_in_layer
from ofrecord_util.seeds import child_mask_stream

_BITS = 16  # of a mask, per number of `pack_masks`: a float32 holds such whole numbers exactly
_EPSILON = 1e-6  # in the denominator of a clip's factor, as PyTorch has it


def task_free_masks(shapes, reserve_p, seed, step):
    """The masks of a step of Child-Tuning-F, divided by p. They depend on the arguments only.

    Args:
        shapes: dict of parameter's name -> shape, in a fixed order.
        reserve_p: p, share of the elements that are kept; above 0, in steps of 2^-16.
        seed: of the run.
        step: from 0.
    Yields:
        (name, float32 array of the parameter's shape: 0 or 1 / p).
    """
    generator = np.random.PCG64(child_mask_stream(seed, step))
    for name, shape in shapes.items():
        mask = np.empty(shape, np.float32)
        sample_mask(mask.reshape(-1), 1.0 - reserve_p, generator)
        yield name, mask


class FisherInformation:
    """The Fisher information of the elements of the encoder layers: mean over batches of the squared gradient of the batch's mean loss.

    The gradient of each variable is clipped by its own norm before it is squared, as in SOFA. The paper defines the mean over samples, not
    over batches, so the batch size influences the result.

    Args:
        columns: dict of parameter's name -> list of (variable's name, slice of the last dimension), see `Variables.columns`.
        max_norm: limit of the norm of each variable's gradient.
    Attributes:
        batches: number of batches so far.
        finite: whether all gradients so far are finite.
    """

    def __init__(self, columns, max_norm):
        found = {name: [(of, part) for of, part in parts if is_in_layer(of)] for name, parts in columns.items()}
        self._columns, self._max_norm = {name: parts for name, parts in found.items() if parts}, max_norm
        self._sums, self.batches, self.finite = {}, 0, True

    @property
    def names(self):
        """The parameters that get a mask."""
        return tuple(self._columns)

    def add(self, gradients):
        """Adds a batch: dict of parameter's name -> float32 array, the gradients of its mean loss."""
        self.batches += 1
        for name, parts in self._columns.items():
            gradient = gradients[name]
            total = self._sums.setdefault(name, np.zeros(gradient.shape, np.float32))
            for _, columns in parts:
                part = gradient[..., columns]
                norm = math.sqrt(float(np.square(part, dtype=np.float64).sum()))
                self.finite &= math.isfinite(norm)
                total[..., columns] += np.square(part * np.float32(min(1.0, self._max_norm / (norm + _EPSILON))))

    def masks(self, reserve_p):
        """The masks of Child-Tuning-D: dict of parameter's name -> float32 array, 1 at the elements that are trained.

        The threshold is the (1 - p) percentile of all elements together, interpolated linearly. Elements at the threshold are kept.
        """
        values = np.concatenate([self._sums[name][..., part].reshape(-1) for name, parts in self._columns.items() for _, part in parts])
        limit = percentile(values, 1.0 - reserve_p)
        masks = {}
        for name, parts in self._columns.items():
            masks[name] = np.ones(self._sums[name].shape, np.float32)
            for _, columns in parts:
                masks[name][..., columns] = self._sums[name][..., columns].astype(np.float64) >= limit
        return masks

    def kept(self, masks):
        """(elements that the masks keep, elements that have a mask)."""
        parts = [masks[name][..., part] for name, columns in self._columns.items() for _, part in columns]
        return sum(int(part.sum(dtype=np.float64)) for part in parts), sum(part.size for part in parts)


def percentile(values, share):
    """The value below which a share of the values lies, interpolated linearly, in float64.

    Args:
        values: float [N], at least one; its order is lost.
        share: from 0 to 1.
    """
    place = (len(values) - 1) * share
    low, high = math.floor(place), math.ceil(place)
    values.partition((low, high))
    return float(values[low]) + (float(values[high]) - float(values[low])) * (place - low)


def pack_masks(masks):
    """Masks of zeros and ones as one float32 array of whole numbers, 16 elements each."""
    bits = np.concatenate([mask.reshape(-1) != 0 for mask in masks.values()])
    return np.packbits(np.pad(bits, (0, -len(bits) % _BITS))).view(">u2").astype(np.float32)


def unpack_masks(packed, shapes):
    """The masks from the array of `pack_masks`.

    Args:
        packed: float32 [N].
        shapes: dict of parameter's name -> shape, in the order of the masks.
    Raises:
        ValueError: the array has another size, or a value that is none of `pack_masks`.
    """
    count = sum(math.prod(shape) for shape in shapes.values())
    if packed.shape != (-(-count // _BITS),) or not ((packed >= 0) & (packed < 2**_BITS) & (packed == np.floor(packed))).all():
        raise ValueError("not the masks of these parameters")
    bits = np.unpackbits(packed.astype(">u2").view(np.uint8))[:count].astype(np.float32)
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(bits, ends))}
