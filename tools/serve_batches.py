"""The queue between an HTTP server and a model: requests that wait together are one batch.

The model runs in the thread that calls `run`, the server in another one.
"""

import asyncio
import queue
import sys
import traceback
from typing import NamedTuple

from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say

_POLL = 0.2  # seconds between two looks at `stopped`


class Busy(Exception):
    """Too many texts wait."""


class _Request(NamedTuple):
    texts: list
    future: object  # of `loop`, gets a list of predictions
    loop: object


class Batcher:
    """Predicts the texts of requests in batches.

    Args:
        predictor: function of a list of texts that returns an iterable of predictions.
        batch_texts: texts of a batch; more requests wait for the next one.
        most_waiting: texts that may wait.
    Attributes:
        waiting: number of texts that wait or are computed.
    """

    def __init__(self, predictor, batch_texts, most_waiting):
        self._predictor, self._batch_texts, self._most_waiting = predictor, batch_texts, most_waiting
        self._queue, self.waiting = queue.Queue(), 0

    async def predict(self, texts):
        """The predictions of a request, as a list. For one event loop.

        Raises:
            Busy: too many texts wait.
            UserError: the predictions cannot be computed.
        """
        if self.waiting + len(texts) > self._most_waiting:
            raise Busy(f"{self.waiting} texts wait already; try again later")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting += len(texts)
        self._queue.put(_Request(texts, future, loop))
        try:
            return await asyncio.shield(future)
        finally:
            self.waiting -= len(texts)

    def run(self, stopped):
        """Computes batches until `stopped()` is true, which is called a few times per second.

        Args:
            stopped: function without arguments.
        """
        while not stopped():
            try:
                requests = [self._queue.get(timeout=_POLL)]
            except queue.Empty:
                continue
            while sum(len(request.texts) for request in requests) < self._batch_texts:
                try:
                    requests.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            self._compute(requests)

    def _compute(self, requests):
        try:
            found, error = list(self._predictor([text for request in requests for text in request.texts])), None
        except Exception as problem:  # of a user's pipeline perhaps; the server goes on
            found, error = [], problem
            if not isinstance(problem, UserError):
                for line in traceback.format_exc().splitlines():
                    say(line, sys.stderr)
        start = 0
        for request in requests:
            part = found[start : start + len(request.texts)]
            start += len(request.texts)
            request.loop.call_soon_threadsafe(_settle, request.future, part, error)


def _settle(future, found, error):
    if future.done():  # the client has gone
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error if isinstance(error, UserError) else UserError(f"{type(error).__name__}: {error}"))
