"""tools/checkpoint_npz.py: MEAD's layout in and out; nothing is unpickled and nothing guessed."""

import os
import zipfile

import numpy as np
import pytest
from reference_encoder import encode_normalising_residuals

from modeling.bert.config import BertConfig
from modeling.bert.encoder import build_bert
from modeling.bert.variables import Variables
from modeling.bert.variant import Variant
from modeling.checkpoints.snapshot import Snapshot
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import select_kernels
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert

# odd sizes that no two axes share
H, F, VOCAB, POSITIONS, TYPES, LAYERS = 6, 10, 13, 7, 3, 2
STACK = "TLM/TransformerEncoderStack/"
ATTENTION = {"w_Q": "attention-self-query", "w_K": "attention-self-key", "w_V": "attention-self-value",
             "w_O": "attention-output-dense"}  # fmt: skip
FFN = {"expansion": "intermediate-dense", "squeeze": "output-dense"}
NORMS = {"ln1": "output-LayerNorm", "ln2": "attention-output-LayerNorm"}


def mead_shapes(hidden=H):
    """Names and shapes of the layout, written out on their own: the table is under test."""
    shapes = {
        "TLM/Embeddings/x/weights": (VOCAB, hidden),
        "TLM/Embeddings/x/pos_weights": (POSITIONS, hidden),
        "TLM/Embeddings/tt/weights": (TYPES, hidden),
        "TLM/Embeddings/reduction/ln/weights": (hidden,),
        "TLM/Embeddings/reduction/ln/bias": (hidden,),
    }
    for i in range(LAYERS):
        for part in ATTENTION:
            shapes[f"{STACK}{i}/attn/{part}/weights"], shapes[f"{STACK}{i}/attn/{part}/bias"] = (hidden, hidden), (hidden,)
        shapes.update({f"{STACK}{i}/ffn/expansion/weights": (F, hidden), f"{STACK}{i}/ffn/expansion/bias": (F,)})
        shapes.update({f"{STACK}{i}/ffn/squeeze/weights": (hidden, F), f"{STACK}{i}/ffn/squeeze/bias": (hidden,)})
        for part in NORMS:
            shapes.update({f"{STACK}{i}/{part}/weights": (hidden,), f"{STACK}{i}/{part}/bias": (hidden,)})
    return shapes


def mead_arrays(hidden=H):
    draw = np.random.RandomState(11)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in mead_shapes(hidden).items()}


@pytest.fixture
def vocab(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(t + "\n" for t in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *list("abcdefgh")]))
    return str(path)


def write_npz(tmp_path, arrays):
    path = str(tmp_path / "encoder.npz")
    np.savez(path, **arrays)
    return path


def load(folder):
    return {name: value.numpy() for name, value in flow.load(str(folder)).items()}


def refused(path, tmp_path, vocab, **flags):
    with pytest.raises(UserError) as caught:
        convert(str(path), str(tmp_path / "out"), vocab_file=vocab, log=lambda line: None,
                **dict({"num_attention_heads": 2}, **flags))  # fmt: skip
    assert not [name for name in os.listdir(str(tmp_path)) if "out" in name]
    return str(caught.value)


