"""A table of the names of each variable in all formats.

The names of Hugging Face have no prefix `bert.` here. Checkpoints with a head put this prefix before the names of the encoder.
"""

import collections

from modeling.bert.variant import BEFORE, BERT_FORM, PLAIN

Pair = collections.namedtuple("Pair", ("hugging_face", "snapshot", "transposed", "mead", "google"))
Pair.__doc__ = """The names of one variable. A name is None if the format does not have the variable.

`transposed`: torch.nn.Linear stores [out, in], as Hugging Face and MEAD's NPZ do; dense weights of a snapshot and of
Google's checkpoints are [in, out].
"""

# Some releases of transformers write these buffers, which are computed and not learned.
BUFFERS = frozenset(("embeddings.position_ids", "embeddings.token_type_ids"))

# A head that the project does not use: next sentence. The head of masked language modelling is TOKEN_HEAD.
HEADS_LEFT_BEHIND = ("cls.",)

# A copy of the word embeddings and of the bias, which transformers ties to them
DECODER_WEIGHT, DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"

MEAD_LAYERS = "TLM/TransformerEncoderStack/"
RELATIVE_KEY, RELATIVE_VALUE = "attn/rpr_key", "attn/rpr_value"  # of one layer

_PREFIX = "bert."
_OLD_LAYER_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def _pair(hugging_face, snapshot, mead=None, transposed=False):
    # Google's names differ from a snapshot's in their separators. Its classifier has no scope.
    google = snapshot.replace("classification-", "").replace("-weight", "-kernel").replace("-", "/")
    return Pair(hugging_face, snapshot, transposed, mead, google)


def _dense(hugging_face, snapshot, mead=None):
    return [
        _pair(hugging_face + ".weight", snapshot + "-weight", mead and mead + "/weights", True),
        _pair(hugging_face + ".bias", snapshot + "-bias", mead and mead + "/bias"),
    ]


def _layer_norm(hugging_face, snapshot, mead=None):
    return [
        _pair(hugging_face + ".weight", snapshot + "-gamma", mead and mead + "/weights"),
        _pair(hugging_face + ".bias", snapshot + "-beta", mead and mead + "/bias"),
    ]


_EMBEDDINGS = (
    _pair("embeddings.word_embeddings.weight", "bert-embeddings-word_embeddings", "TLM/Embeddings/x/weights"),
    _pair("embeddings.token_type_embeddings.weight", "bert-embeddings-token_type_embeddings", "TLM/Embeddings/tt/weights"),
)
_POSITIONS = (_pair("embeddings.position_embeddings.weight", "bert-embeddings-position_embeddings", "TLM/Embeddings/x/pos_weights"),)
_EMBEDDINGS_NORM = tuple(_layer_norm("embeddings.LayerNorm", "bert-embeddings-LayerNorm", "TLM/Embeddings/reduction/ln"))
# Of norms before the layers; transformers' BERT has none
_FINAL_NORM = tuple(
    _pair(None, f"bert-encoder-LayerNorm-{ours}", f"{MEAD_LAYERS}ln/{mead}") for ours, mead in (("gamma", "weights"), ("beta", "bias"))
)


def _layer(i, variant):
    # MEAD numbers its norms in the order of a layer that normalises first. In BERT the order is ln2, ln1.
    attention_norm, output_norm = ("ln1", "ln2") if variant.layer_norms == BEFORE else ("ln2", "ln1")
    theirs, ours, mead = f"encoder.layer.{i}.", f"bert-encoder-layer_{i}-", f"{MEAD_LAYERS}{i}/"
    return (
        _dense(theirs + "attention.self.query", ours + "attention-self-query", mead + "attn/w_Q")
        + _dense(theirs + "attention.self.key", ours + "attention-self-key", mead + "attn/w_K")
        + _dense(theirs + "attention.self.value", ours + "attention-self-value", mead + "attn/w_V")
        + _dense(theirs + "attention.output.dense", ours + "attention-output-dense", mead + "attn/w_O")
        + _layer_norm(theirs + "attention.output.LayerNorm", ours + "attention-output-LayerNorm", mead + attention_norm)
        + _dense(theirs + "intermediate.dense", ours + "intermediate-dense", mead + "ffn/expansion")
        + _dense(theirs + "output.dense", ours + "output-dense", mead + "ffn/squeeze")
        + _layer_norm(theirs + "output.LayerNorm", ours + "output-LayerNorm", mead + output_norm)
        + [_pair(None, ours + "attention-self-relative_keys", mead + RELATIVE_KEY)] * bool(variant.relative_distances)
        + [_pair(None, ours + "attention-self-relative_values", mead + RELATIVE_VALUE)] * variant.relative_values
    )


