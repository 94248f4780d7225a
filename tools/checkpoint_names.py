"""A table of the names of each variable in all formats.

The names of Hugging Face have no prefix `bert.` here. Checkpoints with a head put this prefix before the names of the encoder.
"""

import collections

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

_PREFIX = "bert."
_OLD_LAYER_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def _pair(hugging_face, snapshot, mead, transposed=False):
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


_EMBEDDINGS = [
    _pair("embeddings.word_embeddings.weight", "bert-embeddings-word_embeddings", "TLM/Embeddings/x/weights"),
    _pair("embeddings.token_type_embeddings.weight", "bert-embeddings-token_type_embeddings", "TLM/Embeddings/tt/weights"),
    _pair("embeddings.position_embeddings.weight", "bert-embeddings-position_embeddings", "TLM/Embeddings/x/pos_weights"),
    *_layer_norm("embeddings.LayerNorm", "bert-embeddings-LayerNorm", "TLM/Embeddings/reduction/ln"),
]


def _layer(i):
    theirs, ours, mead = f"encoder.layer.{i}.", f"bert-encoder-layer_{i}-", f"{MEAD_LAYERS}{i}/"
    return (
        _dense(theirs + "attention.self.query", ours + "attention-self-query", mead + "attn/w_Q")
        + _dense(theirs + "attention.self.key", ours + "attention-self-key", mead + "attn/w_K")
        + _dense(theirs + "attention.self.value", ours + "attention-self-value", mead + "attn/w_V")
        + _dense(theirs + "attention.output.dense", ours + "attention-output-dense", mead + "attn/w_O")
        # MEAD numbers its norms in the order of a layer that normalises first. In BERT the order is ln2, ln1.
        + _layer_norm(theirs + "attention.output.LayerNorm", ours + "attention-output-LayerNorm", mead + "ln2")
        + _dense(theirs + "intermediate.dense", ours + "intermediate-dense", mead + "ffn/expansion")
        + _dense(theirs + "output.dense", ours + "output-dense", mead + "ffn/squeeze")
        + _layer_norm(theirs + "output.LayerNorm", ours + "output-LayerNorm", mead + "ln1")
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

# Masked language modelling. MEAD's head is the word embeddings alone, without these.
TOKEN_HEAD = (
    *_dense("cls.predictions.transform.dense", "cls-predictions-transform-dense"),
    *_layer_norm("cls.predictions.transform.LayerNorm", "cls-predictions-transform-LayerNorm"),
    _pair("cls.predictions.bias", "cls-predictions-output_bias", None),
)


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


def encoder_pairs(num_hidden_layers):
    """Returns the pairs of the embeddings and the encoder layers, without those of the pooler and the heads."""
    pairs = list(_EMBEDDINGS)
    for i in range(num_hidden_layers):
        pairs += _layer(i)
    return pairs


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
