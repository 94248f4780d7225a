"""tools/predict.py and modeling/predictor.py: the probabilities of a snapshot's own graph for any text, in order, whatever
the batch; bad input in one line."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from modeling import text_model
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.cli.errors import run
from modeling.engine.global_function import global_function
from modeling.engine.kernels import select_kernels
from modeling.objectives.mft import predict_logits
from modeling.predictor import Predictor
from ofrecord_util.errors import UserError
from ofrecord_util.packing import Rows
from ofrecord_util.tokenization import Tokenizer
from tools.predict import as_text, main
from tools.texts import texts_of

LABELS = ("no", "perhaps", "yes")
VALUES = {
    name: initial_value(name, shape, 3, 0.4)
    for name, shape in {**encoder_shapes(tiny.CONFIG), **classifier_shapes(tiny.CONFIG, len(LABELS))}.items()
}
# from one word to more than the 37 tokens that the model was trained with
TEXTS = [" ".join(itertools.islice(itertools.cycle(tiny.TOKENS[18:]), start, start + count)) for start, count in
         ((0, 1), (3, 60), (5, 4), (8, 33), (2, 12), (9, 1), (1, 31), (4, 7))] + ["", "Great FILM!"]  # fmt: skip


def write_snapshot(folder, pair=False, without=(), **task):
    """A snapshot of random weights that looks as if a training step had left it."""
    about = dict(name="t", domains=["d"], labels=list(LABELS), pair=pair, seq_length=37, do_lower_case=True, **task)
    files = {
        CONFIG_FILE: tiny.CONFIG.to_json(),
        VOCAB_FILE: "".join(token + "\n" for token in tiny.TOKENS),
        TASK_FILE: json.dumps(about),
    }
    write_variables(str(folder), VALUES, {name: text for name, text in files.items() if name not in without})
    return str(folder)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return write_snapshot(tmp_path_factory.mktemp("predict") / "snapshot")


def probabilities(predictor, texts):
    return np.array([list(prediction.probabilities.values()) for prediction in predictor(texts)])


@pytest.fixture(scope="module")
def expected(snapshot):
    """Softmax of the graph's logits, all texts in one batch, padded to the full length."""
    variables, kernels = Variables(VALUES), select_kernels("cpu")

    @global_function(type="predict", variables=variables)
    def job(variables, input_ids, input_mask, segment_ids):
        return predict_logits(variables, tiny.CONFIG, kernels, input_ids, input_mask, segment_ids)

    encoded = Tokenizer(os.path.join(snapshot, VOCAB_FILE), True).encode(TEXTS, None, 37)
    names = ("input_ids", "input_mask", "segment_ids")
    logits = job({name: getattr(encoded, name) for name in names}).numpy().astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, 4, 32])
