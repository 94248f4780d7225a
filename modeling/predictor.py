"""Predicts labels for texts. The snapshot folder contains all that is needed: weights, sizes, vocabulary, labels and casing.

predictor = Predictor("output/hotels")
for prediction in predictor(["a moving film", "two hours I will not get back"]):
    print(prediction.label, prediction.probabilities)

A subclass changes what happens before and after the model; tools/predict.py and tools/serve.py take it with --pipeline MODULE:CLASS:

class Careful(Predictor):
    def preprocess(self, texts):
        return super().preprocess([text.replace("<br />", " ") for text in texts])

    def postprocess(self, texts, outputs):
        found = super().postprocess(texts, outputs)
        return [each if max(each.probabilities.values()) > 0.7 else each._replace(label="unsure") for each in found]
"""

import dataclasses
import threading
from typing import NamedTuple, Optional, Union

import numpy as np

from modeling.bert.config import MEAN
from modeling.bert.encoder import build_bert
from modeling.bert.names import CLASSIFIER
from modeling.bert.pooling import pool
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, load_values
from modeling.checkpoints.snapshot import TASK_FILE, VOCAB_FILE, Snapshot, find_snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.cli import interruption
from modeling.engine.cpu_threads import cpu_threads
from modeling.engine.engine import plan_engine
from modeling.engine.global_function import global_function
from modeling.engine.runtime import check_process, select_device
from modeling.objectives.mft import predict_logits
from modeling.run.domain_prototypes import DomainPrototypes
from modeling.run.evaluation import predict_packed
from modeling.run.prediction_rows import can_pack, plan_rows, shape_for
from modeling.run.predictions import probabilities_of
from modeling.run.resources import FREE_SOME, Graph, MemoryPlan, Model, announcement, check_memory
from modeling.run.resources import memory_limit as limit_in_bytes
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.packing import Rows
from ofrecord_util.tasks import Task

_LENGTHS = (32, 128)  # batch lengths below the model's own length on a GPU; each length in use is one more graph to compile
_ROW = 128  # tokens of the rows for few texts on a CPU, and of the rows for texts that the first rows have no room for
_BATCHES_AT_ONCE = 64  # number of batches that are read and sorted by length at a time


class Prediction(NamedTuple):
    """A model's prediction for one text."""

    label: str
    probabilities: dict  # label -> probability, in the task's order
    text: Union[str, tuple] = ""  # or two texts, for a task of pairs
    domain_scores: Optional[dict] = None  # domain -> cosine similarity, after `Predictor.compare_domains`


class Outputs(NamedTuple):
    """What a model computes for N texts."""

    probabilities: np.ndarray  # float64 [N, C]
    domain_scores: Optional[np.ndarray] = None  # float64 [N, K]


