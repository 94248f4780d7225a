"""Reproducible dropout: the masks of a step depend only on the seed and the step.

OneFlow's `nn.Dropout` uses one mask for all layers of a graph and ignores the seed, and the state of its generators cannot be
restored. So the masks of each step are sampled outside the graph and are inputs of the graph, like the batch. On the CPU, NumPy samples
them while the engine still runs the previous step, so that the graph's only thread does not have to.
"""

import math

import numpy as np

from modeling.bert.config import CLS
from modeling.engine import parallel
from modeling.engine.runtime import flow
from ofrecord_util.seeds import dropout_stream

_PREFIX = "dropout_"
_KEPT_STEPS = 4  # steps whose arrays stay valid. Arrays are reused: the system clears new memory first, which takes longer than sampling
_SAMPLED_AT_ONCE = 2**18  # numbers, so that intermediate arrays stay in the cache


class Dropout:
    """The masks of one step inside a graph, in the order of the graph's dropout layers.

    Args:
        config: `BertConfig`, with the rates.
        masks: list of tensors.
    """

    def __init__(self, config, masks):
        self._config, self._masks = config, iter(masks)

    def hidden(self):
        """The next mask for hidden states (hidden_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.hidden_dropout_prob > 0 else None

    def pooler_input(self):
        """The next mask for the pooler's input (pooler_input_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.pooler_input_dropout_prob > 0 else None

    def attention(self):
        """The next mask for attention probabilities (attention_probs_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.attention_probs_dropout_prob > 0 else None


class DropoutPlan:
    """Samples the masks of each step of a run, and finds them among the inputs of the graph.

    Args:
        config: `BertConfig` of the trained model, with the rates.
        seed: the run's seed.
        device: "cpu" or "cuda".
        parts: number of parts in which the graph computes a batch (modeling/engine/accumulation.py). With several parts, the masks are
            sampled when the graph takes a part of them, so that they need memory for a few parts only. The masks are the same.
        passes: number of passes over the encoder in a step, each with masks of its own.
        of_tokens: whether the head reads all tokens, and not a pooled representation of each text.
        before_head: whether there is dropout between the encoder and the head.
        generator: `BertConfig` of another encoder in the graph, with the same rates, whose layers come first. It has the embeddings of the
            trained model and no pooled representation; None without one.
    """

    def __init__(self, config, seed, device, parts=1, passes=1, of_tokens=False, generator=None, before_head=True):
        self._of_tokens, self._before_head = of_tokens, before_head
        self._config, self._seed, self._device, self._parts, self._passes = config, seed, device, parts, passes
        self._generator = generator
        self._arrays = {}  # (step or part % _KEPT_STEPS, layer, shape) -> array

    def layers(self, batch, length, texts=None):
        """The dropout layers of a graph, in order: embeddings; attention probabilities, attention output and layer output of each encoder
        layer; the pooler's input; pooled representation, or in its place the head's input. Layers with rate 0 are left out. With
        several passes, the next ones follow.

        Args:
            batch: rows per step.
            length: tokens per row.
            texts: texts per step in a packed batch; None for one text per row.
        Returns:
            list of (rate, shape).
        """
        config, rate = self._config, self._config.hidden_dropout_prob
        hidden = rate, (batch * length, config.hidden_size)

        def encoder(config):
            attention = (self._config.attention_probs_dropout_prob, (batch, config.num_attention_heads, length, length))
            return [hidden, *[attention, *[(rate, (batch * length, config.hidden_size))] * 2] * config.num_hidden_layers]

        first = encoder(self._generator) if self._generator else []
        pooled = (config.hidden_dropout_prob, (texts or batch, config.pooled_size))
        pooler = [(config.pooler_input_dropout_prob, pooled[1])] * (config.pooling == CLS)  # the mean and the maximum bypass the pooler
        head = ([hidden] if self._of_tokens else [*pooler, pooled]) if self._before_head else []
        layers = first + [*encoder(config), *head] * self._passes
        return [(rate, shape) for rate, shape in layers if rate > 0]

    def kept_numbers(self, batch, length):
        """Number of floats in all arrays for masks of this shape, including those of previous steps."""
        return _KEPT_STEPS * sum(math.prod(shape) for _, shape in self.layers(batch // self._parts, length))

    def masks(self, step, batch, length, texts=None):
        """Masks of a step: 1 / (1 - rate) where a value is kept, else 0.

        On the CPU the arrays cover the whole batch, whatever the number of ranks, and stay valid until the masks of step + 4 are sampled.
        On GPUs the tensors cover this rank's part of the batch.

        Args:
            step: from 0.
            batch, length, texts: as for `layers`.
        Returns:
            dict of name -> float32 array, `MaskInParts` or tensor, of the layer's shape.
        """
        words = dropout_stream(self._seed, step)
        if self._parts > 1:
            draw = self._masks_in_parts(step, words)
        elif self._device == "cpu":
            draw = self._array_masks(step, np.random.PCG64(words))
        else:
            batch, texts = batch // parallel.size(), texts and texts // parallel.size()
            draw = _device_masks(int(words.generate_state(parallel.size(), np.uint64)[parallel.rank()] >> 1), self._device)
        layers = self.layers(batch, length, texts)
        return {f"{_PREFIX}{position}": draw(position, rate, shape) for position, (rate, shape) in enumerate(layers)}

    def _array_masks(self, step, generator):
        def draw(position, rate, shape):
            mask = self._array(step, position, shape)
            sample_mask(mask.reshape(-1), rate, generator)
            return mask

        return draw

    def _masks_in_parts(self, step, words):
        first = 0  # raw words of the generator that the masks of the earlier layers take

        def draw(position, rate, shape):
            nonlocal first

            def sample(part, offset, shape):
                mask = self._array(step * self._parts + part, position, shape)
                sample_mask(mask.reshape(-1), rate, np.random.PCG64(words).advance(start + offset // 4), offset % 4)
                return mask

            start, first = first, first - -math.prod(shape) // 4
            return MaskInParts(sample, shape, self._parts)

        return draw

    def _array(self, number, position, shape):
        """The array for a mask of step or part `number`."""
        place = number % _KEPT_STEPS, position, shape
        if place not in self._arrays:
            self._arrays[place] = np.empty(shape, np.float32)
        return self._arrays[place]

    def take(self, batch):
        """Removes the masks from the inputs of a graph and returns them as a `Dropout`.

        Args:
            batch: dict of name -> tensor.
        """
        names = [name for name in batch if name.startswith(_PREFIX)]
        return Dropout(self._config, [batch.pop(name) for name in names])


class MaskInParts:
    """A mask that is sampled in parts: a slice of its first dimension is an array.

    Args:
        sample: function of (number of the part, its first element, its shape) -> array.
        shape: shape of the whole mask.
        parts: number of parts, of equal size.
    """

    def __init__(self, sample, shape, parts):
        self._sample, self.shape, self._size = sample, shape, shape[0] // parts

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(len(self))
        return self._sample(start // self._size, start * math.prod(self.shape[1:]), (stop - start, *self.shape[1:]))


def sample_mask(mask, rate, generator, skipped=0):
    """Fills a mask, a flat float32 array: 1 / (1 - rate) with probability 1 - rate, else 0.

    Args:
        mask: the array.
        rate: at least 0, less than 1; in steps of 2^-16.
        generator: `PCG64`. Each of its raw words gives four numbers.
        skipped: how many numbers of the first word are left out.
    """
    scale, kept_from = np.float32(1.0 / (1.0 - rate)), round(rate * 2**16)
    start = 0
    while start < mask.size:
        part = mask[start : start + _SAMPLED_AT_ONCE - skipped]
        uniform = generator.random_raw(-(-(skipped + part.size) // 4)).view(np.uint16)[skipped : skipped + part.size]
        np.multiply(uniform >= kept_from, scale, out=part)
        start, skipped = start + part.size, 0


def _device_masks(seed, device):
    generator = flow.Generator(device)
    generator.manual_seed(seed)

    def draw(_, rate, shape):
        uniform = flow.rand(*shape, generator=generator, device=device)
        return (uniform >= rate).to(flow.float32) * (1.0 / (1.0 - rate))

    return draw


def with_dropout(batches, plan, start_step=0):
    """Adds the masks of a `DropoutPlan` to each batch.

    Args:
        batches: iterable of dicts with `word_rows` and `loss_mask`.
        plan: `DropoutPlan`.
        start_step: the step of the first batch.
    """
    for step, batch in enumerate(batches, start=start_step):
        yield dict(batch, **plan.masks(step, *batch["word_rows"].shape, len(batch["loss_mask"])))