POOLER = tuple(_dense("pooler.dense", "bert-pooler-dense"))

# All formats keep the classifier as [labels, H].
CLASSIFIER = (
    _pair("classifier.weight", "classification-output_weights", None),
    _pair("classifier.bias", "classification-output_bias", None),
)

# A dense layer on each token. transformers calls that of tags `classifier` too, and the class of the model tells them apart
TAG_CLASSIFIER = "token_classifier."  # in place of `classifier.` in this table
TAGS = (
    _pair(TAG_CLASSIFIER + "weight", "token_classification-output_weights", None),
    _pair(TAG_CLASSIFIER + "bias", "token_classification-output_bias", None),
)
SPANS = (
    _pair("qa_outputs.weight", "span_answering-output_weights", None),
    _pair("qa_outputs.bias", "span_answering-output_bias", None),
)

# Masked language modelling. MEAD's head is the word embeddings alone, without these; its bias is optional.
TOKEN_HEAD = (
    *_dense("cls.predictions.transform.dense", "cls-predictions-transform-dense"),
    *_layer_norm("cls.predictions.transform.LayerNorm", "cls-predictions-transform-LayerNorm"),
    _pair("cls.predictions.bias", "cls-predictions-output_bias", None),
)
PLAIN_TOKEN_HEAD = (_pair(None, "cls-predictions-output_bias", "output/bias"),)


def whole_token_head(names, form):
    """The names of TOKEN_HEAD in `form` if all of them are among `names`, else an empty tuple: a part of the head is of no use."""
    head = tuple(getattr(pair, form) for pair in TOKEN_HEAD)
    return head if set(head) <= set(names) else ()


# Heads, and how the name of the class of transformers that has one ends; a model of transformers has one, the first of these
HEADS = (
    (CLASSIFIER, "ForSequenceClassification"),
    (TAGS, "ForTokenClassification"),
    (SPANS, "ForQuestionAnswering"),
    (TOKEN_HEAD, "ForMaskedLM"),
)


def head_of(variables):
    """The pairs of the head that transformers gets of a model, and the end of its class; ((), "Model") without a head."""
    return next(((pairs, kind) for pairs, kind in HEADS if pairs[0].snapshot in variables), ((), "Model"))


def encoder_pairs(num_hidden_layers, variant=BERT_FORM):
    """Returns the pairs of the embeddings and the encoder layers, without those of the pooler and the heads.

    Args:
        num_hidden_layers: L.
        variant: `Variant` of the encoder.
    """
    pairs = [*_EMBEDDINGS, *_POSITIONS * variant.has_position_table, *_EMBEDDINGS_NORM * variant.embeddings_norm]
    for i in range(num_hidden_layers):
        pairs += _layer(i, variant)
    return [*pairs, *_FINAL_NORM * (variant.layer_norms == BEFORE)]


def head_pairs(variant=BERT_FORM):
    """Returns a list of the pairs of each head."""
    heads = [pairs for pairs, _ in HEADS if pairs != TOKEN_HEAD]
    return [*heads, PLAIN_TOKEN_HEAD if variant.token_head == PLAIN else TOKEN_HEAD]


def canonical_name(name):
    """Returns a Hugging Face name as in the table: without `bert.`, and with the new names of LayerNorm's gamma and beta."""
    if name.startswith(_PREFIX):
        name = name[len(_PREFIX) :]
    for old, new in _OLD_LAYER_NORM.items():
        if name.endswith(old):
            name = name[: -len(old)] + new
    return name


def is_transposed(pair, form):
    """Whether the format `form` (a field of `Pair`) stores the transpose of this variable."""
    return pair.transposed and form in ("hugging_face", "mead")
