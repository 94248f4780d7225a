"""Which variables of the encoder a run freezes (`--freeze_encoder`, `--freeze_layers`).

A frozen variable gets no gradient, no update and no weight decay; a snapshot stores it unchanged to the last bit. The graph has no
backward pass below the first trained variable. Dropout is active in frozen layers too.
"""

from typing import NamedTuple

from modeling.bert.config import CLS
from modeling.bert.names import EMBEDDINGS_PREFIX, ENCODER_NORM, POOLER_PREFIX, POOLING_HEADS, layer_of
from ofrecord_util.errors import UserError


class Freezing(NamedTuple):
    """What is frozen."""

    embeddings: bool = False
    layers: int = 0  # the first encoder layers, how many
    pooler: bool = False  # also if --pooling bypasses it
    everything: bool = False  # also the final norm of an encoder with norms before its layers, and the heads of `--pooling sha`

    def holds(self, name):
        """Whether the variable `name` is frozen."""
        layer = layer_of(name)
        if layer is not None:
            return layer < self.layers
        if name.startswith(ENCODER_NORM) or name in POOLING_HEADS:
            return self.everything
        if name.startswith(POOLER_PREFIX):
            return self.pooler
        return self.embeddings and name.startswith(EMBEDDINGS_PREFIX)


def plan_freezing(flags, config):
    """The `Freezing` of a script's flags. Nothing is frozen if the script has no such flags.

    Args:
        flags: of the script.
        config: `BertConfig` of the trained model.
    Raises:
        UserError: more layers than the encoder has, or both flags.
    """
    num_hidden_layers = config.num_hidden_layers
    everything, layers = getattr(flags, "freeze_encoder", False), getattr(flags, "freeze_layers", None)
    if everything and layers is not None:
        raise UserError(f"--freeze_encoder freezes every layer, --freeze_layers {layers} only the first ones: give one of the two")
    if everything:
        return Freezing(True, num_hidden_layers, True, True)
    if layers is None:
        return Freezing(pooler=config.pooling != CLS)
    if layers > num_hidden_layers:
        raise UserError(f"--freeze_layers {layers}: the encoder has {num_hidden_layers} layers, give 0 to {num_hidden_layers}")
    return Freezing(True, layers, config.pooling != CLS)
