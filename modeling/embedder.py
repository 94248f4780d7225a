"""Vectors of texts from a snapshot. Any snapshot or converted encoder will do: a classifier and a task are not needed.

embedder = Embedder("models/uncased_L-6_H-384_A-12_oneflow")
vectors = np.concatenate(list(embedder(["a moving film", "two hours I will not get back"])))

Nearest texts are those with the greatest cosine similarity of their vectors (`Neighbours`, `nearest_both_ways`).
"""

import dataclasses

import numpy as np

from modeling.bert.config import CLS, POOLINGS
from modeling.bert.encoder import build_bert
from modeling.bert.names import POOLER_PREFIX, POOLING_HEADS
from modeling.bert.pooling import pool
from modeling.bert.variables import encoder_shapes
from modeling.checkpoints.snapshot import Snapshot, find_snapshot
from modeling.cli.choices import MEAN, ONE_HEAD, SQRT_LENGTH, TWO_HEADS
from modeling.cli.scripts import CORPUS_PAIR_TRAINING
from modeling.engine.global_function import global_function
from modeling.objectives.metric import predict_vectors
from modeling.text_model import TextModel
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say

POOLER = "pooler"
# cls is the state at [CLS] as it is, as in preprocess.py; pooler is BERT's tanh(W h[CLS] + b)
REDUCTIONS = (*POOLINGS, SQRT_LENGTH, ONE_HEAD, TWO_HEADS, POOLER)
_QUERIES_AT_ONCE, _VECTORS_AT_ONCE, _LEAST_NORM = 256, 4096, 1e-12


class Embedder(TextModel):
    """A snapshot as a function from texts to vectors. Several threads may call it; one at a time computes.

    Args:
        path: snapshot folder of a training step or a converted encoder, or the folder of a run with one best snapshot.
        layer: the encoder layer (from 1) whose states are used; None for the last one. The later layers are not computed.
        reduction: how the states of a text become its vector, one of REDUCTIONS.
        further: device, batch_size, seq_length, vocab_file, log, memory_limit and announce, as for `TextModel`.
    Attributes:
        path, pair, seq_length, unknown, tokens: as of `TextModel`. A text is a pair if the snapshot was trained for text pairs. One of
            recipes/pretrain_pairs.py was trained for the vectors of single texts.
        layer: the encoder layer whose states are used, from 1.
        width: numbers per vector, H; 2 H of the two heads of `2ha`.
    Raises:
        UserError: the path is not a snapshot, the snapshot has no such layer, no pooler or no vocabulary.
    """

    _name = "the embedder"

    def __init__(self, path, layer=None, reduction=MEAN, log=say, **further):
        snapshot = Snapshot(find_snapshot(path))
        stored = snapshot.config()
        layers = stored.num_hidden_layers
        if layer is not None and not 1 <= layer <= layers:
            raise UserError(f"--layer {layer}: {snapshot.path} has {layers} encoder layers: give 1 to {layers}")
        if reduction == POOLER and layer not in (None, layers):
            raise UserError(f"--reduction {POOLER}: the pooler reads the last layer: leave out --layer, or give another reduction")
        if reduction == POOLER and not any(name.startswith(POOLER_PREFIX) for name in snapshot.sizes):
            raise UserError(f"--reduction {POOLER}: {snapshot.path} has no pooler: give another reduction")
        pooling = CLS if reduction == POOLER else reduction
        config = dataclasses.replace(stored.of_layers(range(layer or layers)), pooling=pooling)
        lacking = sorted(set(encoder_shapes(config)) & set(POOLING_HEADS) - set(snapshot.sizes))
        if lacking:
            raise UserError(f"--reduction {reduction}: {snapshot.path} has no {lacking[0]}: give another reduction")
        left_out = () if reduction == POOLER else POOLER_PREFIX
        shapes = {name: shape for name, shape in encoder_shapes(config).items() if name in POOLING_HEADS or not name.startswith(left_out)}
        super().__init__(snapshot, config, shapes, encoder_shapes(stored), log=log, **further)
        self.pair = self.pair and snapshot.task().get("script") not in CORPUS_PAIR_TRAINING
        self.layer, self.width, engine = config.num_hidden_layers, config.pooled_size, self._engine

        @global_function(type="predict", variables=self._variables, engine=engine)
        def embed_job(variables, **text):
            if reduction != CLS:
                return predict_vectors(variables, config, engine.kernels, **text)
            bert = build_bert(variables, config, engine.kernels.for_prediction, **text, pools=False)
            return pool(bert.hidden_states[-1], text["input_mask"], CLS, engine.device, text.get("starts"))

        self._job = embed_job

    def __call__(self, texts):
        """Yields the vectors of the texts in portions, float32 [n, H] each, in order.

        Args:
            texts: iterable of str, or of (str, str) for a snapshot of text pairs. The method reads it in portions, so that any number of
                texts needs little memory.
        Raises:
            UserError: as of `Predictor.__call__`; a vector is not finite.
        """
        for portion in self._portions(texts):
            with self._lock:
                vectors = self._run(self._job, self.preprocess(portion), self.width, np.float32)
            wrong = np.count_nonzero(~np.isfinite(vectors).all(axis=1))
            if wrong:
                raise UserError(f"{self.path}: the vectors of {wrong} of {len(vectors)} texts are not finite: give another snapshot")
            yield vectors


