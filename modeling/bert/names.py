"""Names of the model's variables, as snapshots store them and docs/formats.md lists them.

This is the only module under modeling/ that spells them out. A layer's variables begin with `layer_prefix(layer)`; dense layers end in
`-weight` and `-bias`, layer norms in `-gamma` and `-beta`.
"""

import re

ENCODER_PREFIX = "bert-"
EMBEDDINGS_PREFIX = "bert-embeddings-"
WORD_EMBEDDINGS = EMBEDDINGS_PREFIX + "word_embeddings"
TOKEN_TYPE_EMBEDDINGS = EMBEDDINGS_PREFIX + "token_type_embeddings"
POSITION_EMBEDDINGS = EMBEDDINGS_PREFIX + "position_embeddings"
EMBEDDINGS_NORM = EMBEDDINGS_PREFIX + "LayerNorm"
POOLER_PREFIX = "bert-pooler-"
POOLER = POOLER_PREFIX + "dense"
POOLING_HEAD = POOLER_PREFIX + "head_{}"  # formatted with 0 or 1: the attention head of `pooling` sha, the two of 2ha
POOLING_QUERY, POOLING_KEY = "-query", "-key"
POOLING_HEADS = tuple(
    f"{POOLING_HEAD.format(head)}{dense}-{part}" for head in (0, 1) for dense in (POOLING_QUERY, POOLING_KEY) for part in ("weight", "bias")
)

# Of one encoder layer, after `layer_prefix(layer)`
QUERY, KEY, VALUE = (f"attention-self-{part}" for part in ("query", "key", "value"))
RELATIVE_KEYS, RELATIVE_VALUES = "attention-self-relative_keys", "attention-self-relative_values"  # of modeling/bert/attention.py
ATTENTION_OUTPUT, ATTENTION_NORM = "attention-output-dense", "attention-output-LayerNorm"
INTERMEDIATE, OUTPUT, OUTPUT_NORM = "intermediate-dense", "output-dense", "output-LayerNorm"

CLASSIFIER = ("classification-output_weights", "classification-output_bias")
DOMAIN_HEAD = (  # E_dom, W_dom, b_dom
    "corrupted_domain_classification-domain_projection",
    "corrupted_domain_classification-domain_weights",
    "corrupted_domain_classification-domain_bias",
)

# The head of masked language modelling, with the names of OneFlow's pre-training of BERT. Its output weights are the word embeddings
TOKEN_DENSE, TOKEN_NORM = "cls-predictions-transform-dense", "cls-predictions-transform-LayerNorm"
TOKEN_BIAS = "cls-predictions-output_bias"
TOKEN_HEAD = (f"{TOKEN_DENSE}-weight", f"{TOKEN_DENSE}-bias", f"{TOKEN_NORM}-gamma", f"{TOKEN_NORM}-beta", TOKEN_BIAS)

# The head of sentence pairs, with the names of OneFlow's pre-training of BERT, whose head has other classes
SENTENCE_HEAD = ("cls-seq_relationship-output_weights", "cls-seq_relationship-output_bias")
# The head of replaced tokens, with the names of ELECTRA
REPLACED_DENSE, REPLACED_OUTPUT = "discriminator_predictions-dense", "discriminator_predictions-dense_prediction"
REPLACED_HEAD = tuple(f"{dense}-{part}" for dense in (REPLACED_DENSE, REPLACED_OUTPUT) for part in ("weight", "bias"))
PRETRAINING_HEADS = (*TOKEN_HEAD, *SENTENCE_HEAD, *REPLACED_HEAD)
# One dense layer on each token: its tag, or whether an answer starts or ends there
TAG_HEAD = ("token_classification-output_weights", "token_classification-output_bias")
SPAN_HEAD = ("span_answering-output_weights", "span_answering-output_bias")
# Of encoders with norms before the layers: the norm after the last one
ENCODER_NORM = ENCODER_PREFIX + "encoder-LayerNorm"
# PALM, an encoder-decoder (modeling/palm). Its encoder has the names of BERT's
DECODER_PREFIX = "palm-decoder-"
DECODER_NORM = DECODER_PREFIX + "LayerNorm"
# Of one decoder layer, after `decoder_prefix(layer)`, besides QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE and OUTPUT
SELF_NORM, CROSS_NORM, FEED_FORWARD_NORM = "attention-LayerNorm", "cross_attention-LayerNorm", "intermediate-LayerNorm"
CROSS_QUERY, CROSS_KEY, CROSS_VALUE = (f"cross_attention-{part}" for part in ("query", "key", "value"))
CROSS_OUTPUT = "cross_attention-output-dense"
PALM_SENTENCE_HEAD = ("cls-seq_relationship-weight", "cls-seq_relationship-bias")  # of PALM's pre-training; nothing here uses it

TRAINING_ONLY_PREFIX = "distillation-"  # variables of a loss, which no snapshot stores
HIDDEN_PROJECTION = TRAINING_ONLY_PREFIX + "hidden_projection_{}"  # formatted with the student's layer, from 0
REPRESENTATION_PROJECTION = TRAINING_ONLY_PREFIX + "representation_projection"
GENERATOR_PREFIX = TRAINING_ONLY_PREFIX + "generator-"  # before the documented name of each variable that a generator has for itself
GENERATOR_PROJECTION = GENERATOR_PREFIX + "embeddings_project"  # from the embeddings, which it shares, to its width
TEMPERATURE = TRAINING_ONLY_PREFIX + "temperature_bias"  # of a contrast of pairs, minus its start: it starts at 0 and does not decay

_LAYER = re.compile(r"bert-encoder-layer_(\d+)-")
_DECODER_LAYER = re.compile(r"palm-decoder-layer_\d+-")


def layer_prefix(layer):
    """How the names of encoder layer `layer` (from 0) begin."""
    return f"bert-encoder-layer_{layer}-"


def layer_of(name):
    """The encoder layer (from 0) of the variable `name`, or None if the variable belongs to no layer."""
    match = _LAYER.match(name)
    return int(match.group(1)) if match else None


def decoder_prefix(layer):
    """How the names of decoder layer `layer` (from 0) begin."""
    return f"{DECODER_PREFIX}layer_{layer}-"


def is_in_layer(name):
    """Whether the variable `name` belongs to a layer of an encoder or of a decoder."""
    return layer_of(name) is not None or _DECODER_LAYER.match(name) is not None


def cross_attention_names(prefix, kind):
    """Names of the key and value of a decoder layer's cross-attention, which one GEMM computes. Arguments as in `attention_names`."""
    return tuple(f"{prefix}{part}-{kind}" for part in (CROSS_KEY, CROSS_VALUE))


def attention_names(prefix, kind):
    """Names of a layer's query, key and value, which one GEMM computes.

    Args:
        prefix: of `layer_prefix`.
        kind: "weight" or "bias".
    """
    return tuple(f"{prefix}{part}-{kind}" for part in (QUERY, KEY, VALUE))
