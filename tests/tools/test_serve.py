"""tools/serve.py with a real client: predictions in batches, limits, bad requests, the page, and the end by a signal."""

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from unittest.mock import patch

import pytest
import tiny

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from serving import LIMITS, Server

from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.predictor import Prediction, Predictor
from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import MULTI_LABEL, REGRESSION
from ofrecord_util.tasks import Task
from tools import extras
from tools import serve as serve_module
from tools.serve import open_socket
from tools.serve_app import _BadRequest, parse_request
from tools.serve_page import page

LABELS = ("no", "<b>yes</b>")
TEXTS = ["a good film", "the plot was bad and boring", "Great!", "ünïcode 語"]


def write_snapshot(folder):
    shapes = {**encoder_shapes(tiny.CONFIG), **classifier_shapes(tiny.CONFIG, 2)}
    values = {name: initial_value(name, shape, 3, 0.4) for name, shape in shapes.items()}
    about = {"name": "t", "domains": ["d"], "labels": list(LABELS), "pair": False, "seq_length": 19, "do_lower_case": True}
    vocabulary = "".join(token + "\n" for token in tiny.TOKENS)
    write_variables(str(folder), values, {CONFIG_FILE: tiny.CONFIG.to_json(), VOCAB_FILE: vocabulary, TASK_FILE: json.dumps(about)})
    return str(folder)


class Model:
    """Stands in for a Predictor: a text's label is its length, and each call is noted. It waits while `open` is not set."""

    def __init__(self, pair=False):
        self.path, self.task, self.calls, self.open = "folder/model", Task("t", ("d",), LABELS, pair), [], threading.Event()
        self.open.set()

    def __call__(self, texts):
        self.calls.append(len(texts))
        self.open.wait(30)
        if "fault" in texts:
            raise ValueError("a fault\nof the model")
        if "user" in texts:
            raise UserError("no memory")
        for text in texts:
            yield Prediction(str(sum(map(len, text)) if isinstance(text, tuple) else len(text)), {"no": 0.25}, text)


@pytest.fixture(scope="module")
def server():
    with Server(Model()) as running:
        yield running


def test_one_text_and_a_list(server):
    status, headers, text = server.ask({"text": "four"})
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(text) == {"text": "four", "label": "4", "probabilities": {"no": 0.25}}
    assert [each["label"] for each in json.loads(server.ask({"text": ["a", "bcd", "語"]})[2])] == ["1", "3", "1"]
    assert json.loads(server.ask({"text": []})[2]) == []
    status, _, text = server.ask(None, "GET", "/health")
    assert (status, json.loads(text)["status"], json.loads(text)["labels"]) == (200, "ok", list(LABELS))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 400, 'a JSON object with "text"'),
        (b"\xff", 400, "not JSON"),
        (b"[" * 500 + b"]" * 500, 400, "nested"),
        (b'{"text": "\\ud800"}', 400, "surrogate"),
        ({"text": 3}, 400, "text 1 is int, not a string"),
        ({"text": ["a", None]}, 400, "text 2 is NoneType"),
        ({"text": "a", "pair": "b"}, 400, "unknown key 'pair'; known: text"),
        ({"text": "a", "x\n\x1b": 1}, 400, "unknown key"),
        ({"text": ["a"] * 6}, 413, "6 texts; at most 5"),
        ({"text": "a" * 201}, 413, "text 1 has 201 characters; at most 200"),
        ({"text": "a", "more": "x" * 3000}, 413, "larger than 3000 bytes"),
        ({"text": "fault"}, 500, "ValueError: a fault of the model"),
        ({"text": "user"}, 500, "no memory"),
    ],
)
def test_bad_requests(server, body, status, message):
    found, headers, text = server.ask(body)
    assert found == status
    assert headers["Content-Type"] == "application/json"
    assert message in json.loads(text)["error"]
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert server.ask({"text": "four"})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("GET", "/predict", "application/json", 405),
        ("POST", "/other", "application/json", 404),
        ("POST", "/predict/", "application/json", 404),
        ("POST", "/predict", "text/plain", 415),
    ],
)
def test_other_requests(server, method, path, kind, status):
    found, _, text = server.ask({"text": "a"}, method, path, kind)
    assert found == status
    assert list(json.loads(text)) == ["error"]


def test_a_compressed_body(server):
    body = gzip.compress(json.dumps({"text": "a"}).encode("ascii"))
    status, headers, text = server.ask(body, encoding="gzip")
    assert (status, headers["Connection"]) == (415, "close")
    assert "Content-Encoding 'gzip' is not supported" in json.loads(text)["error"]
    assert server.ask({"text": "a"}, encoding="Identity")[0] == 200


def test_bytes_that_are_no_http(server):
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:  # a client that goes away
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert server.ask({"text": "four"})[0] == 200