class Neighbours:
    """The K nearest of any number of vectors for each of some queries, by cosine similarity. Of equal ones the first is nearer.

    Args:
        queries: float32 [Q, H].
        count: K.
    Attributes:
        rows: int64 [Q, k], positions among the vectors so far, the nearest first; k is K, or their number if there are fewer.
        similarities: float32 [Q, k].
    """

    def __init__(self, queries, count):
        self._queries, self._most, self._seen = _units(queries), count, 0
        self.rows = np.empty((len(queries), 0), np.int64)
        self.similarities = np.empty((len(queries), 0), np.float32)

    def add(self, vectors):
        """Compares the next vectors, float32 [n, H]."""
        units, first = _units(vectors).T, self._seen
        new = np.arange(first, first + len(vectors))
        kept = min(self._most, self._seen + len(vectors))
        rows, similarities = (np.empty((len(self.rows), kept), kind) for kind in (np.int64, np.float32))
        for start in range(0, len(self.rows), _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            products = np.concatenate([self.similarities[some], self._queries[some] @ units], axis=1)  # [q, k + n]
            # of one neighbour, the greatest is found in less time than by sorting
            places = products.argmax(axis=1)[:, None] if kept == 1 else np.argsort(-products, axis=1, kind="stable")[:, :kept]
            similarities[some] = np.take_along_axis(products, places, axis=1)
            known = self.rows[some]
            candidates = np.concatenate([known, np.broadcast_to(new, (len(known), len(new)))], axis=1)
            rows[some] = np.take_along_axis(candidates, places, axis=1)
        self.rows, self.similarities, self._seen = rows, similarities, first + len(vectors)


def nearest_both_ways(vectors, portions):
    """The nearest vector of another set for each vector of two sets, by cosine similarity. Of equal ones the first is nearer.

    Args:
        vectors: float32 [N, H], N >= 1.
        portions: iterable of float32 [m, H], M vectors in all. Each portion is used as it comes, so that the second set and the N x M
            similarities are never in memory together.
    Returns:
        (int64 [N], positions in the second set; int64 [M], positions in the first one).
    """
    forward, backward = Neighbours(vectors, 1), []
    for portion in portions:
        forward.add(portion)
        nearest = Neighbours(portion, 1)
        for start in range(0, len(vectors), _VECTORS_AT_ONCE):
            nearest.add(vectors[start : start + _VECTORS_AT_ONCE])
        backward.append(nearest.rows[:, 0])
    return forward.rows[:, 0], np.concatenate(backward)


def _units(vectors):
    """Vectors of length 1, float32 [N, H]; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST_NORM)
