"""A server of tools/serve.py in a thread of the test's process, and what each way to use a snapshot says of the same texts."""

import http.client
import json
import threading

import numpy as np

from benchmarks.hugging_face_parity import ask_transformers
from benchmarks.side_by_side import torch_python
from modeling.predictor import Predictor
from tools import predict
from tools.convert_checkpoint import HUGGING_FACE, convert
from tools.serve import open_socket, serve
from tools.serve_app import Limits

LIMITS = Limits(body_bytes=3000, texts=5, characters=200)


class Server:
    """A server in a thread of this process, until the block ends."""

    def __init__(self, model, most_waiting=100):
        self.listener, self.model = open_socket("127.0.0.1", 0), model
        self.port, self._ready = self.listener.getsockname()[1], threading.Event()
        self._ended = threading.Event()
        arguments = model, self.listener, LIMITS, most_waiting, self._ready.set, self._ended.is_set
        self._thread = threading.Thread(target=serve, args=arguments)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *raised):
        self._ended.set()
        self._thread.join(30)
        self.listener.close()
        assert not self._thread.is_alive()

    def ask(self, body=None, method="POST", path="/predict", kind="application/json", port=None, encoding="identity"):
        """(status, headers, text)"""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode("utf-8")
        connection.request(method, path, data, {"Content-Type": kind, "Content-Encoding": encoding})
        response = connection.getresponse()
        text = response.read().decode("utf-8")
        connection.close()
        return response.status, response.headers, text


def check_all_ways(path, texts, monkeypatch, capsys):
    """Checks that tools/predict.py and tools/serve.py give the labels and probabilities of a `Predictor`, and returns these.

    Args:
        path: of a snapshot.
        texts: at most as many as `LIMITS` allows.
    Returns:
        list of `Prediction`.
    """
    expected = list(Predictor(path, "cpu")(texts))
    monkeypatch.setattr("sys.argv", ["predict.py", "--model_load_dir", path, "--device", "cpu", "--format", "json", *texts])
    capsys.readouterr()
    predict.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    with Server(Predictor(path, "cpu")) as server:
        status, _, answer = server.ask({"text": texts})
        assert status == 200, answer
        one = json.loads(server.ask({"text": texts[0]})[2])
    for found in (lines, json.loads(answer), [one]):
        assert [each["text"] for each in found] == texts[: len(found)]
        assert [each["label"] for each in found] == [prediction.label for prediction in expected][: len(found)]
        for each, prediction in zip(found, expected):
            assert each["probabilities"].keys() == prediction.probabilities.keys()
            assert all(abs(each["probabilities"][name] - value) < 2e-6 for name, value in prediction.probabilities.items())
    assert len(lines) == len(texts)
    return expected


def check_in_transformers(path, texts, folder):
    """Checks that transformers, from the raw texts and by its Auto classes, has the ids and log-probabilities of a `Predictor`.

    Args:
        path: of a snapshot.
        texts: texts of which some get other probabilities than others.
        folder: for the Hugging Face folder, which must not exist.
    """
    convert(path, folder, to=HUGGING_FACE, log=lambda line: None)
    theirs = ask_transformers(torch_python(), {"folder": folder, "texts": texts, "pairs": None})
    predictor = Predictor(path, "cpu")
    ours = np.log([list(prediction.probabilities.values()) for prediction in predictor(texts)])
    encoded = predictor.preprocess(texts)
    assert theirs["ids"] == [row[: mask.sum()].tolist() for row, mask in zip(encoded.input_ids, encoded.input_mask)]
    np.testing.assert_allclose(ours, theirs["log_probabilities"], rtol=0, atol=1e-5)
    assert np.ptp(ours[:, 0]) > 0.5  # the texts differ by far more than the tolerance
