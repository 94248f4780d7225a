"""NPZ files of MEAD: the states of the snapshot that a file becomes, against the formulas in NumPy, which read the file itself."""

import math

import numpy as np

from modeling.bert.encoder import build_bert
from modeling.bert.variables import Variables, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import select_kernels
from tools.convert_checkpoint import convert

HIDDEN, INNER, HEADS, LAYERS, VOCAB, POSITIONS = 6, 10, 2, 2, 13, 7
STACK, EMBEDDINGS = "TLM/TransformerEncoderStack/", "TLM/Embeddings/"
IDS = np.array([2, 7, 5, 12, 3])
TYPES = np.array([0, 0, 1, 1, 1])
ERF = np.vectorize(math.erf)


def mead_file():
    """Arrays of a post-norm stack. All values are random, so that no two norms of a layer are alike."""
    draw = np.random.RandomState(21)

    def dense(name, outputs, inputs):
        return {f"{name}/weights": draw.randn(outputs, inputs), f"{name}/bias": draw.randn(outputs)}

    def norm(name):
        return {f"{name}/weights": 1 + 0.5 * draw.randn(HIDDEN), f"{name}/bias": draw.randn(HIDDEN)}

    arrays = {EMBEDDINGS + "x/weights": draw.randn(VOCAB, HIDDEN), EMBEDDINGS + "x/pos_weights": draw.randn(POSITIONS, HIDDEN)}
    arrays.update({EMBEDDINGS + "tt/weights": draw.randn(2, HIDDEN), **norm(EMBEDDINGS + "reduction/ln")})
    for layer in range(LAYERS):
        prefix = f"{STACK}{layer}/"
        for part in ("w_Q", "w_K", "w_V", "w_O"):
            arrays.update(dense(f"{prefix}attn/{part}", HIDDEN, HIDDEN))
        arrays.update({**dense(prefix + "ffn/expansion", INNER, HIDDEN), **dense(prefix + "ffn/squeeze", HIDDEN, INNER)})
        arrays.update({**norm(prefix + "ln1"), **norm(prefix + "ln2")})
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def layer_norm(arrays, name, x):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12) * arrays[name + "/weights"] + arrays[name + "/bias"]


def linear(arrays, name, x):
    return x @ arrays[name + "/weights"].T + arrays[name + "/bias"]


def attention(arrays, prefix, x):
    size, outputs = HIDDEN // HEADS, []
    query, key, value = (linear(arrays, prefix + part, x) for part in ("w_Q", "w_K", "w_V"))
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
        outputs.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, part])
    return linear(arrays, prefix + "w_O", np.concatenate(outputs, axis=1))


def feed_forward(arrays, prefix, x):
    inner = linear(arrays, prefix + "expansion", x)
    return linear(arrays, prefix + "squeeze", inner * 0.5 * (1 + ERF(inner / math.sqrt(2))))


def stack(arrays, x, after_attention="ln2", after_ffn="ln1"):
    """x = LN2(x + attention(x)); x = LN1(x + ffn(x)): in BERT's words, ln2 is the norm of the attention and ln1 that of the output."""
    for layer in range(LAYERS):
        prefix = f"{STACK}{layer}/"
        x = layer_norm(arrays, prefix + after_attention, x + attention(arrays, prefix + "attn/", x))
        x = layer_norm(arrays, prefix + after_ffn, x + feed_forward(arrays, prefix + "ffn/", x))
    return x


def embedded(arrays, added):
    """LN(E[x] + P[p] + what is added)."""
    places = arrays[EMBEDDINGS + "x/pos_weights"][: len(IDS)]
    return layer_norm(arrays, EMBEDDINGS + "reduction/ln", arrays[EMBEDDINGS + "x/weights"][IDS] + places + added)


def states_of(tmp_path, arrays, types, **flags):
    """The states of the last layer, by the graph of the snapshot that the file becomes, [S, H]."""
    np.savez(str(tmp_path / "encoder.npz"), **arrays)
    vocab, folder = tmp_path / "vocab.txt", str(tmp_path / "-".join(["snapshot", *flags]))
    vocab.write_text("".join(token + "\n" for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    given = dict(flags, vocab_file=str(vocab), num_attention_heads=HEADS, log=lambda line: None)
    convert(str(tmp_path / "encoder.npz"), folder, **given)
    config, kernels = Snapshot(folder).config(), select_kernels("cpu")
    shapes = {name: shape for name, shape in encoder_shapes(config).items() if "pooler" not in name}
    values = {name: Snapshot(folder).read(name, shape) for name, shape in shapes.items()}

    def last(variables, word_rows, input_mask, segment_ids):
        return build_bert(variables, config, kernels, word_rows, input_mask, segment_ids, pools=False).hidden_states[-1]

    text = {"word_rows": IDS, "input_mask": IDS * 0 + 1, "segment_ids": types}
    batch = {name: array[None].astype(np.int32) for name, array in text.items()}
    return GlobalFunction(last, "predict", Variables(values))(batch).numpy()[0]


def exact(arrays):
    return {name: value.astype(np.float64) for name, value in arrays.items()}


def test_the_norms_of_a_layer_are_not_swapped(tmp_path):
    arrays = mead_file()
    found, whole = states_of(tmp_path, arrays, TYPES), exact(arrays)
    x = embedded(whole, whole[EMBEDDINGS + "tt/weights"][TYPES])
    np.testing.assert_allclose(found, stack(whole, x), rtol=0, atol=2e-5)
    assert np.abs(found - stack(whole, x, "ln1", "ln2")).max() > 0.5


def test_a_bias_of_positions_is_a_bert_of_one_segment(tmp_path):
    """MEAD's learned-positional-w-bias: E[x] + P[p] + b, which a file has as row 0 of the types; a BERT of segment 0 computes the same."""
    arrays = mead_file()
    bias = arrays[EMBEDDINGS + "tt/weights"][0].copy()
    arrays[EMBEDDINGS + "tt/weights"][1] = 0  # as MEAD writes it
    whole = exact(arrays)
    wanted = stack(whole, embedded(whole, bias.astype(np.float64)))
    biased = states_of(tmp_path, arrays, IDS * 0, positions="learned_with_bias")
    bert = states_of(tmp_path, arrays, IDS * 0)
    np.testing.assert_allclose(biased, wanted, rtol=0, atol=2e-5)
    np.testing.assert_allclose(bert, wanted, rtol=0, atol=2e-5)
    assert np.abs(wanted - stack(whole, embedded(whole, 0 * bias))).max() > 0.1
