"""How an encoder differs from BERT: the forms of MEAD's Transformers that a checkpoint may have. bert_config.json has them as `variant`.

Each value names one function of modeling/bert/norm_placement.py, positions.py, attention.py or heads.py.
"""

import dataclasses
import json
from typing import Tuple

from ofrecord_util.errors import UserError

LAYER_NORMS = AFTER, BEFORE = ("after", "before")
POSITIONS = LEARNED, LEARNED_WITH_BIAS, SINUSOIDAL, NO_POSITIONS = ("learned", "learned_with_bias", "sinusoidal", "none")
TOKEN_HEADS = TRANSFORMED, PLAIN = ("transformed", "plain")

_CHOICES = {"layer_norms": LAYER_NORMS, "positions": POSITIONS, "token_head": TOKEN_HEADS}
_FARTHEST = 65_536  # as many positions as a model may have
_WIDEST_HEAD = 32_768  # as wide as a model may be


@dataclasses.dataclass(frozen=True)
class Variant:
    """The form of an encoder; the defaults are BERT's.

    Args:
        layer_norms: "after" each sum, x = LN(x + f(x)); or "before" each layer, x = x + f(LN(x)), with a norm after the last one.
        embeddings_norm: whether the sum of the embeddings is normalised.
        positions: what is added to the word embeddings (modeling/bert/positions.py).
        relative_distances: k of each layer, the farthest distance between tokens that relative positions (Shaw et al. 2018) tell apart;
            empty without them.
        relative_values: whether relative positions are added to the values, too, and not to the keys alone.
        windowed: whether tokens attend only to tokens at distances up to k.
        token_head: the head of masked language modelling. "transformed" is BERT's; "plain" is the product with the word embeddings.
        pooling_head_size: width of the queries and keys of `pooling` "sha" and "2ha".

    Raises:
        UserError: a value is not one of these.
    """

    layer_norms: str = AFTER
    embeddings_norm: bool = True
    positions: str = LEARNED
    relative_distances: Tuple[int, ...] = ()
    relative_values: bool = False
    windowed: bool = False
    token_head: str = TRANSFORMED
    pooling_head_size: int = 64

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"variant: {name} {getattr(self, name)!r:.80} is none of {', '.join(choices)}")
        for name in ("embeddings_norm", "relative_values", "windowed"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"variant: {name} must be true or false, not {getattr(self, name)!r:.80}")
        if type(self.pooling_head_size) is not int or not 1 <= self.pooling_head_size <= _WIDEST_HEAD:
            raise UserError(f"variant: pooling_head_size must be a number from 1 to {_WIDEST_HEAD}, not {self.pooling_head_size!r:.80}")
        distances = self.relative_distances
        if not isinstance(distances, tuple) or not all(type(k) is int and 1 <= k <= _FARTHEST for k in distances):
            raise UserError(f"variant: relative_distances must be a list of numbers from 1 to {_FARTHEST}, not {distances!r:.80}")
        if not distances and (self.relative_values or self.windowed):
            raise UserError("variant: relative_values and windowed need relative_distances")

    @classmethod
    def from_dict(cls, values):
        """A `Variant` from the parsed object of bert_config.json.

        Raises:
            UserError: it is no object, or has another key or value.
        """
        if not isinstance(values, dict):
            raise UserError(f"variant must be an object, not {values!r:.80}")
        known = [field.name for field in dataclasses.fields(cls)]
        other = sorted(set(values) - set(known))
        if other:
            raise UserError(f"variant: {other[0]!r:.80} is none of {', '.join(known)}")
        distances = values.get("relative_distances", [])
        return cls(**dict(values, relative_distances=tuple(distances) if isinstance(distances, list) else distances))

    def check_layers(self, num_hidden_layers):
        """Raises a UserError if there are relative distances of another number of layers."""
        if self.relative_distances and len(self.relative_distances) != num_hidden_layers:
            raise UserError(
                f"variant: relative_distances has {len(self.relative_distances)} numbers, but num_hidden_layers is {num_hidden_layers}"
            )

    def of_layers(self, layers):
        """The variant of an encoder with only these layers (from 0), in this order."""
        distances = self.relative_distances
        return dataclasses.replace(self, relative_distances=tuple(distances[layer] for layer in layers if distances))

    @property
    def has_position_table(self):
        """Whether the embeddings of positions are learned."""
        return self.positions in (LEARNED, LEARNED_WITH_BIAS)

    @property
    def differences(self):
        """dict of the values that are not BERT's, as bert_config.json has them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if getattr(self, field.name) != field.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __str__(self):
        return ", ".join(f"{name} {json.dumps(value)}" for name, value in self.differences.items())


BERT_FORM = Variant()
