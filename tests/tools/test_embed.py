"""tools/embed.py and modeling/embedder.py: vectors as the graph of a snapshot computes them, in order, whatever the batch; nearest texts
as NumPy finds them; bad input in one line."""

import dataclasses
import io
import itertools
import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling import text_model
from modeling.bert.encoder import build_bert
from modeling.bert.names import POOLER, POOLER_PREFIX
from modeling.bert.variables import Variables, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE, write_variables
from modeling.cli.errors import run
from modeling.embedder import REDUCTIONS, Embedder, Neighbours
from modeling.engine.global_function import global_function
from modeling.engine.kernels import select_kernels
from modeling.engine.runtime import flow
from modeling.objectives.metric import predict_vectors
from ofrecord_util.errors import UserError
from ofrecord_util.tokenization import Tokenizer
from tools.embed import NpyRows, embed, main

VALUES = {name: initial_value(name, shape, 3, 0.4) for name, shape in encoder_shapes(tiny.CONFIG).items()}
HEADS = ("sha", "2ha")  # reductions that need variables of a snapshot trained with them
WIDTH = tiny.CONFIG.hidden_size
TEXTS = [" ".join(itertools.islice(itertools.cycle(tiny.TOKENS[18:]), start, start + count)) for start, count in
         ((0, 1), (3, 60), (5, 4), (8, 33), (2, 12), (9, 1), (1, 31), (4, 7))] + ["", "Great FILM!"]  # fmt: skip


def write_encoder(folder, without=()):
    files = {CONFIG_FILE: tiny.CONFIG.to_json(), VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS)}
    variables = {name: value for name, value in VALUES.items() if not name.startswith(tuple(without))}
    write_variables(str(folder), variables, files)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("embed") / "encoder")


@pytest.fixture(scope="module")
def encoded(encoder):
    found = Tokenizer(os.path.join(encoder, VOCAB_FILE), True).encode(TEXTS, None, 40)
    return {"word_rows": found.input_ids, "input_mask": found.input_mask, "segment_ids": found.segment_ids}


@pytest.fixture(scope="module")
def states(encoded):
    """The outputs of both layers, [N, S, H] each, all texts in one batch, each in a row of its own."""
    variables, kernels = Variables(VALUES), select_kernels("cpu")

    @global_function(type="predict", variables=variables)
    def job(variables, **text):
        return flow.cat(list(build_bert(variables, tiny.CONFIG, kernels, **text).hidden_states[1:]), dim=2)

    found = job(encoded).numpy().astype(np.float64)
    return found[:, :, :WIDTH], found[:, :, WIDTH:]


def reduced(hidden, mask, reduction):
    """[N, H], from the definition of each reduction."""
    if reduction == "cls":
        return hidden[:, 0]
    if reduction == "pooler":
        return np.tanh(hidden[:, 0] @ VALUES[POOLER + "-weight"].astype(np.float64) + VALUES[POOLER + "-bias"])
    texts = [row[:count] for row, count in zip(hidden, mask.sum(axis=1))]
    if reduction == "sqrt_length":
        return np.stack([text.sum(axis=0) * np.sqrt(len(text)) for text in texts])
    return np.stack([text.mean(axis=0) if reduction == "mean" else text.max(axis=0) for text in texts])


def vectors_of(embedder, texts):
    return np.concatenate(list(embedder(texts)))


@pytest.mark.parametrize(
    ("layer", "reduction"), [*((None, name) for name in REDUCTIONS if name not in HEADS), (1, "mean"), (1, "cls"), (2, "max")]
)
def test_vectors_are_those_of_the_states(encoder, encoded, states, layer, reduction):
    found = vectors_of(Embedder(encoder, layer, reduction, device="cpu", batch_size=3), TEXTS)
    expected = reduced(states[(layer or 2) - 1], encoded["input_mask"], reduction)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), WIDTH))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05  # the texts do differ


@pytest.mark.parametrize("reduction", HEADS)
def test_heads_are_those_of_the_snapshot(encoder, reduction):
    with pytest.raises(UserError, match=f"--reduction {reduction}: .* has no bert-pooler-head_0-key-bias: give another reduction"):
        Embedder(encoder, None, reduction, device="cpu")


def test_vectors_are_those_of_metric_learning(tmp_path, encoder, encoded):
    """A trained snapshot gives the vectors on which its classifier was fitted, and its classifier is not needed."""
    path = tiny.write_classifier(str(tmp_path / "classifier"))
    config = dataclasses.replace(tiny.CONFIG, pooling="mean")
    variables, kernels = Variables(VALUES), select_kernels("cpu")  # the classifier has the same encoder

    @global_function(type="predict", variables=variables)
    def job(variables, **text):
        return predict_vectors(variables, config, kernels, **text)

    expected = job(encoded).numpy()
    embedder = Embedder(path, seq_length=40, device="cpu")
    np.testing.assert_allclose(vectors_of(embedder, TEXTS), expected, rtol=0, atol=1e-5)
    assert Embedder(path, device="cpu").seq_length == 37  # as in training
    assert Embedder(encoder, device="cpu").seq_length == 40


