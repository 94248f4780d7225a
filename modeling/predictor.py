"""Predicts labels for texts. The snapshot folder contains all that is needed: weights, sizes, vocabulary, labels and casing.

predictor = Predictor("output/…/snapshot_best_ft_model_sst-2_dev_0.75")
for prediction in predictor(["a moving film", "two hours I will not get back"]):
    print(prediction.label, prediction.probabilities)
"""

from typing import NamedTuple

import numpy as np

from modeling.bert.names import CLASSIFIER
from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, load_values
from modeling.checkpoints.snapshot import TASK_FILE, VOCAB_FILE, Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.cli import interruption
from modeling.engine.engine import plan_engine
from modeling.engine.global_function import global_function
from modeling.engine.runtime import check_process, select_device
from modeling.objectives.mft import predict_logits
from modeling.run.predictions import probabilities_of
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task

_LENGTHS = (32, 128)  # batch lengths below the model's own length; each length in use is one more graph to compile
_BATCHES_AT_ONCE = 64  # number of batches that are read and sorted by length at a time


class Prediction(NamedTuple):
    """A model's prediction for one text."""

    label: str
    probabilities: dict  # label -> probability, in the task's order


class Predictor:
    """A trained snapshot as a function from texts to labels.

    Args:
        path: snapshot folder of a training step.
        device: auto, cuda or cpu.
        batch_size: texts per batch.
        seq_length: maximum number of tokens per text; longer texts are truncated. None for the length used in training.
        vocab_file: path of a vocabulary; None for the snapshot's own.
        log: called with one line about the device if there is something to report.
    Attributes:
        task: the `Task` of the snapshot.
        seq_length: int.
        unknown, tokens: number of [UNK], and of all tokens without [CLS] and [SEP], in the texts so far.
    Raises:
        UserError: the path is not a snapshot, or the snapshot has no task, no classifier or no vocabulary.
    """

    def __init__(self, path, device="auto", batch_size=32, seq_length=None, vocab_file=None, log=print):
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
        self._batch_size = batch_size
        engine = plan_engine(select_device(device, log), config.dense_weights, batch_size, self.seq_length)
        shapes = {**encoder_shapes(config), **classifier_shapes(config, self.task.num_labels)}
        variables = Variables(load_values(shapes, snapshot, 0, log=lambda _line: None), engine.device)

        @global_function(type="predict", variables=variables, engine=engine)
        def predict_job(variables, word_rows, input_mask, segment_ids):
            return predict_logits(variables, config, engine.kernels, word_rows, input_mask, segment_ids)

        self._job = predict_job

    def __call__(self, texts):
        """Yields one `Prediction` per text, in order.

        Args:
            texts: iterable of str, or of (str, str) for a task of text pairs. The method reads it in portions, so that any number of
                texts needs little memory.
        Raises:
            UserError: this process was forked after the predictor was made. OneFlow would hang.
            Interrupted: a signal arrived, in a script (modeling/cli/interruption.py).
        """
        check_process("the predictor")
        waiting = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == _BATCHES_AT_ONCE * self._batch_size:
                yield from self._predictions(waiting)
                waiting = []
        if waiting:
            yield from self._predictions(waiting)

    def _predictions(self, texts):
        for row in self._probabilities(texts):
            yield Prediction(self.task.labels[int(row.argmax())], dict(zip(self.task.labels, map(float, row))))

    def _probabilities(self, texts):
        """float64 [N, C]."""
        first, second = ([a for a, _ in texts], [b for _, b in texts]) if self.task.pair else (texts, None)
        encoded = self._tokenizer.encode(first, second, self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(encoded.input_ids, encoded.input_mask)
        self.unknown, self.tokens = self.unknown + unknown, self.tokens + tokens
        needed = encoded.input_mask.sum(axis=1)
        order = np.argsort(needed, kind="stable")
        logits = np.empty((len(texts), self.task.num_labels))
        for start in range(0, len(texts), self._batch_size):
            interruption.check()
            rows = order[start : start + self._batch_size]
            filled = np.resize(rows, self._batch_size)  # the last batch is filled with repeated rows
            length = min([n for n in _LENGTHS if needed[rows[-1]] <= n < self.seq_length], default=self.seq_length)
            batch = {
                "word_rows": encoded.input_ids[filled, :length],  # the model holds the embeddings of the whole vocabulary
                "input_mask": encoded.input_mask[filled, :length],
                "segment_ids": encoded.segment_ids[filled, :length],
            }
            logits[rows] = self._job(batch).numpy()[: len(rows)]
        return probabilities_of(logits)