def test_every_array_lands_under_its_documented_name(tmp_path, vocab):
    arrays, log = mead_arrays(), []
    convert(write_npz(tmp_path, arrays), str(tmp_path / "out"), vocab_file=vocab, num_attention_heads=3, log=log.append)
    variables = load(tmp_path / "out")
    assert len(variables) == len(arrays)

    def equal(documented, stored):
        np.testing.assert_array_equal(variables[documented], stored, err_msg=documented)

    equal("bert-embeddings-word_embeddings", arrays["TLM/Embeddings/x/weights"])
    equal("bert-embeddings-position_embeddings", arrays["TLM/Embeddings/x/pos_weights"])
    equal("bert-embeddings-token_type_embeddings", arrays["TLM/Embeddings/tt/weights"])
    equal("bert-embeddings-LayerNorm-gamma", arrays["TLM/Embeddings/reduction/ln/weights"])
    equal("bert-embeddings-LayerNorm-beta", arrays["TLM/Embeddings/reduction/ln/bias"])
    for i in range(LAYERS):
        for group, parts in (("attn/", ATTENTION), ("ffn/", FFN)):
            for theirs, ours in parts.items():
                equal(f"bert-encoder-layer_{i}-{ours}-weight", arrays[f"{STACK}{i}/{group}{theirs}/weights"].T)
                equal(f"bert-encoder-layer_{i}-{ours}-bias", arrays[f"{STACK}{i}/{group}{theirs}/bias"])
        for theirs, ours in NORMS.items():
            equal(f"bert-encoder-layer_{i}-{ours}-gamma", arrays[f"{STACK}{i}/{theirs}/weights"])
            equal(f"bert-encoder-layer_{i}-{ours}-beta", arrays[f"{STACK}{i}/{theirs}/bias"])
    assert Snapshot(str(tmp_path / "out")).config() == BertConfig(
        vocab_size=VOCAB, hidden_size=H, num_hidden_layers=LAYERS, num_attention_heads=3, intermediate_size=F,
        max_position_embeddings=POSITIONS, type_vocab_size=TYPES,
    )  # fmt: skip
    assert any("no pooler" in line for line in log)
    assert any("no configuration: 3 heads" in line for line in log)