def test_a_snapshot_without_a_pooler(tmp_path, encoder):
    path = write_encoder(tmp_path / "encoder", without=(POOLER_PREFIX,))
    expected = vectors_of(Embedder(encoder, device="cpu"), TEXTS[:3])
    np.testing.assert_allclose(vectors_of(Embedder(path, device="cpu"), TEXTS[:3]), expected, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match=r"--reduction pooler: .* has no pooler"):
        Embedder(path, None, "pooler", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 3}, "--layer 3: .* has 2 encoder layers: give 1 to 2"),
        ({"layer": 1, "reduction": "pooler"}, "--reduction pooler: the pooler reads the last layer"),
        ({"seq_length": 41}, "--seq_length 41: the model has 40 positions"),
    ],
)
def test_refusals_of_the_embedder(encoder, arguments, message):
    with pytest.raises(UserError, match=message):
        Embedder(encoder, device="cpu", **arguments)


def test_vectors_that_are_not_finite(tmp_path):
    path = write_encoder(tmp_path / "encoder")
    np.full(WIDTH, 3e38, "<f4").tofile(os.path.join(path, "bert-encoder-layer_1-output-LayerNorm-gamma", "out"))
    with pytest.raises(UserError, match="the vectors of 1 of 1 texts are not finite"):
        list(Embedder(path, device="cpu")(["good film"]))


def test_one_text_is_no_list_of_texts(encoder):
    with pytest.raises(UserError, match="the embedder takes a list of texts, not one text"):
        list(Embedder(encoder, device="cpu")("a good film"))


# --- nearest texts


def nearest(vectors, queries, count):
    """(rows, similarities) of each query, [Q, k], from the definition."""
    cosines = queries @ vectors.T / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(vectors, axis=1))
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return rows, np.take_along_axis(cosines, rows, axis=1)


@pytest.mark.parametrize("portions", [(41,), (1, 2, 38), (13, 13, 15)])
def test_neighbours_in_portions(monkeypatch, portions):
    monkeypatch.setattr("modeling.embedder._QUERIES_AT_ONCE", 2)
    random = np.random.RandomState(5)
    vectors, queries = (random.randn(count, 7).astype(np.float32) for count in (41, 5))
    neighbours = Neighbours(queries, 6)
    for part in np.split(vectors, np.cumsum(portions)[:-1]):
        neighbours.add(part)
    rows, similarities = nearest(vectors.astype(np.float64), queries.astype(np.float64), 6)
    np.testing.assert_array_equal(neighbours.rows, rows)
    np.testing.assert_allclose(neighbours.similarities, similarities, rtol=0, atol=1e-6)


