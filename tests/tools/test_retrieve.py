"""tools/retrieve.py: translations are found as Tatoeba finds them, with the numbers of NumPy and of transformers."""

import json
import re
import sys

import numpy as np
import pytest
import tiny
import xlmr

from modeling import embedder as embedding
from modeling.cli.errors import run
from modeling.embedder import Embedder, nearest_both_ways
from tools.convert_checkpoint import convert
from tools.retrieve import main, retrieve

with open(f"{tiny.ROOT}/tests/golden/retrieval.json", encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
SOURCE, TARGET = GOLDEN["source"], GOLDEN["target"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The model of the golden numbers."""
    folder = tmp_path_factory.mktemp("retrieve")
    rows = {name: GOLDEN["sizes"][f"{size}_size" if size == "vocab" else size] for name, size in _TABLES.items()}
    shapes = {name: (count, GOLDEN["sizes"]["hidden_size"]) for name, count in rows.items()}
    sizes = {key: GOLDEN["sizes"][key] for key in ("vocab_size", "max_position_embeddings")}
    source = xlmr.write_folder(folder / "hf", xlmr.formula_tensors("encoder", **shapes), "encoder", xlmr.GOLDEN["tokenizer"], **sizes)
    convert(source, str(folder / "encoder"), log=lambda line: None)
    return str(folder / "encoder")


_TABLES = {"embeddings.word_embeddings.weight": "vocab", "embeddings.position_embeddings.weight": "max_position_embeddings"}


def nearest(one, other):
    """For each row of `one` the first row of `other` with the greatest cosine similarity, from the whole matrix."""
    one, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (one, other))
    return np.argmax(one @ other.T, axis=1)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_vectors_and_nearest_texts_of_a_layer(encoder, layer):
    """Mean of a layer's states over all tokens, <s> and </s> included, as transformers has them in `hidden_states[layer]`."""
    embedder = Embedder(encoder, layer, device="cpu", batch_size=2)
    found = np.concatenate(list(embedder(SOURCE + TARGET)))
    expected = np.array(GOLDEN["vectors"][layer - 1])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    source, target = np.split(expected, [len(SOURCE)])
    forward, backward = retrieve(embedder, SOURCE, TARGET)
    assert forward.tolist() == nearest(source, target).tolist()
    assert backward.tolist() == nearest(target, source).tolist()


def test_the_tokens_are_those_of_the_golden_numbers(encoder):
    encoded = Embedder(encoder, device="cpu").preprocess(SOURCE + TARGET)
    ids = [row[:count].tolist() for row, count in zip(encoded.input_ids, encoded.input_mask.sum(axis=1))]
    assert ids == GOLDEN["ids"]


@pytest.mark.parametrize("portions", [[31], [7, 24], [1, 1, 29]])
def test_portions_do_not_change_the_nearest_vectors(monkeypatch, portions):
    monkeypatch.setattr(embedding, "_QUERIES_AT_ONCE", 4)
    monkeypatch.setattr(embedding, "_VECTORS_AT_ONCE", 5)
    draw = np.random.RandomState(3)
    source = draw.standard_normal((23, 6)).astype(np.float32)
    target = draw.standard_normal((31, 6)).astype(np.float32)
    source[19], target[30], target[8] = source[2], target[4], 3 * source[2]  # equal vectors: the first is the nearer one
    forward, backward = nearest_both_ways(source, np.split(target, np.cumsum(portions)[:-1]))
    assert forward.tolist() == nearest(source, target).tolist()
    assert backward.tolist() == nearest(target, source).tolist()
    assert (forward[2], forward[19], backward[8]) == (8, 8, 2)
    assert set(forward.tolist()) - {8}, "all vectors have one neighbour"


def test_no_matrix_of_all_similarities(monkeypatch):
    """The largest product has as many numbers as the two limits allow, whatever the number of vectors."""
    largest, product = [0], np.ndarray.__matmul__

    class Counting(np.ndarray):
        def __matmul__(self, other):
            found = product(self, other)
            largest[0] = max(largest[0], found.size)
            return found

    monkeypatch.setattr(embedding, "_QUERIES_AT_ONCE", 4)
    monkeypatch.setattr(embedding, "_VECTORS_AT_ONCE", 5)
    vectors = np.random.RandomState(3).standard_normal((53, 3)).astype(np.float32).view(Counting)
    forward, backward = nearest_both_ways(vectors, np.split(vectors, range(5, 53, 5)))
    assert forward.tolist() == backward.tolist() == list(range(53))
    assert largest[0] == 20


def call(monkeypatch, capsys, *arguments):
    """Runs the tool in this process. Returns (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["retrieve.py", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as end:
        run(main)
    told = capsys.readouterr()
    tiny.check_advice(told.err)
    return end.value.code or 0, told.out, told.err


def test_the_tool(tmp_path, encoder, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("\n".join(SOURCE) + "\n\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,label\n" + "".join(f'"{text}",7\n' for text in TARGET), encoding="utf-8")
    paths = str(tmp_path / "a.txt"), str(tmp_path / "b.csv")
    flags = "--model_load_dir", encoder, "--source", paths[0], "--target", paths[1], "--layer", "2"
    source, target = np.split(np.array(GOLDEN["vectors"][1]), [len(SOURCE)])
    right = [int((nearest(*pair) == np.arange(len(SOURCE))).sum()) for pair in ((source, target), (target, source))]
    assert len(set(right)) == 2  # so that the directions cannot be confused
    code, output, errors = call(monkeypatch, capsys, *flags)
    assert code == 0, errors
    assert output.splitlines() == [
        f"{one} to {other}: accuracy {number / 5:.4f} ({number} of 5)" for (one, other), number in zip((paths, paths[::-1]), right)
    ]
    code, output, _ = call(monkeypatch, capsys, *flags, "--format", "json")
    found = json.loads(output)
    assert [found[way] for way in ("forward", "backward")] == [{"correct": number, "accuracy": number / 5} for number in right]
    assert (found["texts"], found["layer"], found["reduction"], found["source"], found["target"]) == (5, 2, "mean", *paths)


def test_a_text_finds_itself(tmp_path, encoder, monkeypatch, capsys):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(SOURCE + TARGET) + "\n", encoding="utf-8")
    _, output, _ = call(monkeypatch, capsys, "--model_load_dir", encoder, "--source", str(path), "--target", str(path), "--format", "json")
    found = json.loads(output)
    assert found["forward"]["accuracy"] == found["backward"]["accuracy"] == 1
    assert found["layer"] == 3


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        (("one\ntwo\n", "one\n"), "", "--source .*a.txt has 2 texts, --target .*b.txt has 1: text N of one must be the translation"),
        (("one\n", "\n"), "", "b.txt: there is no text in it"),
        ((None, "one\n"), "", "--source .*a.txt: cannot be read"),
        (("one\n", None), "", "--target .*b.txt: cannot be read"),
        (("one\n", "one\n"), "--layer 4", "--layer 4: .* has 3 encoder layers: give 1 to 3"),
    ],
)
def test_bad_input_in_one_line(tmp_path, encoder, monkeypatch, capsys, files, flags, message):
    for name, text in zip(("a.txt", "b.txt"), files):
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
    names = "--source", str(tmp_path / "a.txt"), "--target", str(tmp_path / "b.txt")
    code, output, errors = call(monkeypatch, capsys, "--model_load_dir", encoder, *names, *flags.split())
    assert (code, output) == (2, "")
    (line,) = errors.splitlines()
    assert re.search(message, line)


def test_a_snapshot_for_pairs_is_refused(tmp_path, monkeypatch, capsys):
    path = tiny.write_classifier(str(tmp_path / "pairs"), pair=True)
    (tmp_path / "a.txt").write_text("cats\n", encoding="utf-8")
    files = "--source", str(tmp_path / "a.txt"), "--target", str(tmp_path / "a.txt")
    code, _, errors = call(monkeypatch, capsys, "--model_load_dir", path, *files)
    assert code == 2
    assert "was trained for pairs of texts: give a snapshot for single texts" in errors
