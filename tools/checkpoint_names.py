"""Which tensor of a Hugging Face BERT is which variable of a snapshot: one table, read in both directions.

Hugging Face names stand here without the `bert.` that checkpoints with a head put before the encoder's.
"""
import collections

Pair = collections.namedtuple("Pair", ("hugging_face", "snapshot", "transposed"))
Pair.__doc__ = """One tensor under its two names.

`transposed`: torch.nn.Linear stores [out, in], a snapshot's dense weights are [in, out].
"""

# Written by some releases of transformers, computed and not learnt.
BUFFERS = frozenset(("embeddings.position_ids", "embeddings.token_type_ids"))

# Heads that no phase here has: masked language model and next sentence (cls), question answering.
HEADS_LEFT_BEHIND = ("cls.", "qa_outputs.")

_PREFIX = "bert."
_OLD_LAYER_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def _dense(hugging_face, snapshot):
    return [
        Pair(hugging_face + ".weight", snapshot + "-weight", True),
        Pair(hugging_face + ".bias", snapshot + "-bias", False),
    ]


def _layer_norm(hugging_face, snapshot):
    return [
        Pair(hugging_face + ".weight", snapshot + "-gamma", False),
        Pair(hugging_face + ".bias", snapshot + "-beta", False),
    ]


_EMBEDDINGS = [
    Pair("embeddings.word_embeddings.weight", "bert-embeddings-word_embeddings", False),
    Pair("embeddings.token_type_embeddings.weight", "bert-embeddings-token_type_embeddings", False),
    Pair("embeddings.position_embeddings.weight", "bert-embeddings-position_embeddings", False),
] + _layer_norm("embeddings.LayerNorm", "bert-embeddings-LayerNorm")

# {i}: the encoder layer, from 0
_LAYER = (
    _dense("encoder.layer.{i}.attention.self.query", "bert-encoder-layer_{i}-attention-self-query")
    + _dense("encoder.layer.{i}.attention.self.key", "bert-encoder-layer_{i}-attention-self-key")
    + _dense("encoder.layer.{i}.attention.self.value", "bert-encoder-layer_{i}-attention-self-value")
    + _dense("encoder.layer.{i}.attention.output.dense", "bert-encoder-layer_{i}-attention-output-dense")
    + _layer_norm("encoder.layer.{i}.attention.output.LayerNorm", "bert-encoder-layer_{i}-attention-output-LayerNorm")
    + _dense("encoder.layer.{i}.intermediate.dense", "bert-encoder-layer_{i}-intermediate-dense")
    + _dense("encoder.layer.{i}.output.dense", "bert-encoder-layer_{i}-output-dense")
    + _layer_norm("encoder.layer.{i}.output.LayerNorm", "bert-encoder-layer_{i}-output-LayerNorm")
)

POOLER = tuple(_dense("pooler.dense", "bert-pooler-dense"))

# Both sides keep the classifier as [labels, H].
CLASSIFIER = (
    Pair("classifier.weight", "classification-output_weights", False),
    Pair("classifier.bias", "classification-output_bias", False),
)


def encoder_pairs(num_hidden_layers):
    """The pairs of the embeddings and the encoder layers; POOLER and CLASSIFIER may come beside them."""
    pairs = list(_EMBEDDINGS)
    for i in range(num_hidden_layers):
        pairs += [Pair(p.hugging_face.format(i=i), p.snapshot.format(i=i), p.transposed) for p in _LAYER]
    return pairs


def canonical_name(name):
    """A Hugging Face name as the table spells it: no `bert.` prefix, LayerNorm's old gamma and beta renamed."""
    if name.startswith(_PREFIX):
        name = name[len(_PREFIX):]
    for old, new in _OLD_LAYER_NORM.items():
        if name.endswith(old):
            name = name[: -len(old)] + new
    return name