def test_a_body_without_a_length_is_limited_too(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/predict", iter([b"x" * 1000] * 4), {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_does_not_arrive_before_the_end(monkeypatch, capfd):
    """The client gets one line, and the log of the server no traceback."""
    monkeypatch.setattr(serve_module, "_SECONDS_TO_END", 1)
    with Server(Model()) as running:
        slow = socket.create_connection(("127.0.0.1", running.port), 30)
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        assert running.ask({"text": "four"})[0] == 200
    with slow:
        received = slow.recv(1000)
    assert received.startswith(b"HTTP/1.1 503")
    assert received.endswith(b'{"error": "the server is being stopped"}\n')
    assert "Traceback" not in capfd.readouterr().err


def test_pairs():
    with Server(Model(pair=True)) as server:
        assert json.loads(server.ask({"text": "ab", "pair": "cde"})[2])["label"] == "5"
        found = json.loads(server.ask({"text": ["ab", "a"], "pair": ["cde", "b"]})[2])
        assert [(each["text"], each["label"]) for each in found] == [(["ab", "cde"], "5"), (["a", "b"], "2")]
        for body in ({"text": "a"}, {"text": ["a"], "pair": "b"}, {"text": ["a"], "pair": []}):
            assert server.ask(body)[0] == 400


def test_requests_that_wait_together_are_one_batch():
    model, found = Model(), []
    with Server(model, most_waiting=9) as server:
        model.open.clear()
        threads = [threading.Thread(target=lambda n=n: found.append((n, server.ask({"text": ["x" * n] * 2})))) for n in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
            deadline = time.monotonic() + 30
            while json.loads(server.ask(None, "GET", "/health")[2])["waiting"] < 2 * (threads.index(thread) + 1):
                assert time.monotonic() < deadline
        status, headers, text = server.ask({"text": ["a", "b"]})
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "8 texts wait already" in text
        model.open.set()
        for thread in threads:
            thread.join()
    assert model.calls == [2, 6]
    assert {n: [each["label"] for each in json.loads(text)] for n, (_, _, text) in found} == {n: [str(n)] * 2 for n in (1, 2, 3, 4)}


def test_the_page(server):
    status, headers, text = server.ask(None, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "&lt;b&gt;yes&lt;/b&gt;" in text
    assert "<b>yes" not in text
    assert "innerHTML" not in text
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?:", text)
    assert 'id="pair"' not in text
    assert 'id="pair"' in page("<m>", Task("t", ("d",), LABELS, True))
    assert "<m>" not in page("<m>", Task("t", ("d",), LABELS, True))


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [(REGRESSION, 2.5, {"label": 2.5}), (MULTI_LABEL, ("yes",), {"labels": ["yes"], "probabilities": {"no": 0.25, "yes": 0.75}})],
)
def test_numbers_and_sets_of_labels(kind, label, expected):
    model = Model()
    model.task = Task("t", ("d",), ("score",) if kind == REGRESSION else ("no", "yes"), task_type=kind)
    found = Prediction(label, expected.get("probabilities", {}))
    with patch.object(Model, "__call__", lambda _self, texts: [found._replace(text=text) for text in texts]), Server(model) as server:
        assert json.loads(server.ask({"text": "a"})[2]) == {"text": "a", **expected}
        assert json.loads(server.ask(None, "GET", "/health")[2])["task_type"] == kind


def test_parsing_without_a_server():
    assert parse_request(b'{"text": "a"}', False, LIMITS) == (["a"], False)
    assert parse_request(b'{"text": ["a"], "pair": ["b"]}', True, LIMITS) == ([("a", "b")], True)
    with pytest.raises(_BadRequest):
        parse_request(b"{}", False, LIMITS)


def test_an_address_in_use(server):
    with pytest.raises(UserError, match=f"--host 127.0.0.1 --port {server.port}: cannot be used"):
        open_socket("127.0.0.1", server.port)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"tools/serve\.py needs the package uvicorn.*pip install -r requirements-extras\.txt"):
        extras.extra("uvicorn", "tools/serve.py")


@pytest.mark.slow
def test_the_tool(tmp_path):
    """A process with a real snapshot: the predictions of the snapshot, and an end by SIGTERM after the requests that have arrived."""
    snapshot = write_snapshot(tmp_path / "snapshot")
    command = [sys.executable, os.path.join("tools", "serve.py"), "--model_load_dir", snapshot, "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        port = int(re.search(r"is served at http://127\.0\.0\.1:(\d+)\n", line).group(1))
        status, _, text = Server.ask(None, {"text": TEXTS}, port=port)
        assert status == 200
        expected = [prediction.label for prediction in Predictor(snapshot, "cpu")(TEXTS)]
        assert [each["label"] for each in json.loads(text)] == expected
        assert [each["text"] for each in json.loads(text)] == TEXTS
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output == "the server has ended\n"
    assert "Traceback" not in errors