class Predictor:
    """A trained snapshot as a function from texts to labels. Several threads may call it; one at a time computes.

    Args:
        path: snapshot folder of a training step, or the folder of a run with one best snapshot.
        device: auto, cuda or cpu.
        batch_size: texts per batch on a GPU. On a CPU texts share the rows of batches whose size the model determines
            (modeling/run/prediction_rows.py). Everywhere, 64 times this number of texts are read at a time.
        seq_length: maximum number of tokens per text; longer texts are truncated. None for the length used in training.
        vocab_file: path of a vocabulary; None for the snapshot's own.
        log: called with one line about the device if there is something to report.
        memory_limit: GB of memory that the process may use on a CPU; None for nine tenths of the free memory.
        announce: None, or a function that is called with one line about the memory before a graph is compiled on a CPU.
    Attributes:
        path: the snapshot folder.
        task: the `Task` of the snapshot.
        seq_length: int.
        unknown, tokens: number of [UNK], and of all tokens without [CLS] and [SEP], in the texts so far.
    Raises:
        UserError: the path is not a snapshot, or the snapshot has no task, no classifier or no vocabulary.
    """

    def __init__(self, path, device="auto", batch_size=32, seq_length=None, vocab_file=None, log=say, memory_limit=None, announce=None):
        self.path = path = find_snapshot(path)
        snapshot = Snapshot(path)
        stored = snapshot.task()
        if stored is None or not set(CLASSIFIER) <= set(snapshot.sizes):
            missing = TASK_FILE if stored is None else CLASSIFIER[0]
            raise UserError(f"{path}: no {missing}, so it has no labels to predict: give a snapshot of a training step")
        if vocab_file is None and snapshot.vocab_file() is None:
            raise UserError(f"{path}: no {VOCAB_FILE}: give --vocab_file")
        self.task = Task.from_dict(stored)
        config = snapshot.config()
        self.seq_length = seq_length or stored.get("seq_length") or config.max_position_embeddings
        if self.task.pair:
            config.check_pairs(path)
        if not 5 <= self.seq_length <= config.max_position_embeddings:
            raise UserError(
                f"--seq_length {self.seq_length}: the model has {config.max_position_embeddings} positions: give 5 up to this number"
            )
        self._tokenizer = open_tokenizer(snapshot, config, vocab_file, log=log)
        self.unknown = self.tokens = 0
        self._batch_size, self._config = batch_size, config
        device = select_device(device, log)
        self._packs, self._shapes = can_pack(config, device), []  # `Rows` of the compiled graphs, in the order in which they were needed
        self._engine = engine = plan_engine(device, config.dense_weights, max(batch_size, cpu_threads()), self.seq_length)
        shapes = {**encoder_shapes(config), **classifier_shapes(config, self.task.num_labels)}
        variables = Variables(load_values(shapes, snapshot, 0, log=lambda _line: None), engine.device, shapes=shapes)

        @global_function(type="predict", variables=variables, engine=engine)
        def predict_job(variables, **text):
            return predict_logits(variables, config, engine.kernels, **text)

        # The last layers of a trained model separate labels and forget domains: of 600 test texts of three domains, the nearest prototype
        # was that of the right domain for 49 % in the last of 6 layers and for 87 % in the second
        first_third = dataclasses.replace(config, num_hidden_layers=max(1, config.num_hidden_layers // 3))

        @global_function(type="predict", variables=variables, engine=engine)
        def embed_job(variables, **text):
            bert = build_bert(variables, first_third, engine.kernels.for_prediction, **text)
            return pool(bert.hidden_states[-1], text["input_mask"], MEAN, engine.device, text.get("starts"))  # e(x), [B, H]

        self._job, self._embed_job, self._domains = predict_job, embed_job, None
        self._lock = threading.RLock()
        model = Model(config, variables.in_memory())
        self._memory = MemoryPlan(model, engine.lanes.count, limit_in_bytes(memory_limit)) if device == "cpu" else None
        self._graphs, self._announce = [], announce  # pairs of a job and a `Graph`

    def __call__(self, texts):
        """Yields one `Prediction` per text, in order.

        Args:
            texts: iterable of str, or of (str, str) for a task of text pairs. The method reads it in portions, so that any number of
                texts needs little memory.
        Raises:
            UserError: `texts` is one text; this process was forked after the predictor was made, so that OneFlow would hang; or the
                predictions need more memory than they may use.
            Interrupted: a signal arrived, in a script (modeling/cli/interruption.py).
        """
        check_process("the predictor")
        if isinstance(texts, str):
            raise UserError("the predictor takes a list of texts, not one text: put it into brackets")
        waiting = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == _BATCHES_AT_ONCE * self._batch_size:
                yield from self._predictions(waiting)
                waiting = []
        if waiting:
            yield from self._predictions(waiting)

    def _predictions(self, texts):
        with self._lock:
            found = self.postprocess(texts, self.predict(self.preprocess(texts)))
        if len(found) != len(texts):
            raise UserError(f"{type(self).__name__}.postprocess returned {len(found)} predictions for {len(texts)} texts")
        return found

    def preprocess(self, texts):
        """The model's input for some texts.

        Args:
            texts: list of N str, or of (str, str) for a task of text pairs.
        Returns:
            `Encoded`, [N, S].
        """
        first, second = ([a for a, _ in texts], [b for _, b in texts]) if self.task.pair else (texts, None)
        encoded = self._tokenizer.encode(first, second, self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(encoded.input_ids, encoded.input_mask)
        self.unknown, self.tokens = self.unknown + unknown, self.tokens + tokens
        return encoded

    def predict(self, encoded):
        """The `Outputs` of the model for an `Encoded` of N texts."""
        probabilities = probabilities_of(self._run(self._job, encoded, self.task.num_labels))
        return Outputs(probabilities, None if self._domains is None else self._domains.scores(self._embed(encoded)))

    def postprocess(self, texts, outputs):
        """One `Prediction` per text, as a list.

        Args:
            texts: as in `preprocess`.
            outputs: `Outputs`.
        """
        labels, scores = self.task.labels, outputs.domain_scores
        found = []
        for position, (text, row) in enumerate(zip(texts, outputs.probabilities)):
            by_domain = None if scores is None else dict(zip(self._domains.names, map(float, scores[position])))
            found.append(Prediction(labels[int(row.argmax())], dict(zip(labels, map(float, row))), text, by_domain))
        return found

    def compare_domains(self, task, texts):
        """From now on predictions have domain scores: the similarity of a text to the prototypes of each domain of labelled texts, in the
        states of the first third of the encoder.

        Args:
            task: `Task` with the names of their domains and labels.
            texts: `TextSplit`, such as the training texts.
        Raises:
            UserError: the texts have fewer than two domains.
        """
        with self._lock:
            given = list(zip(texts.text_a, texts.text_b)) if self.task.pair else list(texts.text_a)
            portion = _BATCHES_AT_ONCE * self._batch_size
            parts = [self._embed(self.preprocess(given[start : start + portion])) for start in range(0, len(given), portion)]
            self._domains = DomainPrototypes(np.concatenate(parts), texts.domain, texts.label, task.domains, task.num_labels)
            self.unknown = self.tokens = 0

    def _embed(self, encoded):
        """e(x) of each text in the first third of the encoder, [N, H]."""
        return self._run(self._embed_job, encoded, self._config.hidden_size)

    def _run(self, job, encoded, width):
        """The outputs of a job for N texts, [N, width]."""
        lengths = encoded.input_mask.sum(axis=1)
        found = np.empty((len(lengths), width))
        for rows, outputs in (self._packed if self._packs else self._padded)(job, encoded, lengths):
            interruption.check()
            found[rows] = outputs
        return found

    def _packed(self, job, encoded, lengths):
        """Yields (some of the texts, their outputs)."""
        shapes = self._shapes_for(lengths)
        self._check_memory(job, [Graph(False, shape.number, shape.length) for shape in shapes])
        yield from predict_packed(job, encoded.input_ids, encoded.segment_ids, lengths, shapes)

    def _shapes_for(self, lengths):
        """The `Rows` for the next texts, ascending. Shapes with graphs are used again, as each further one takes time and memory."""
        row = min(_ROW, self.seq_length)
        few = Rows(1, row, max(1, row // 8))
        if lengths.sum() <= row and len(lengths) <= few.most:
            return (few,)
        longest, room = int(lengths.max()), max((shape.length for shape in self._shapes), default=0)
        lanes = self._engine.lanes.count
        if not self._shapes:
            self._shapes = list(plan_rows(lengths, self._config, lanes, longest=self.seq_length))
        elif longest > room:
            length = row if longest <= row else self.seq_length
            self._shapes.append(shape_for(length, length, self._config, lanes))
        return tuple(self._shapes)

    def _check_memory(self, job, graphs):
        """Checks that there is enough memory for these `Graph`s of a job and those of earlier texts."""
        new = [(job, graph) for graph in graphs if (job, graph) not in self._graphs]
        if new and self._memory:
            needed = self._memory.needed([graph for _, graph in self._graphs + new])
            check_memory(needed, self._memory.limit, FREE_SOME)
            self._graphs += new
            if self._announce:
                self._announce(f"the predictions need {announcement(needed)}")

    def _padded(self, job, encoded, lengths):
        """As `_packed`, for one text per row."""
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            filled = np.resize(rows, self._batch_size)  # the last batch is filled with repeated rows
            length = min([n for n in _LENGTHS if lengths[rows[-1]] <= n < self.seq_length], default=self.seq_length)
            self._check_memory(job, [Graph(False, self._batch_size, length)])
            batch = {
                "word_rows": encoded.input_ids[filled, :length],  # the model holds the embeddings of the whole vocabulary
                "input_mask": encoded.input_mask[filled, :length],
                "segment_ids": encoded.segment_ids[filled, :length],
            }
            yield rows, job(batch).numpy()[: len(rows)]