def test_probabilities_are_those_of_the_graph(snapshot, expected, batch_size):
    found = probabilities(Predictor(snapshot, "cpu", batch_size), TEXTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.05  # the texts do differ


def test_label_and_order(snapshot, expected):
    predictions = list(Predictor(snapshot, "cpu", 3)(iter(TEXTS)))
    assert [prediction.label for prediction in predictions] == [LABELS[row.argmax()] for row in expected]
    assert list(predictions[0].probabilities) == list(LABELS)


def test_texts_are_read_as_they_are_needed(snapshot, monkeypatch):
    """A stream without an end gives its first predictions."""
    monkeypatch.setattr(text_model, "_BATCHES_AT_ONCE", 4)
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield TEXTS[number % len(TEXTS)]

    predictor = Predictor(snapshot, "cpu", 3)
    first = list(itertools.islice(predictor(endless()), 14))
    assert len(first) == 14
    assert len(read) == 24


def test_later_texts_that_are_longer(snapshot, expected):
    """Calls use the shapes of earlier ones; a longer text gets one more."""
    predictor = Predictor(snapshot, "cpu", 3)
    predictor._shapes = [Rows(2, 8, 2)]
    for _ in range(2):
        np.testing.assert_allclose(probabilities(predictor, TEXTS), expected, rtol=0, atol=1e-5)
        assert [shape.length for shape in predictor._shapes] == [8, 37]
        np.testing.assert_allclose(probabilities(predictor, TEXTS[:1]), expected[:1], rtol=0, atol=1e-5)


def test_pairs(tmp_path, snapshot):
    of_pairs = Predictor(write_snapshot(tmp_path / "pairs", pair=True), "cpu", 2)
    texts = [("cats run", "yes it is"), ("cats run", ""), ("", "no")]
    found = probabilities(of_pairs, texts)
    assert found.shape == (3, 3)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with pytest.raises(UserError, match="line 2 has 1 column, but a task of text pairs needs two"):
        list(texts_of(["a\tb", "only one"], True, "FILE"))


def test_shorter_length_truncates(snapshot):
    short, full = (Predictor(snapshot, "cpu", 4, seq_length=length) for length in (7, 37))
    long_text = [TEXTS[1]]
    assert np.abs(probabilities(short, long_text) - probabilities(full, long_text)).max() > 1e-4
    np.testing.assert_allclose(probabilities(short, ["good film"]), probabilities(full, ["good film"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": (TASK_FILE,)}, "no task.json, so it has no labels"),
        ({"without": (VOCAB_FILE,)}, "no vocab.txt: give --vocab_file"),
    ],
)
def test_snapshots_that_cannot_predict(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        Predictor(write_snapshot(tmp_path / "s", **change), "cpu")


def test_other_refusals(tmp_path, snapshot):
    with pytest.raises(UserError, match="--seq_length 41: the model has 40 positions"):
        Predictor(snapshot, "cpu", seq_length=41)
    encoder = tiny.write_encoder(str(tmp_path / "encoder"))
    with pytest.raises(UserError, match=r"no task.json"):
        Predictor(encoder, "cpu")
    vocabulary = tiny.write_vocabulary(str(tmp_path / "vocab.txt"), tiny.TOKENS[:-1])
    with pytest.raises(UserError, match=r"has .* pieces"):
        Predictor(snapshot, "cpu", vocab_file=vocabulary)


def test_too_little_memory(snapshot):
    """It is refused before a graph is compiled. Only a further graph is announced."""
    predictor = Predictor(snapshot, "cpu", memory_limit=0.001)
    with pytest.raises(UserError, match=r"of memory, but may use only 1\.0 MB: free some memory"):
        list(predictor(TEXTS))
    assert predictor._job._graphs == {}
    lines = []
    predictor = Predictor(snapshot, "cpu", announce=lines.append)
    for _ in range(2):
        list(predictor(TEXTS))
    assert len(lines) == 1
    assert re.fullmatch(r"the predictions need about 0\.\d\d GB of memory", lines[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("bert-embeddings-word_embeddings", np.nan, "the weights are not finite: variable bert-embeddings-word"),
     ("bert-pooler-dense-bias", np.inf, "position 2"),
     ("classification-output_weights", 3e38, "the logits of 1 of 1 texts are not finite")],
)  # fmt: skip
def test_weights_that_make_no_prediction(tmp_path, name, value, message):
    folder = write_snapshot(tmp_path / "snapshot")
    path = os.path.join(folder, name, "out")
    values = np.fromfile(path, "<f4")
    values[2:] = value
    values.tofile(path)
    with pytest.raises(UserError, match=message):
        list(Predictor(folder, "cpu", 2)(["good film"]))


def test_pairs_need_two_token_types(tmp_path):
    folder = write_snapshot(tmp_path / "snapshot", pair=True)
    config = dataclasses.replace(tiny.CONFIG, type_vocab_size=1)
    (tmp_path / "snapshot" / CONFIG_FILE).write_text(config.to_json())
    with pytest.raises(UserError, match=r"has 1 token type \(type_vocab_size\), but the task has pairs"):
        Predictor(folder, "cpu")


def test_another_vocabulary_of_the_same_size_is_said(tmp_path, snapshot):
    tokens = [*tiny.TOKENS[:-2], tiny.TOKENS[-1], tiny.TOKENS[-2]]
    lines = []
    Predictor(snapshot, "cpu", vocab_file=tiny.write_vocabulary(str(tmp_path / "vocab.txt"), tokens), log=lines.append)
    (line,) = [line for line in lines if "vocabulary" in line]
    assert f"2 of {len(tokens)} pieces differ" in line


def test_more_embeddings_than_tokens(tmp_path):
    """The number of rows is often rounded up; the snapshot's own vocabulary may be shorter."""
    folder = write_snapshot(tmp_path / "snapshot")
    (tmp_path / "snapshot" / VOCAB_FILE).write_text("".join(token + "\n" for token in tiny.TOKENS[:-5]))
    assert len(list(Predictor(folder, "cpu", 2)(["good film"]))) == 1
    own = tiny.write_vocabulary(str(tmp_path / "vocab.txt"), tiny.TOKENS[:-4])
    with pytest.raises(UserError, match=r"has .* pieces, but the model has .* word embeddings, and its own vocab.txt has"):
        Predictor(folder, "cpu", vocab_file=own)


def tool(*arguments, stdin=""):
    """tools/predict.py as a process."""
    command = [sys.executable, os.path.join("tools", "predict.py"), *arguments]
    return subprocess.run(command, cwd=tiny.ROOT, input=stdin, capture_output=True, encoding="utf-8", timeout=300)


def test_the_tool(tmp_path, snapshot, expected):
    result = tool("--model_load_dir", snapshot, "--device", "cpu", "--batch_size", "3", stdin="\n".join(TEXTS) + "\n")
    assert result.returncode == 0
    assert result.stderr == ""
    predictions = list(Predictor(snapshot, "cpu", 3)(TEXTS))
    assert result.stdout.splitlines() == [as_text(text, each) for text, each in zip(TEXTS, predictions)]

    (tmp_path / "in.tsv").write_text("".join(f"{text}\td\tno\n" for text in TEXTS), encoding="utf-8")
    files = ("--input", str(tmp_path / "in.tsv"), "--output", str(tmp_path / "out.jsonl"), "--format", "json")
    result = tool("--model_load_dir", snapshot, "--device", "cpu", *files)
    assert result.returncode == 0
    assert result.stdout == ""
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["text"] for each in objects] == TEXTS
    found = np.array([[each["probabilities"][label] for label in LABELS] for each in objects])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_bad_input_leaves_no_output(tmp_path, snapshot):
    (tmp_path / "in.txt").write_bytes(b"fine\nca\xe9\n")
    output = tmp_path / "out.tsv"
    result = tool("--model_load_dir", snapshot, "--device", "cpu", "--input", str(tmp_path / "in.txt"), "--output", str(output))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "line 2 is not UTF-8" in result.stderr
    assert os.listdir(tmp_path) == ["in.txt"]
    result = tool("--model_load_dir", str(tmp_path / "none"), "text")
    assert result.returncode == 2
    assert "no such snapshot folder" in result.stderr


def call(monkeypatch, capsys, *arguments, stdin=()):
    """Runs the tool in this process. Returns (exit code, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["predict.py", "--device", "cpu", *arguments])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    with pytest.raises(SystemExit) as end:
        run(main)
    told = capsys.readouterr()
    tiny.check_advice(told.err)
    return end.value.code or 0, told.out, told.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_input(snapshot, monkeypatch, capsys, number, code):
    class Lines:
        read = 0

        def readline(self, _):
            self.read += 1
            if self.read == 1:
                return b"a good film\n"
            os.kill(os.getpid(), number)
            return pytest.fail("the tool waited for another line")

    ended, output, errors = call(monkeypatch, capsys, "--model_load_dir", snapshot, stdin=Lines())
    assert (ended, output) == (code, "")
    assert errors.endswith(f"interrupted by {number.name}\n")


def test_a_signal_ends_the_wait_for_a_pipe(tmp_path, snapshot, monkeypatch, capsys):
    """A named pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    ended, output, errors = call(monkeypatch, capsys, "--model_load_dir", snapshot, "--input", str(tmp_path / "pipe"))
    timer.join()
    assert (ended, output) == (143, "")
    assert errors.endswith("interrupted by SIGTERM\n")


def test_a_signal_between_two_batches(tmp_path, snapshot, monkeypatch, capsys):
    """The batch ends, the rest is not computed, and the output keeps its old content."""
    (tmp_path / "out.tsv").write_text("old", encoding="utf-8")
    batches, predict = [], text_model.predict_packed

    def interrupted(*args):
        for rows, outputs in predict(*args):
            for row, output in zip(rows, outputs):  # as batches of one text
                batches.append(row)
                if len(batches) == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield [row], output[None]

    monkeypatch.setattr(text_model, "predict_packed", interrupted)
    flags = "--model_load_dir", snapshot, "--batch_size", "1", "--output", str(tmp_path / "out.tsv")
    ended, _, errors = call(monkeypatch, capsys, *flags, "one", "two", "three", "four")
    assert ended == 143
    assert errors.endswith("interrupted by SIGTERM\n")
    assert len(batches) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "old"


def test_a_forked_child_is_told(snapshot):
    """Without OneFlow's threads the child would wait for ever."""
    predictor = Predictor(snapshot, "cpu")
    list(predictor(["a good film"]))
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        code = 1
        with contextlib.suppress(BaseException):
            for attempt in (lambda: list(predictor(["a good film"])), lambda: Predictor(snapshot, "cpu")):
                try:
                    attempt()
                except UserError as error:
                    code = 0 if f"forked child {os.getpid()}" in str(error) and "spawn" in str(error) else 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_assertions_and_streams(snapshot, tmp_path):
    """What the shell and the interpreter can take away from the tool."""

    def shell(line, *options, **environment):
        flags = ["tools/predict.py", "--model_load_dir", snapshot, "--device", "cpu"]
        command = ["sh", "-c", line, "sh", sys.executable, *options, *flags]
        return subprocess.run(command, cwd=tiny.ROOT, env=dict(os.environ, **environment), capture_output=True, timeout=300)

    optimised = shell('"$@" text', "-O")
    assert optimised.returncode == 2
    assert optimised.stderr.startswith(b"error: OneFlow does not work with python -O")
    assert optimised.stderr.count(b"\n") == 1
    closed = shell('"$@" text >&-')
    assert (closed.returncode, closed.stderr) == (2, b"error: standard output is closed, so the result would be lost: give --output FILE\n")
    ascii_only = shell('"$@" "f\u00fcr \U0001f600" 2>&-', PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert ascii_only.returncode == 0
    assert ascii_only.stdout.decode("utf-8").endswith("\tf\u00fcr \U0001f600\n")


def test_one_text_is_no_list_of_texts(snapshot):
    """A text is a sequence too: its characters would be read as a text."""
    with pytest.raises(UserError, match="takes a list of texts, not one text"):
        list(Predictor(snapshot)("a good film"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "takes a list of texts, not NoneType"),
        ({"text": "a"}, "takes a list of texts, not dict"),
        (b"a film", "takes a list of texts, not one text"),
        (["a", None], "text 2 of 2 that are read together is None, which is NoneType, not str"),
        ([float("nan")], "is nan, which is float"),
        ([("a", "b")], "which is tuple, not str"),
        (["a \ud800"], "half of a surrogate pair"),
    ],
)
def test_what_is_no_text(snapshot, texts, message):
    with pytest.raises(UserError, match=message):
        list(Predictor(snapshot)(texts))


@pytest.mark.parametrize(
    "setting",
    [{"device": "tpu"}, {"batch_size": 0}, {"batch_size": "8"}, {"seq_length": 0}, {"seq_length": 12.5}, {"memory_limit": float("nan")}],
)
def test_settings_that_no_flag_takes(snapshot, setting):
    with pytest.raises(UserError, match=f"--{next(iter(setting))} "):
        Predictor(snapshot, **setting)


def test_a_path_object(snapshot):
    (prediction,) = Predictor(pathlib.Path(snapshot))(["a good film"])
    assert prediction == next(Predictor(snapshot)(["a good film"]))


def test_logits_that_are_not_finite(tmp_path):
    path = tiny.write_classifier(str(tmp_path / "classifier"))
    np.full(tiny.CONFIG.hidden_size, 3e38, "<f4").tofile(os.path.join(path, "bert-encoder-layer_1-output-LayerNorm-gamma", "out"))
    with pytest.raises(UserError, match="the logits of 1 of 1 texts are not finite"):
        list(Predictor(path)(["good film"]))
