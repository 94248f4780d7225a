"""The HTTP interface of tools/serve.py: POST /predict, GET /health, and a page at /. Each error is one line of JSON: {"error": …}."""

import asyncio
import json
from typing import NamedTuple

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import parse_json
from ofrecord_util.label_kinds import CLASSIFICATION
from tools.extras import extra
from tools.serve_batches import Busy
from tools.serve_page import POLICY, page

WHAT = "tools/serve.py"
_SECONDS = 30  # for the body of a request


class Limits(NamedTuple):
    """What a request may hold."""

    body_bytes: int
    texts: int
    characters: int  # of one text


class _BadRequest(Exception):
    """A request that is refused, with its status."""

    def __init__(self, message, status=400):
        super().__init__(message)
        self.status = status


def parse_request(body, pair, limits):
    """The texts of a request.

    Args:
        body: bytes of a JSON object with `text`, a str or a list of str, and for a task of pairs `pair`, of the same form.
        pair: whether the model labels pairs of texts.
        limits: `Limits`.
    Returns:
        (list of str or of (str, str), whether `text` was a list).
    Raises:
        _BadRequest: the body has another form or exceeds a limit.
    """
    try:
        values = parse_json(body)
    except ValueError as error:
        raise _BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(values, dict) or "text" not in values:
        raise _BadRequest('the body must be a JSON object with "text"')
    names = ("text", "pair") if pair else ("text",)
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise _BadRequest(f"unknown key {unknown[0]!r:.40}; known: {', '.join(names)}")
    columns = []
    for name in names:
        value = values.get(name)
        column = value if isinstance(value, list) else [value]
        if len(column) > limits.texts:
            raise _BadRequest(f"{len(column)} texts; at most {limits.texts} per request", 413)
        for number, text in enumerate(column, 1):
            if not isinstance(text, str):
                raise _BadRequest(f"{name} {number} is {type(text).__name__}, not a string")
            if len(text) > limits.characters:
                raise _BadRequest(f"{name} {number} has {len(text)} characters; at most {limits.characters}", 413)
        columns.append((column, isinstance(value, list)))
    (first, is_list), rest = columns[0], columns[1:]
    if rest and (rest[0][1] != is_list or len(rest[0][0]) != len(first)):
        raise _BadRequest('"text" and "pair" must be two strings or two lists of equal length')
    return (list(zip(first, rest[0][0])) if rest else first), is_list


async def _read_body(request, limit):
    """The body of a request. The rest of one that is too large is not read."""
    length = request.headers.get("content-length", "")
    data = bytearray()
    if not (length.isdigit() and int(length) > limit):
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                break
        else:
            return bytes(data)
    raise _BadRequest(f"the body is larger than {limit} bytes", 413)


def build_app(batcher, name, task, limits):
    """The Starlette application.

    Args:
        batcher: `Batcher` with the model.
        name: of the model.
        task: its `Task`.
        limits: `Limits`.
    Raises:
        UserError: the package starlette is missing.
    """
    starlette = extra("starlette.applications", WHAT)
    responses, routing = extra("starlette.responses", WHAT), extra("starlette.routing", WHAT)
    exceptions, requests = extra("starlette.exceptions", WHAT), extra("starlette.requests", WHAT)
    html = page(name, task)

    def answer(value, status=200, headers=None):
        text = json.dumps(value, ensure_ascii=False) + "\n"
        headers = {"X-Content-Type-Options": "nosniff", **(headers or {})}
        return responses.Response(text.encode("utf-8", "replace"), status, headers, "application/json")

    async def predict(request):
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                # a form on a page of another site cannot send this type
                raise _BadRequest("the Content-Type must be application/json", 415)
            encoding = request.headers.get("content-encoding", "identity").strip().lower()
            if encoding != "identity":
                # the limit of a body is that of its bytes here, and a small compressed one may be huge
                raise _BadRequest(f"the Content-Encoding {encoding!r:.40} is not supported: send the body without compression", 415)
            body = await asyncio.wait_for(_read_body(request, limits.body_bytes), _SECONDS)
            texts, is_list = parse_request(body, task.pair, limits)
            found = [prediction.to_dict() for prediction in (await batcher.predict(texts) if texts else [])]
        except _BadRequest as error:
            # what is left of a body that was not read would be taken for the next request
            return answer({"error": str(error)}, error.status, {"Connection": "close"} if error.status in (413, 415) else None)
        except asyncio.TimeoutError:
            return answer({"error": f"the body did not arrive within {_SECONDS} seconds"}, 408, {"Connection": "close"})
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            return answer({"error": "the server is being stopped"}, 503, {"Connection": "close"})
        except requests.ClientDisconnect:
            return answer({"error": "the client has gone"}, 400)
        except Busy as error:
            return answer({"error": str(error)}, 503, {"Retry-After": "1"})
        except UserError as error:
            return answer({"error": " ".join(str(error).split())}, 500)
        return answer(found if is_list else found[0])

    async def health(_request):
        kind = {} if task.task_type == CLASSIFICATION else {"task_type": task.task_type}
        return answer({"status": "ok", "model": name, "labels": list(task.labels), "pair": task.pair, **kind, "waiting": batcher.waiting})

    async def index(_request):
        return responses.HTMLResponse(html, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    async def refuse(_request, error):
        return answer({"error": error.detail}, error.status_code, error.headers)

    routes = [
        routing.Route("/predict", predict, methods=["POST"]),
        routing.Route("/health", health, methods=["GET"]),
        routing.Route("/", index, methods=["GET"]),
    ]
    app = starlette.Starlette(routes=routes, exception_handlers={exceptions.HTTPException: refuse})
    app.router.redirect_slashes = False  # /predict/ is another path, 404
    return app
