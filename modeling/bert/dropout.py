"""Dropout that a run can repeat and continue: the masks of a step follow from the seed and the step alone.

OneFlow's `nn.Dropout` draws one mask for all layers of a graph and ignores the seed, and the state of its generators cannot be
brought back. So masks are drawn outside of the graph, anew for each step, and fed to it like the batch they belong to: NumPy draws
them while the engine still runs the step before, which on the CPU takes the numbers off the graph's one thread.
"""

import math

import numpy as np

from modeling.engine import parallel
from modeling.engine.runtime import flow
from ofrecord_util.seeds import dropout_stream

_PREFIX = "dropout_"
_KEPT_STEPS = 4  # whose arrays are not overwritten: fresh memory is cleared by the system first, which takes longer than drawing
_DRAWN_AT_ONCE = 2**18  # numbers; what stands between them and the mask stays in the cache


class Dropout:
    """The masks of one step inside a graph, handed out in the order in which the graph's dropout layers ask for them."""

    def __init__(self, config, masks):
        self._config, self._masks = config, iter(masks)

    def hidden(self):
        """Mask for hidden states (hidden_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.hidden_dropout_prob > 0 else None

    def attention(self):
        """Mask for attention probabilities (attention_probs_dropout_prob), or None at rate 0."""
        return next(self._masks) if self._config.attention_probs_dropout_prob > 0 else None


class DropoutPlan:
    """Draws the masks of each step of a run and finds them again in the graph.

    Args:
        config: the trained model's `BertConfig`, with the rates.
        seed: the run's seed.
        device: "cpu" or "cuda".
    """

    def __init__(self, config, seed, device):
        self._config, self._seed, self._device = config, seed, device
        self._arrays = {}  # (step % _KEPT_STEPS, layer, shape) -> array

    def layers(self, batch, length, texts=None):
        """(rate, shape) of every dropout layer in the order of the graph: embeddings, then for each encoder layer attention
        probabilities, attention output and layer output, then the pooled representation; layers of rate 0 left out.

        Args:
            batch, length: rows of a step, and tokens of each.
            texts: where several share a row.
        """
        config = self._config
        hidden = (config.hidden_dropout_prob, (batch * length, config.hidden_size))
        attention = (config.attention_probs_dropout_prob, (batch, config.num_attention_heads, length, length))
        pooled = (config.hidden_dropout_prob, (texts or batch, config.hidden_size))
        layers = [hidden, *[attention, hidden, hidden] * config.num_hidden_layers, pooled]
        return [(rate, shape) for rate, shape in layers if rate > 0]

    def kept_numbers(self, batch, length):
        """Numbers in the arrays that masks of this shape are kept in, those of the steps before included."""
        return _KEPT_STEPS * sum(math.prod(shape) for _, shape in self.layers(batch, length))

    def masks(self, step, batch, length, texts=None):
        """Masks of a step (from 0): dict name -> float32 [shape of the layer], 1 / (1 - rate) where a value is kept, else 0;
        arguments as of `layers`.

        On the CPU arrays for the whole batch, whatever the number of ranks, which hold until masks are drawn for the fourth step from
        this one; on cards tensors for this rank's part of it.
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
            for start in range(0, mask.size, _DRAWN_AT_ONCE):
                part = mask[start : start + _DRAWN_AT_ONCE]
                uniform = generator.random_raw(-(-part.size // 4)).view(np.uint16)[: part.size]  # four numbers from each raw word
                np.multiply(uniform >= round(rate * 2**16), scale, out=part)
            return self._arrays[place]

        return draw

    def take(self, batch):
        """Takes the masks out of the inputs of a graph (dict name -> tensor); returns them as a `Dropout`."""
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
    """Adds the masks of `plan` to each batch."""
    for step, batch in enumerate(batches, start=start_step):
        yield dict(batch, **plan.masks(step, *batch["word_rows"].shape, len(batch["loss_mask"])))
