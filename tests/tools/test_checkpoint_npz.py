"""tools/checkpoint_npz.py: MEAD's layout in and out; nothing is unpickled and nothing guessed."""

import os
import zipfile

import numpy as np
import pytest

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import Snapshot
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


def test_the_head_of_language_modelling_stays_behind(tmp_path, vocab):
    """MEAD's is the word embeddings alone; another `output` is unknown."""
    arrays, log = mead_arrays(), []
    arrays["output/weights"] = arrays["TLM/Embeddings/x/weights"]
    convert(write_npz(tmp_path, arrays), str(tmp_path / "kept"), vocab_file=vocab, num_attention_heads=2, log=log.append)
    assert len(load(tmp_path / "kept")) == len(mead_arrays())
    assert any(line.startswith("left out: output/weights") for line in log)
    arrays["output/weights"] = np.zeros((3, H), np.float32)
    assert "unknown output/weights" in refused(write_npz(tmp_path, arrays), tmp_path, vocab)


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
    for name in (STACK + "1/ln1/bias", "TLM/Embeddings/x/pos_weights"):
        del arrays[name]
    arrays.update({STACK + "5/ln1/bias": np.zeros(H, np.float32), "TLM/pooler/weights": np.zeros((H, H), np.float32)})
    missing, unknown = refused(write_npz(tmp_path, arrays), tmp_path, vocab).split("; unknown ")
    assert STACK + "1/ln1/bias" in missing
    assert "TLM/Embeddings/x/pos_weights" in missing
    assert STACK + "5/ln1/bias" in unknown
    assert "TLM/pooler/weights" in unknown
    assert "missing TLM/Embeddings/x/weights" in refused(write_npz(tmp_path, {"x": np.zeros(3)}), tmp_path, vocab)


def test_names_that_lead_out_of_the_folder(tmp_path, vocab):
    arrays = dict(mead_arrays(), **{"../x": np.zeros(3, np.float32), "/tmp/y": np.zeros(3, np.float32)})
    unknown = refused(write_npz(tmp_path, arrays), tmp_path, vocab).split("unknown ")[1]
    assert "../x" in unknown
    assert "/tmp/y" in unknown


def test_stack_that_normalises_first_is_no_bert(tmp_path, vocab):
    arrays = dict(mead_arrays(), **{STACK + "ln/weights": np.ones(H, np.float32), STACK + "ln/bias": np.ones(H, np.float32)})
    message = refused(write_npz(tmp_path, arrays), tmp_path, vocab)
    assert "2 layers" in message
    assert "missing" not in message
    assert message.endswith(f": unknown {STACK}ln/bias, {STACK}ln/weights")


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
