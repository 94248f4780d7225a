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

from typing import NamedTuple, Optional, Union

import numpy as np

from modeling.bert.config import MEAN
from modeling.bert.encoder import build_bert
from modeling.bert.names import CLASSIFIER
from modeling.bert.pooling import pool
from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.checkpoints.snapshot import TASK_FILE, Snapshot, find_snapshot, stored_task
from modeling.engine.global_function import global_function
from modeling.objectives.mft import predict_logits
from modeling.run.domain_prototypes import DomainPrototypes
from modeling.run.task_outputs import outputs_of
from modeling.text_model import TextModel
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.label_kinds import CLASSIFICATION


class Prediction(NamedTuple):
    """A model's prediction for one text."""

    label: Union[str, float, tuple]  # of a regression the number, of sets of labels those with a probability above 0.5
    probabilities: dict  # label -> probability, in the task's order; {} of a regression
    text: Union[str, tuple] = ""  # or two texts, for a task of pairs
    domain_scores: Optional[dict] = None  # domain -> cosine similarity, after `Predictor.compare_domains`

    def to_dict(self) -> dict:
        """The prediction for JSON: text (or a list of two), label (labels, a list, of sets of labels), probabilities if there are some, and
        domain_scores if there are some."""
        found = {"text": self.text if isinstance(self.text, str) else list(self.text)}
        found.update({"labels": list(self.label)} if isinstance(self.label, tuple) else {"label": self.label})
        found.update({"probabilities": self.probabilities} if self.probabilities else {})
        return found if self.domain_scores is None else {**found, "domain_scores": self.domain_scores}


class Outputs(NamedTuple):
    """What a model computes for N texts."""

    probabilities: np.ndarray  # float64 [N, C]; of a regression the number, [N, 1]
    domain_scores: Optional[np.ndarray] = None  # float64 [N, K]


class Predictor(TextModel):
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

    _name = "the predictor"

    def __init__(self, path, device="auto", batch_size=32, seq_length=None, vocab_file=None, log=say, memory_limit=None, announce=None):
        path = find_snapshot(path)
        snapshot = Snapshot(path)
        stored = stored_task(snapshot)
        if stored is None or not set(CLASSIFIER) <= set(snapshot.sizes):
            missing = TASK_FILE if stored is None else CLASSIFIER[0]
            raise UserError(f"{path}: no {missing}, so it has no labels to predict: give a snapshot of a training step")
        self.task, config = stored, snapshot.config()
        shapes = {**encoder_shapes(config), **classifier_shapes(config, self.task.num_labels)}
        super().__init__(snapshot, config, shapes, None, device, batch_size, seq_length, vocab_file, log, memory_limit, announce)
        variables, engine = self._variables, self._engine

        @global_function(type="predict", variables=variables, engine=engine)
        def predict_job(variables, **text):
            return predict_logits(variables, config, engine.kernels, **text)

        # The last layers of a trained model separate labels and forget domains: of 600 test texts of three domains, the nearest prototype
        # was that of the right domain for 49 % in the last of 6 layers and for 87 % in the second
        first_third = config.of_layers(range(max(1, config.num_hidden_layers // 3)))

        @global_function(type="predict", variables=variables, engine=engine)
        def embed_job(variables, **text):
            bert = build_bert(variables, first_third, engine.kernels.for_prediction, **text)
            return pool(bert.hidden_states[-1], text["input_mask"], MEAN, engine.device, text.get("starts"))  # e(x), [B, H]

        self._job, self._embed_job, self._domains = predict_job, embed_job, None

    def __call__(self, texts):
        """Yields one `Prediction` per text, in order.

        Args:
            texts: iterable of str, or of (str, str) for a task of text pairs. The method reads it in portions, so that any number of
                texts needs little memory.
        Raises:
            UserError: `texts` is one text, or something in it is no text; this process was forked after the predictor was made, so that
                OneFlow would hang; the predictions are not finite, or need more memory than they may use.
            Interrupted: a signal arrived, in a script (modeling/cli/interruption.py).
        """
        for portion in self._portions(texts):
            yield from self._predictions(portion)

    def _predictions(self, texts):
        with self._lock:
            found = self.postprocess(texts, self.predict(self.preprocess(texts)))
        if len(found) != len(texts):
            raise UserError(f"{type(self).__name__}.postprocess returned {len(found)} predictions for {len(texts)} texts")
        return found

    def predict(self, encoded):
        """The `Outputs` of the model for an `Encoded` of N texts.

        Raises:
            UserError: a number is not finite.
        """
        logits = self._run(self._job, encoded, self.task.num_labels)
        wrong = np.count_nonzero(~np.isfinite(logits).all(axis=1))
        if wrong:
            raise UserError(f"{self.path}: the logits of {wrong} of {len(logits)} texts are not finite: give another snapshot")
        probabilities = outputs_of(self.task).outputs(logits)
        return Outputs(probabilities, None if self._domains is None else self._domains.scores(self._embed(encoded)))

    def postprocess(self, texts, outputs):
        """One `Prediction` per text, as a list.

        Args:
            texts: as in `preprocess`.
            outputs: `Outputs`.
        """
        labels, scores, rules = self.task.labels, outputs.domain_scores, outputs_of(self.task)
        found = []
        for position, (text, row) in enumerate(zip(texts, outputs.probabilities)):
            by_domain = None if scores is None else dict(zip(self._domains.names, map(float, scores[position])))
            probabilities = dict(zip(labels, map(float, row))) if rules.has_probabilities else {}
            found.append(Prediction(rules.label(row, labels), probabilities, text, by_domain))
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
            # without classes, a domain has one prototype
            label = texts.label if task.task_type == CLASSIFICATION else np.zeros(len(texts), np.int32)
            parts = [self._embed(self.preprocess(portion)) for portion in self._portions(given)]
            self._domains = DomainPrototypes(np.concatenate(parts), texts.domain, label, task.domains, task.num_labels)
            self.unknown = self.tokens = 0

    def _embed(self, encoded):
        """e(x) of each text in the first third of the encoder, [N, H]."""
        return self._run(self._embed_job, encoded, self._config.hidden_size)