def test_equal_neighbours_and_few_of_them():
    neighbours = Neighbours(np.array([[2.0, 0.0]], np.float32), 9)
    for part in ([[0.0, 1.0], [3.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]):
        neighbours.add(np.array(part, np.float32))
    assert neighbours.rows.tolist() == [[1, 3, 0, 2]]
    assert neighbours.similarities.tolist() == [[1.0, 1.0, 0.0, 0.0]]


# --- the tool


def call(monkeypatch, capsys, *arguments, stdin=b""):
    """Runs the tool in this process. Returns (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["embed.py", "--device", "cpu", *arguments])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
    with pytest.raises(SystemExit) as end:
        run(main)
    told = capsys.readouterr()
    tiny.check_advice(told.err)
    return end.value.code or 0, told.out, told.err


def test_the_tool(tmp_path, encoder, encoded, states, monkeypatch, capsys):
    monkeypatch.setattr(text_model, "_BATCHES_AT_ONCE", 2)  # so that neighbours come from several portions
    expected = reduced(states[1], encoded["input_mask"], "mean")
    (tmp_path / "in.csv").write_text("text,label\n" + "".join(f'"{text}",0\n' for text in TEXTS), encoding="utf-8")
    (tmp_path / "queries.txt").write_text(f"{TEXTS[4]}\n\n{TEXTS[3]}\n", encoding="utf-8")
    files = [word for name, file in (("input", "in.csv"), ("output", "v.npy"), ("query", "queries.txt"))
             for word in (f"--{name}", str(tmp_path / file))]  # fmt: skip
    flags = "--model_load_dir", encoder, "--batch_size", "2", "--neighbours", "3"
    code, output, errors = call(monkeypatch, capsys, *flags, *files, "--format", "json")
    assert code == 0, errors
    assert f"{len(TEXTS)} vectors of {WIDTH} numbers" in errors
    found = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "queries.txt", "v.npy"]

    queries = [4, 8, 3]
    rows, similarities = nearest(expected, expected[queries], 3)
    objects = [json.loads(line) for line in output.splitlines()]
    assert [each["text"] for each in objects] == [TEXTS[row] for row in queries]
    for each, at, near in zip(objects, rows.tolist(), similarities):
        assert [one["row"] for one in each["neighbours"]] == at
        assert [one["text"] for one in each["neighbours"]] == [TEXTS[row] for row in at]
        np.testing.assert_allclose([one["similarity"] for one in each["neighbours"]], near, rtol=0, atol=1e-5)

    code, output, errors = call(monkeypatch, capsys, *flags, TEXTS[4] + "\n", stdin="\n".join(TEXTS).encode("utf-8"))
    assert (code, errors) == (0, "")
    lines = [line.split("\t") for line in output.splitlines()]
    assert [(query.strip(), int(row), text) for query, _, row, text in lines] == [(TEXTS[4], row, TEXTS[row]) for row in rows[0]]
    np.testing.assert_allclose([float(line[1]) for line in lines], similarities[0], rtol=0, atol=1e-5)


def test_pairs(tmp_path, monkeypatch, capsys):
    path = tiny.write_classifier(str(tmp_path / "pairs"), pair=True)
    flags = "--model_load_dir", path, "--neighbours", "1"
    code, output, _ = call(monkeypatch, capsys, *flags, "cats run\tyes", stdin=b"dogs\tno\ncats run\tyes\ncats run\tno\n")
    assert code == 0
    assert output == "cats run\tyes\t1.000000\t1\tcats run\tyes\n"


def test_many_texts_are_written_as_they_come(tmp_path, encoder, monkeypatch):
    """Neither texts nor vectors gather: when a portion is read, the vectors of those before it are in the file."""
    monkeypatch.setattr(text_model, "_BATCHES_AT_ONCE", 10)
    most, total = [0], 3001
    with open(tmp_path / "v.npy", "wb") as file:
        rows = NpyRows(file, WIDTH)
        neighbours = Neighbours(np.ones((1, WIDTH), np.float32), 2)

        def texts():
            for number in range(total):
                most[0] = max(most[0], number + 1 - rows.count)
                yield TEXTS[number % 3]

        count, near = embed(Embedder(encoder, device="cpu", batch_size=7), texts(), rows, neighbours)
        rows.finish()
    assert count == total
    assert most[0] == 70
    assert len(near) == 2
    found = np.load(tmp_path / "v.npy", mmap_mode="r", allow_pickle=False)
    assert found.shape == (total, WIDTH)
    np.testing.assert_allclose(found[3:], found[:-3], rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_header_for_any_number_of_rows():
    file = io.BytesIO()
    rows = NpyRows(file, 5)
    rows.count = 10**18
    rows.finish()
    file.seek(0)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((10**18, 5), False, np.dtype("<f4"))
    assert file.tell() == len(file.getvalue()) == 128


@pytest.mark.parametrize(
    ("flags", "stdin", "message"),
    [
        ("", b"one\n", "there is nothing to write: give --output FILE, --neighbours K, or both"),
        ("--output OUT text", b"one\n", "texts are compared with the texts of --input: give --neighbours K too"),
        ("--output OUT --query QUERY", b"one\n", "--query are compared with"),
        ("--neighbours 2", b"one\n", "--neighbours: give texts, or --query FILE"),
        ("--neighbours 2 --query QUERY text", b"one\n", "set either texts or --query"),
        ("--neighbours 2 --query EMPTY", b"one\n", "--query .*empty.txt: there is no text in it"),
        ("--neighbours 2 --query GONE", b"one\n", "--query .*gone.txt: cannot be read"),
        ("--output OUT", b"\n\n", "standard input: there is no text in it"),
        ("--output OUT", b"one\nca\xe9\n", "standard input: line 2 is not UTF-8"),
        ("--output /dev/stdout", b"one\n", "--output /dev/stdout: the number of vectors is written last"),
        ("--output OUT --input QUERY --layer 9", b"", "--layer 9: "),
        ("--output QUERY --input QUERY", b"", "is a file of this command or of the run"),
    ],
)
def test_bad_input_in_one_line(tmp_path, encoder, monkeypatch, capsys, flags, stdin, message):
    (tmp_path / "query.txt").write_text("one\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "out.npy").write_text("old", encoding="utf-8")
    names = {"OUT": "out.npy", "QUERY": "query.txt", "EMPTY": "empty.txt", "GONE": "gone.txt"}
    words = [str(tmp_path / names[word]) if word in names else word for word in flags.split()]
    code, output, errors = call(monkeypatch, capsys, "--model_load_dir", encoder, *words, stdin=stdin)
    assert (code, output) == (2, "")
    (line,) = [line for line in errors.splitlines() if "need about" not in line]
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert sorted(os.listdir(tmp_path)) == ["empty.txt", "out.npy", "query.txt"]
    assert (tmp_path / "out.npy").read_text(encoding="utf-8") == "old"
