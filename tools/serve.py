"""Serves a trained snapshot over HTTP: predictions, and a page to try a text on.

    python3 tools/serve.py --model_load_dir output/hotels
    curl -H "Content-Type: application/json" http://127.0.0.1:8000/predict \\
        -d '{"text": "the room was spotless and everyone was so kind"}'

POST /predict takes a JSON object with `text`, one text or a list, and for a task of text pairs `pair`. It answers with the label and all
probabilities of each text; of a regression with the number, of sets of labels with the list `labels`. Requests that wait together are one
batch. GET /health says that the server is ready. The page is at /. A request that is refused gets one line of JSON and a status from 400
to 499. SIGTERM and SIGINT let the requests that have arrived end. The server has no passwords and no encryption: it listens on this
machine only unless --host says otherwise. It needs requirements-extras.txt.
"""

if not __package__:
    import _root  # noqa: F401

import os
import socket
import sys
import threading

from modeling.cli import interruption
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import at_least, batch_size, positive_float, positive_int
from ofrecord_util.escaping import say
from tools.evaluate import read_labelled
from tools.extras import extra
from tools.pipeline import HELP, load_pipeline
from tools.serve_app import WHAT, Limits, build_app
from tools.serve_batches import Batcher

_BATCH_TEXTS = 512
_SECONDS_TO_END = 10
_WARM_UP = "a text of some words so that the graphs of this length are ready"


def open_socket(host, port):
    """A listening socket.

    Raises:
        UserError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot be used ({error.strerror or error}); give another --port") from error
    return listener


def serve(predictor, listener, limits, most_waiting, ready, ended=interruption.received):
    """Serves until `ended()` is true. The model runs in the thread of the caller.

    Args:
        predictor: `Predictor`.
        listener: of `open_socket`.
        limits: `Limits`.
        most_waiting: number of texts that may wait.
        ready: called once, when requests are answered.
        ended: called a few times per second; requests that have arrived by then are answered.
    """
    uvicorn = extra("uvicorn", WHAT)
    batcher = Batcher(predictor, _BATCH_TEXTS, most_waiting)
    app = build_app(batcher, os.path.basename(predictor.path), predictor.task, limits)
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=_SECONDS_TO_END)
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, daemon=True
    )  # without signal handlers, as it is no main thread
    thread.start()
    told = []

    def stopped():
        if ended():
            server.should_exit = True
        if server.started and not told:
            told.append(True)
            ready()
        return not thread.is_alive()

    batcher.run(stopped)
    thread.join()


def main():
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model_load_dir", required=True, metavar="SNAPSHOT", help="snapshot of a training script, or the folder of its run"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 makes the model available to the network")
    parser.add_argument("--port", type=at_least(int, 0, 65535), default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--max_body_kb", type=positive_int, default=1024, help="kilobytes that the body of a request may have")
    parser.add_argument("--max_texts", type=positive_int, default=256, help="texts that a request may have")
    parser.add_argument("--max_characters", type=positive_int, default=20_000, help="characters that a text may have")
    parser.add_argument("--max_waiting", type=positive_int, default=4096, help="texts that may wait; a request beyond gets status 503")
    parser.add_argument("--batch_size", type=batch_size, default=32, help="texts per batch on a GPU; on a CPU, the model determines it")
    parser.add_argument("--seq_length", type=positive_int, help="maximum number of tokens per text (default: as in training)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument(
        "--memory_limit", type=positive_float, metavar="GB", help="GB of memory to use on a CPU (default: nine tenths of the free memory)"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
    parser.add_argument("--domain_scores", metavar="FILE", help="labelled texts: give the similarity to each of their domains too")
    parser.add_argument("--pipeline", metavar="MODULE:CLASS", help=HELP)
    args = parser.parse_args()
    for name in ("starlette", "uvicorn"):
        extra(name, WHAT)
    pipeline = load_pipeline(args.pipeline)

    def warn(line):
        say(line, sys.stderr)

    listener = open_socket(args.host, args.port)
    with listener:
        settings = args.device, args.batch_size, args.seq_length, args.vocab_file, warn, args.memory_limit
        predictor = pipeline(args.model_load_dir, *settings)
        if args.domain_scores:
            predictor.compare_domains(*read_labelled(args.domain_scores, predictor.task, {}))
        text = (_WARM_UP, _WARM_UP) if predictor.task.pair else _WARM_UP
        for count in (1, 4 * args.batch_size):  # compiles the graphs before the first request
            list(predictor([text] * count))
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        interruption.finish()  # from here on a signal ends the service, and not a batch
        limits = Limits(1024 * args.max_body_kb, args.max_texts, args.max_characters)
        serve(predictor, listener, limits, args.max_waiting, lambda: say(f"{predictor.path} is served at http://{shown}:{port}"))
    say("the server has ended")


if __name__ == "__main__":
    run(main)
