"""Which of the encoder's variables a run leaves as they are (`--freeze_encoder`, `--freeze_layers`).

A frozen variable gets no gradient, no step and no weight decay, and a snapshot holds it bit for bit as it was. No backward pass is
built below the first trained variable. Dropout stays on in frozen layers, as in trained ones.
"""

from typing import NamedTuple

from modeling.bert.config import CLS
from modeling.bert.names import EMBEDDINGS_PREFIX, POOLER_PREFIX, layer_of
from ofrecord_util.errors import UserError


class Freezing(NamedTuple):
    """What stays as it is."""

    embeddings: bool = False
    layers: int = 0  # encoder layers, the first ones
    pooler: bool = False  # also where --pooling leaves it out

    def holds(self, name):
        """Whether the variable `name` (documented name) is frozen."""
        layer = layer_of(name)
        if layer is not None:
            return layer < self.layers
        if name.startswith(POOLER_PREFIX):
            return self.pooler
        return self.embeddings and name.startswith(EMBEDDINGS_PREFIX)


def plan_freezing(flags, config):
    """The `Freezing` that a script's flags ask for; none where it has no such flags.

    Args:
        config: `BertConfig` of the trained model.
    Raises:
        UserError: more layers than the encoder has, or both flags.
    """
    num_hidden_layers = config.num_hidden_layers
    everything, layers = getattr(flags, "freeze_encoder", False), getattr(flags, "freeze_layers", None)
    if everything and layers is not None:
        raise UserError(f"--freeze_encoder freezes every layer, --freeze_layers {layers} some: give one of them")
    if everything:
        return Freezing(True, num_hidden_layers, True)
    if layers is None:
        return Freezing(pooler=config.pooling != CLS)
    if layers > num_hidden_layers:
        raise UserError(f"--freeze_layers {layers}: the encoder has {num_hidden_layers} layers, give 0 to {num_hidden_layers}")
    return Freezing(True, layers, config.pooling != CLS)