def test_there_and_back_is_bit_equal(tmp_path, vocab):
    arrays, log = mead_arrays(), []
    convert(write_npz(tmp_path, arrays), str(tmp_path / "snapshot"), vocab_file=vocab, num_attention_heads=2)
    convert(str(tmp_path / "snapshot"), str(tmp_path / "back.npz"), to="npz", log=log.append)
    with np.load(str(tmp_path / "back.npz"), allow_pickle=False) as file:
        back = {name: file[name] for name in file.files}
    assert {name: value.shape for name, value in back.items()} == mead_shapes()
    assert all(back[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert any("--vocab_file and --num_attention_heads 2" in line for line in log)
    assert sorted(os.listdir(str(tmp_path))) == ["back.npz", "encoder.npz", "snapshot", "vocab.txt"]


def same_arrays(path, arrays):
    with np.load(str(path), allow_pickle=False) as file:
        assert sorted(file.files) == sorted(arrays)
        assert all(file[name].tobytes() == np.ascontiguousarray(arrays[name]).tobytes() for name in arrays)


def test_the_head_of_language_modelling(tmp_path, vocab):
    """MEAD's is the word embeddings alone, with a bias or without; another `output` is left out or unknown."""
    arrays, log = mead_arrays(), []
    arrays["output/weights"] = arrays["TLM/Embeddings/x/weights"]
    convert(write_npz(tmp_path, arrays), str(tmp_path / "kept"), vocab_file=vocab, num_attention_heads=2)
    assert not load(tmp_path / "kept")["cls-predictions-output_bias"].any()
    arrays["output/bias"] = np.arange(VOCAB, dtype=np.float32)
    convert(write_npz(tmp_path, arrays), str(tmp_path / "biased"), vocab_file=vocab, num_attention_heads=2)
    np.testing.assert_array_equal(load(tmp_path / "biased")["cls-predictions-output_bias"], arrays["output/bias"])
    assert Snapshot(str(tmp_path / "biased")).config().variant == Variant(token_head="plain")
    convert(str(tmp_path / "biased"), str(tmp_path / "back.npz"), to="npz")
    same_arrays(tmp_path / "back.npz", arrays)
    arrays["output/weights"] = arrays["output/weights"] + 1
    convert(write_npz(tmp_path, arrays), str(tmp_path / "untied"), vocab_file=vocab, num_attention_heads=2, log=log.append)
    assert len(load(tmp_path / "untied")) == len(mead_arrays())
    assert any(line.startswith("left out: output/weights, output/bias: ") for line in log)
    arrays["output/weights"] = np.zeros((3, H), np.float32)
    assert "unknown output/weights" in refused(write_npz(tmp_path, without(arrays, "output/bias")), tmp_path, vocab)


def test_heads_of_64_unless_said(tmp_path, vocab):
    convert(write_npz(tmp_path, mead_arrays(128)), str(tmp_path / "wide"), vocab_file=vocab)
    assert Snapshot(str(tmp_path / "wide")).config().num_attention_heads == 2
    path = write_npz(tmp_path, mead_arrays())
    assert "set --num_attention_heads" in refused(path, tmp_path, vocab, num_attention_heads=None)
    assert "num_attention_heads 4" in refused(path, tmp_path, vocab, num_attention_heads=4)


def test_vocabulary_is_wanted(tmp_path, vocab):
    path = write_npz(tmp_path, mead_arrays())
    assert "set --vocab_file" in refused(path, tmp_path, None)
    with open(vocab, "a") as file:
        file.write("more\n")
    assert "14 tokens" in refused(path, tmp_path, vocab)
    assert "cannot be read" in refused(path, tmp_path, str(tmp_path / "nowhere"))


def test_missing_and_unknown_names_are_all_listed(tmp_path, vocab):
    arrays = mead_arrays()
    for name in (STACK + "1/ln1/bias", "TLM/Embeddings/reduction/ln/bias"):
        del arrays[name]
    arrays.update({STACK + "5/ln1/bias": np.zeros(H, np.float32), "TLM/pooler/weights": np.zeros((H, H), np.float32)})
    missing, unknown = refused(write_npz(tmp_path, arrays), tmp_path, vocab).split("; unknown ")
    assert STACK + "1/ln1/bias" in missing
    assert "TLM/Embeddings/reduction/ln/bias" in missing
    assert STACK + "5/ln1/bias" in unknown
    assert "TLM/pooler/weights" in unknown
    assert "missing TLM/Embeddings/x/weights" in refused(write_npz(tmp_path, {"x": np.zeros(3)}), tmp_path, vocab)


def test_names_that_lead_out_of_the_folder(tmp_path, vocab):
    arrays = dict(mead_arrays(), **{"../x": np.zeros(3, np.float32), "/tmp/y": np.zeros(3, np.float32)})
    unknown = refused(write_npz(tmp_path, arrays), tmp_path, vocab).split("unknown ")[1]
    assert "../x" in unknown
    assert "/tmp/y" in unknown


def first_norms(arrays):
    """The arrays of a stack that normalises first."""
    draw = np.random.RandomState(12)
    return dict(arrays, **{STACK + "ln/" + part: draw.randn(H).astype(np.float32) for part in ("weights", "bias")})


def without(arrays, *parts):
    return {name: value for name, value in arrays.items() if not any(part in name for part in parts)}


def relative(arrays, parts, distances=(2, 3)):
    draw = np.random.RandomState(13)
    tables = {
        f"{STACK}{i}/attn/{part}": draw.randn(2 * k + 1, H // 2).astype(np.float32) for i, k in enumerate(distances) for part in parts
    }
    return dict(arrays, **tables)


def biased(arrays):
    return dict(arrays, **{"TLM/Embeddings/tt/weights": np.stack([np.full(H, 0.3, np.float32), np.zeros(H, np.float32)])})


BEFORE, NO_NORM, SINES = {"layer_norms": "before"}, {"embeddings_norm": False}, {"positions": "sinusoidal"}
FORMS = {  # arrays, flags, variant
    "before": (first_norms(mead_arrays()), BEFORE, BEFORE),
    "before, bare": (first_norms(without(mead_arrays(), "reduction", "tt/")), BEFORE, {**BEFORE, **NO_NORM}),
    "after, bare": (without(mead_arrays(), "reduction"), {}, NO_NORM),
    "sinusoidal": (without(mead_arrays(), "pos_weights"), SINES, SINES),
    "with bias": (biased(mead_arrays()), {"positions": "learned_with_bias"}, {"positions": "learned_with_bias"}),
    "relative": (
        relative(first_norms(without(mead_arrays(), "pos_weights", "reduction", "tt/")), ["rpr_key"]),
        {**BEFORE, "windowed": True},
        {**BEFORE, **NO_NORM, "positions": "none", "relative_distances": (2, 3), "windowed": True},
    ),
    "relative values": (
        relative(mead_arrays(), ["rpr_key", "rpr_value"]), {}, {"relative_distances": (2, 3), "relative_values": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", sorted(FORMS))
def test_forms_there_and_back(tmp_path, vocab, form):
    """The snapshot has the form, and it converts back to the same bits."""
    arrays, flags, variant = FORMS[form]
    convert(write_npz(tmp_path, arrays), str(tmp_path / "snapshot"), vocab_file=vocab, num_attention_heads=2, **flags)
    log = []
    assert Snapshot(str(tmp_path / "snapshot")).config().variant == Variant(**variant)
    convert(str(tmp_path / "snapshot"), str(tmp_path / "back.npz"), to="npz", log=log.append)
    same_arrays(tmp_path / "back.npz", arrays)
    for flag, value in flags.items():
        assert ("--windowed" if flag == "windowed" else f"--{flag} {value}") in log[-1]


def test_norm_before_the_residual_is_the_norm_after_the_sum(tmp_path, vocab):
    """MEAD's default stack, against its own formula."""
    arrays, ids = first_norms(without(mead_arrays(), "reduction")), np.array([2, 7, 5, 12, 3], np.int32)
    folder = str(tmp_path / "snapshot")
    convert(write_npz(tmp_path, arrays), folder, vocab_file=vocab, num_attention_heads=2, layer_norms="before_residual")
    config, values = Snapshot(folder).config(), load(folder)
    assert config.variant == Variant()

    def states(variables, word_rows, input_mask):
        return build_bert(variables, config, select_kernels("cpu"), word_rows, input_mask, word_rows * 0, pools=False).hidden_states[-1]

    found = GlobalFunction(states, "predict", Variables(values))({"word_rows": ids[None], "input_mask": np.ones((1, 5), np.int32)}).numpy()
    for layer in range(LAYERS):
        for mead, ours in (("ln1", "first"), ("ln2", "second")):
            gamma, beta = (arrays[f"{STACK}{layer}/{mead}/{part}"] for part in ("weights", "bias"))
            values.update({f"{ours}_{layer}-gamma": gamma, f"{ours}_{layer}-beta": beta})
    values.update({"last-gamma": arrays[STACK + "ln/weights"], "last-beta": arrays[STACK + "ln/bias"]})
    wanted = encode_normalising_residuals({name: value.astype(np.float64) for name, value in values.items()}, config, ids, ids * 0)
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-5)


def test_what_a_file_does_not_say(tmp_path, vocab):
    path = write_npz(tmp_path, first_norms(mead_arrays()))
    assert "set --layer_norms before_residual (MEAD's default) or before" in refused(path, tmp_path, vocab)
    assert "--layer_norms after: " in refused(path, tmp_path, vocab, layer_norms="after")
    assert "two norms in a row" in refused(path, tmp_path, vocab, layer_norms="before_residual")
    assert "which are learned positions" in refused(path, tmp_path, vocab, layer_norms="before", positions="none")
    assert "has no relative positions" in refused(path, tmp_path, vocab, layer_norms="before", windowed=True)
    path = write_npz(tmp_path, without(mead_arrays(), "pos_weights"))
    assert "set --positions sinusoidal or none" in refused(path, tmp_path, vocab)
    assert "--positions learned: " in refused(path, tmp_path, vocab, positions="learned")
    assert "--layer_norms before: " in refused(path, tmp_path, vocab, layer_norms="before", positions="none")
    damaged = relative(mead_arrays(), ["rpr_key"])
    damaged[STACK + "1/attn/rpr_key"] = damaged[STACK + "1/attn/rpr_key"][1:]
    assert "must have an odd number of rows" in refused(write_npz(tmp_path, damaged), tmp_path, vocab)
    assert "0/attn/rpr_key is there" in refused(write_npz(tmp_path, without(damaged, "1/attn/rpr_key")), tmp_path, vocab)
    bucketed = dict(mead_arrays(), **{STACK + "0/attn/rel_embedding": np.zeros((2, 32), np.float32)})
    assert "unknown " + STACK + "0/attn/rel_embedding" in refused(write_npz(tmp_path, bucketed), tmp_path, vocab)


def test_another_form_of_a_bert(tmp_path, vocab):
    """A training can start from it; other formats have no such form."""
    bert, folder = write_npz(tmp_path, mead_arrays()), str(tmp_path / "bert")
    convert(bert, folder, vocab_file=vocab, num_attention_heads=2)
    log = []
    convert(folder, str(tmp_path / "other"), layer_norms="before", positions="sinusoidal", log=log.append)
    assert any("computes something else now: train it" in line for line in log)
    other, before = load(tmp_path / "other"), load(folder)
    assert set(before) - set(other) == {"bert-embeddings-position_embeddings"}
    assert (other["bert-encoder-LayerNorm-gamma"] == 1).all()
    assert not other["bert-encoder-LayerNorm-beta"].any()
    convert(folder, str(tmp_path / "biased"), positions="learned_with_bias")
    assert load(tmp_path / "biased")["bert-embeddings-token_type_embeddings"].shape == (1, H)
    assert "already" in refused(tmp_path / "other", tmp_path, None, positions="learned")
    assert "computes the same as after" in refused(folder, tmp_path, None, layer_norms="before_residual")
    assert "--windowed says how" in refused(folder, tmp_path, None, windowed=True)
    for to, end in (("hugging_face", ""), ("onnx", ".onnx")):
        with pytest.raises(UserError, match=f"--to {to}: this format does not have the form of the encoder .layer_norms"):
            convert(str(tmp_path / "other"), str(tmp_path / ("out" + end)), to=to, do_lower_case=True)


def test_wrong_shapes_types_and_values(tmp_path, vocab):
    arrays = mead_arrays()
    arrays[STACK + "0/ffn/squeeze/weights"] = np.zeros((F, H), np.float32)
    arrays[STACK + "1/attn/w_Q/bias"] = np.zeros(H, np.int32)
    message = refused(write_npz(tmp_path, arrays), tmp_path, vocab)
    assert STACK + "0/ffn/squeeze/weights has shape [10, 6]" in message
    assert STACK + "1/attn/w_Q/bias is of type int32" in message
    arrays = dict(mead_arrays(), **{"TLM/Embeddings/tt/weights": np.zeros(TYPES, np.float32)})
    assert "two axes" in refused(write_npz(tmp_path, arrays), tmp_path, vocab)
    arrays = dict(mead_arrays(), **{STACK + "0/ln2/bias": np.full(H, np.nan, np.float32)})
    assert STACK + "0/ln2/bias" in refused(write_npz(tmp_path, arrays), tmp_path, vocab)


class Trap:
    """Pickled, it would call a function on the way in."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_objects_are_not_unpickled(tmp_path, vocab):
    names = [STACK + "0/ln1/bias", STACK + "1/ln2/bias"]
    arrays = dict(mead_arrays(), **{name: np.array([Trap()], object) for name in names})
    message = refused(write_npz(tmp_path, arrays), tmp_path, vocab)
    assert ": " + ", ".join(names) in message
    assert "Python objects" in message
    assert "allow_pickle" not in message
    assert "\n" not in message


def test_damaged_files(tmp_path, vocab):
    whole = write_npz(tmp_path, mead_arrays())
    with open(whole, "rb") as file:
        data = file.read()
    for bad in (b"", b"PK", data[:200], data[:-30], b"\x93NUMPY" + b"\0" * 20):
        with open(whole, "wb") as file:
            file.write(bad)
        assert "not a complete NPZ file" in refused(whole, tmp_path, vocab)
    with open(whole, "wb") as file:
        np.save(file, np.zeros(3))
    assert "not a complete NPZ file" in refused(whole, tmp_path, vocab)
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not arrays: readme.txt" in refused(whole, tmp_path, vocab)


def test_output_is_one_file(tmp_path, vocab):
    path, out = write_npz(tmp_path, mead_arrays()), tmp_path / "new.npz"
    with pytest.raises(UserError, match=r"ends in \.npz"):
        convert(path, str(tmp_path / "new"), to="npz", num_attention_heads=2)
    convert(path, str(out), to="npz", num_attention_heads=2, layers=[1])  # no vocabulary needed on this way
    with pytest.raises(UserError, match="--overwrite replaces it"):
        convert(path, str(out), to="npz", num_attention_heads=2)
    convert(path, str(out), to="npz", num_attention_heads=2, overwrite=True)
    with np.load(str(out)) as file:
        assert len(file.files) == len(mead_shapes())
    with pytest.raises(UserError, match="would replace it"):
        convert(path, path, to="npz", num_attention_heads=2, overwrite=True)
    np.savez(str(tmp_path / "thesis.npz"), x=np.zeros(3))
    with pytest.raises(UserError, match="leaves it alone"):
        convert(path, str(tmp_path / "thesis.npz"), to="npz", num_attention_heads=2, overwrite=True)
