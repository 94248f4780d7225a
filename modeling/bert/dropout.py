"""Reproducible dropout: the masks of a step depend only on the seed and the step.

OneFlow's `nn.Dropout` uses one mask for all layers of a graph and ignores the seed, and the state of its generators cannot be
restored. So the masks of each step are sampled outside the graph and are inputs of the graph, like the batch. On the CPU, NumPy samples
them while the engine still runs the previous step, so that the graph's only thread does not have to.
"""

import math

import numpy as np

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

    def attention(self):
        """The next mask for attention probabilities (attention_probs_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.attention_probs_dropout_prob > 0 else None


class DropoutPlan:
    """Samples the masks of each step of a run, and finds them among the inputs of the graph.

    Args:
        config: `BertConfig` of the trained model, with the rates.
        seed: the run's seed.
        device: "cpu" or "cuda".
    """

    def __init__(self, config, seed, device):
        self._config, self._seed, self._device = config, seed, device
        self._arrays = {}  # (step % _KEPT_STEPS, layer, shape) -> array

    def layers(self, batch, length, texts=None):
        """The dropout layers of a graph, in order: embeddings; attention probabilities, attention output and layer output of each encoder
        layer; pooled representation. Layers with rate 0 are left out.

        Args:
            batch: rows per step.
            length: tokens per row.
            texts: texts per step in a packed batch; None for one text per row.
        Returns:
            list of (rate, shape).
        """
        config = self._config
        hidden = (config.hidden_dropout_prob, (batch * length, config.hidden_size))
        attention = (config.attention_probs_dropout_prob, (batch, config.num_attention_heads, length, length))
        pooled = (config.hidden_dropout_prob, (texts or batch, config.hidden_size))
        layers = [hidden, *[attention, hidden, hidden] * config.num_hidden_layers, pooled]
        return [(rate, shape) for rate, shape in layers if rate > 0]

    def kept_numbers(self, batch, length):
        """Number of floats in all arrays for masks of this shape, including those of previous steps."""
        return _KEPT_STEPS * sum(math.prod(shape) for _, shape in self.layers(batch, length))

    def masks(self, step, batch, length, texts=None):
        """Masks of a step: 1 / (1 - rate) where a value is kept, else 0.

        On the CPU the arrays cover the whole batch, whatever the number of ranks, and stay valid until the masks of step + 4 are sampled.
        On GPUs the tensors cover this rank's part of the batch.

        Args:
            step: from 0.
            batch, length, texts: as for `layers`.
        Returns:
            dict of name -> float32 array or tensor, of the layer's shape.
        """
        words = dropout_stream(self._seed, step)
        if self._device == "cpu":
            draw = self._array_masks(step, np.random.PCG64(words))
        else:
            batch, texts = batch // parallel.size(), texts and texts // parallel.size()
            draw = _device_masks(int(words.generate_state(parallel.size(), np.uint64)[parallel.rank()] >> 1), self._device)
        layers = self.layers(batch, length, texts)
        return {f"{_PREFIX}{position}": draw(position, rate, shape) for position, (rate, shape) in enumerate(layers)}

    def _array_masks(self, step, generator):
        def draw(position, rate, shape):
            place = step % _KEPT_STEPS, position, shape
            if place not in self._arrays:
                self._arrays[place] = np.empty(shape, np.float32)
            mask = self._arrays[place].reshape(-1)
            scale = np.float32(1.0 / (1.0 - rate))
            for start in range(0, mask.size, _SAMPLED_AT_ONCE):
                part = mask[start : start + _SAMPLED_AT_ONCE]
                uniform = generator.random_raw(-(-part.size // 4)).view(np.uint16)[: part.size]  # four numbers from each raw word
                np.multiply(uniform >= round(rate * 2**16), scale, out=part)
            return self._arrays[place]

        return draw

    def take(self, batch):
        """Removes the masks from the inputs of a graph and returns them as a `Dropout`.

        Args:
            batch: dict of name -> tensor.
        """
        names = [name for name in batch if name.startswith(_PREFIX)]
        return Dropout(self._config, [batch.pop(name) for name in names])


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
