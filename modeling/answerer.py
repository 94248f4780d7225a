"""`Answerer`: answers questions about texts with a snapshot of recipes/span_answering.py."""

import numpy as np

from modeling.bert.names import SPAN_HEAD
from modeling.bert.variables import dense_head_shapes, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot, find_snapshot
from modeling.cli.choices import WINDOW_TOKENS
from modeling.engine.global_function import global_function
from modeling.objectives.tokens import predict_spans
from modeling.run.answering import find_answers
from modeling.run.model_loading import shapes_without_pooler
from modeling.text_model import TextModel
from ofrecord_util.answer_windows import WindowForm, windows_of
from ofrecord_util.encoding import Encoded
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.question_text import PLACES, QuestionSplit


class Answerer(TextModel):
    """A snapshot as a function of questions and contexts.

        answerer = Answerer("output/…/snapshot_best_answers_model_squad_dev_0.85")
        for answers in answerer([("Where does Ann live?", "Ann lives in Oslo.")]):
            print(answers[0]["text"], answers[0]["probability"])

    Args:
        path: snapshot, or the folder of a run with a single best snapshot.
        doc_stride, max_query_length: as the flags of recipes/span_answering.py; None for those of the training, or WINDOW_TOKENS if the
            snapshot does not have them.
        n_best_size, max_answer_length, no_answer: as the flags of recipes/span_answering.py.
        log, further: as of `TextModel`.
    Raises:
        UserError: the path is not a snapshot, the snapshot finds no answers, or no window has room for `doc_stride` tokens.
    """

    _name = "the answerer"

    def __init__(
        self, path, doc_stride=None, max_query_length=None, n_best_size=20, max_answer_length=30, no_answer=False, log=say, **further
    ):
        snapshot = Snapshot(find_snapshot(path))
        if not set(SPAN_HEAD) <= set(snapshot.sizes):
            raise UserError(f"{snapshot.path}: has no head that finds answers: give a snapshot of recipes/span_answering.py")
        config = snapshot.config()
        head = dense_head_shapes(config, SPAN_HEAD, len(PLACES))
        shapes = {**shapes_without_pooler(config, None), **head}
        super().__init__(snapshot, config, shapes, {**encoder_shapes(config), **head}, log=log, **further)
        given, stored = {"doc_stride": doc_stride, "max_query_length": max_query_length}, snapshot.task() or {}
        windows = {name: stored.get(name) or WINDOW_TOKENS if value is None else value for name, value in given.items()}
        self._form, engine = WindowForm(**windows), self._engine
        self._found = n_best_size, max_answer_length, no_answer
        self._form.check_stride(self._tokenizer, self.seq_length)

        @global_function(type="predict", variables=self._variables, engine=engine)
        def predict_job(variables, **text):
            return predict_spans(variables, config, engine.kernels, **text)

        self._job = predict_job

    def __call__(self, questions):
        """Yields the best answers to each question, in order: a list of dicts with "text", "probability", "score", and "start" and "end",
        its first and last + 1 character in the context. The best one is first; "" stands for no answer.

        Args:
            questions: iterable of (question, context). The method reads it in portions, so that any number of them needs little memory.
        Raises:
            UserError: as of `Predictor.__call__`, or the windows do not fit --seq_length.
        """
        for portion in self._portions(questions):
            with self._lock:
                found = self._answer(portion)
            yield from found.nbest

    def _answer(self, questions):
        zeros = np.zeros(len(questions), np.int32)
        ids, nothing = list(map(str, range(len(questions)))), [()] * len(questions)
        first, second = ([question[place] for question in questions] for place in (0, 1))
        text = QuestionSplit("", first, second, zeros, zeros, "", ids=ids, answers=nothing)
        records, cut = self._form.encode(text, self._tokenizer, self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(records.input_ids, records.input_mask)
        self.unknown, self.tokens = self.unknown + unknown, self.tokens + tokens
        encoded = Encoded(records.input_ids, records.input_mask, records.segment_ids, cut)
        return find_answers(self._padded(self._job, encoded, records.lengths), windows_of(records, text), *self._found)
