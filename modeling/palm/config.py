"""The sizes of a PALM, and how bert_config.json stores them: the keys of a BERT, and those of SOFA's config.json for the decoder."""

import dataclasses
from typing import ClassVar

from modeling.bert.config import PALM, BertConfig
from ofrecord_util.errors import UserError

__all__ = ["PALM", "PalmConfig"]

_MOST_FINAL_NORMS = 2


@dataclasses.dataclass(frozen=True)
class PalmConfig(BertConfig):
    """Sizes and dropout rates of a PALM. The defaults are those of palm.ch.base in SOFA.

    Raises:
        UserError: as `BertConfig`.
    """

    vocab_size: int = 21504
    max_position_embeddings: int = 2048
    type_vocab_size: int = 3
    initializer_range: float = 0.00707
    model_type: str = PALM
    dec_hidden_layers: int = 12
    # How often the norm after the encoder's last layer is applied. SOFA's code for fine-tuning and generation applies it twice
    encoder_final_layer_norms: int = 2
    model_types: ClassVar[tuple] = (PALM,)

    def __post_init__(self):
        super().__post_init__()
        if self.encoder_final_layer_norms > _MOST_FINAL_NORMS:
            raise UserError(f"encoder_final_layer_norms is {self.encoder_final_layer_norms}, must be 1 or {_MOST_FINAL_NORMS}")

    @property
    def description(self):
        layers = f"{self.num_hidden_layers} encoder and {self.dec_hidden_layers} decoder layers"
        return f"PALM of {layers} x {self.hidden_size}"

    @property
    def dense_weights(self):
        """As in `BertConfig`, with the decoder, whose layers have a second attention."""
        width = self.hidden_size
        return super().dense_weights + self.dec_hidden_layers * (8 * width * width + 2 * width * self.intermediate_size)
