"""The sizes of a BERT encoder, and how bert_config.json stores them. The keys are Google's."""

import dataclasses
import json
import math
from typing import ClassVar

from modeling.bert.variant import AFTER, BERT_FORM, LEARNED_WITH_BIAS, Variant
from modeling.cli.choices import CLASSIFIER_POOLINGS, CLS, MAX, MEAN, ONE_HEAD, POOLINGS, RAW_CLS, TWO_HEADS
from ofrecord_util.errors import UserError

__all__ = ["BERT", "CLS", "LARGEST", "MAX", "MEAN", "POOLINGS", "BertConfig"]

BERT, PALM = "bert", "palm"
MODEL_TYPES = (BERT, "xlm-roberta", "roberta")  # the other two have no token types and another tokenizer; the layers are the same

# Far above any model. A larger size is a fault of its file, and it would take all memory before something else shows the fault.
LARGEST = {
    "vocab_size": 4_000_000,
    "hidden_size": 32_768,
    "num_hidden_layers": 512,
    "num_attention_heads": 4096,
    "intermediate_size": 262_144,
    "max_position_embeddings": 65_536,
    "type_vocab_size": 1024,
    "dec_hidden_layers": 512,
    "encoder_final_layer_norms": 2,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and dropout rates of a BERT encoder, and how its hidden states are pooled for a classifier.

    Raises:
        UserError: a value has the wrong type or is out of range, or hidden_size is not a multiple of num_attention_heads.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    # Keys of this project, not Google's
    pooling: str = CLS  # cls is BERT's tanh(W h[CLS] + b)
    model_type: str = BERT
    pooler_input_dropout_prob: float = 0.0  # of h[CLS] before the pooler, as in RoBERTa's classifier
    variant: Variant = BERT_FORM
    model_types: ClassVar[tuple] = MODEL_TYPES  # the values of model_type that this class describes

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, "int") and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UserError(f"{field.name} must be a whole number of 1 or more, not {value!r:.80}")
            if field.type in (float, "float") and (
                isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf
            ):
                raise UserError(f"{field.name} must be a number of 0 or more, not {value!r:.80}")
            if field.type in (int, "int") and value > LARGEST[field.name]:
                raise UserError(f"{field.name} is {value}, at most {LARGEST[field.name]} are supported")
            if field.name.endswith("dropout_prob") and not 0 <= value < 1:
                raise UserError(f"{field.name} must lie in [0, 1), not {value!r:.80}")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads} (--num_attention_heads, --hidden_size_per_head)"
            )
        if self.hidden_act != "gelu":
            raise UserError(f"hidden_act {self.hidden_act!r:.80} is not supported, only gelu (the exact form with erf)")
        if self.pooling not in CLASSIFIER_POOLINGS:
            raise UserError(f"pooling {self.pooling!r:.80} is none of {', '.join(CLASSIFIER_POOLINGS)}")
        if self.model_type not in self.model_types:
            palm = "; a PALM is an encoder-decoder, for recipes/generation.py and tools/generate.py alone"
            advice = palm if self.model_type == PALM else ""
            raise UserError(f"model_type {self.model_type!r:.80} is none of {', '.join(self.model_types)}{advice}")
        self.variant.check_layers(self.num_hidden_layers)
        if self.variant.positions == LEARNED_WITH_BIAS and self.type_vocab_size != 1:
            raise UserError(f"variant: positions {LEARNED_WITH_BIAS}: type_vocab_size must be 1, not {self.type_vocab_size}")
        if self.variant != BERT_FORM and self.model_type != BERT:
            raise UserError(f"variant ({self.variant}): a model of type {self.model_type} has none")

    @property
    def takes_pairs(self):
        """Whether a record may hold two texts: a BERT needs a token type for the second one."""
        return self.model_type != BERT or self.type_vocab_size > 1 or self.variant.positions == LEARNED_WITH_BIAS

    def check_pairs(self, at):
        """Raises a UserError if the table of token types has no row for the second text of a pair. Only a BERT needs one.

        Args:
            at: what names the model, for the message.
        """
        if not self.takes_pairs:
            raise UserError(
                f"{at}: the model has {self.type_vocab_size} token type (type_vocab_size), but the task has pairs of texts, which need 2: "
                "take another model, or a task of single texts"
            )

    @property
    def head_size(self):
        """D: hidden_size / num_attention_heads."""
        return self.hidden_size // self.num_attention_heads

    @property
    def pooling_heads(self):
        """The number of attention heads that pool the last layer (modeling/bert/pooling.py); 0 for other poolings."""
        return {ONE_HEAD: 1, TWO_HEADS: 2}.get(self.pooling, 0)

    @property
    def pooled_size(self):
        """Width of the vector that a classifier reads."""
        return self.hidden_size * max(1, self.pooling_heads)

    @property
    def ends_at_cls(self):
        """Whether a classifier needs the last layer at [CLS] alone, in a form of layers for which the encoder can compute it alone."""
        return self.pooling in (CLS, RAW_CLS) and self.variant.layer_norms == AFTER and not self.variant.relative_distances

    def of_layers(self, layers):
        """The config of an encoder with only these layers (from 0), in this order."""
        return dataclasses.replace(self, num_hidden_layers=len(layers), variant=self.variant.of_layers(layers))

    @property
    def description(self):
        """Kind and number of layers, for the log."""
        form = f" ({self.variant})" if self.variant != BERT_FORM else ""
        return f"BERT of {self.num_hidden_layers} layers x {self.hidden_size}{form}"

    @property
    def dense_weights(self):
        """Number of weights in the GEMMs of all encoder layers. Each takes one multiplication and one addition per token."""
        width = self.hidden_size
        return self.num_hidden_layers * (4 * width * width + 2 * width * self.intermediate_size)

    def as_dict(self):
        """The values of bert_config.json; `variant` only if it is not BERT's."""
        values = dict(dataclasses.asdict(self), variant=self.variant.differences)
        return {name: value for name, value in values.items() if name != "variant" or value}

    def to_json(self):
        """The text of bert_config.json."""
        return json.dumps(self.as_dict(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, values, source="bert_config.json"):
        """A config from a parsed bert_config.json. Other keys are ignored.

        Args:
            values: dict of key -> value.
            source: path of the file, for messages.

        Raises:
            UserError: a size is missing or is not a number.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        missing = [name for name in required if name not in values]
        if missing:
            raise UserError("{} lacks {}".format(source, ", ".join(missing)))
        try:
            variant = Variant.from_dict(values.get("variant", {}))
            return cls(**dict({name: value for name, value in values.items() if name in known}, variant=variant))
        except TypeError as error:
            raise UserError(f"{source}: a value has the wrong type ({error})") from error
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
