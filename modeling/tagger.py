"""`Tagger`: tags the words of sentences with a snapshot of recipes/sequence_labeling.py."""

import numpy as np

from modeling.bert.names import TAG_HEAD
from modeling.bert.variables import dense_head_shapes, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot, find_snapshot, stored_task
from modeling.engine.global_function import global_function
from modeling.objectives.tokens import predict_tags
from modeling.run.model_loading import shapes_without_pooler
from modeling.run.tagging import Tagged, predict_words
from modeling.run.task_outputs import check_logits
from modeling.text_model import TextModel
from ofrecord_util.encoding import Encoded
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.tagging import split_words


class Tagger(TextModel):
    """A snapshot as a function of sentences.

        tagger = Tagger("output/…/snapshot_best_tags_model_names_dev_0.93")
        for tags in tagger([["Ann", "sleeps"], ["Oslo"]]):
            print(tags)

    Args:
        path: snapshot, or the folder of a run with a single best snapshot.
        log, further: as of `TextModel`.
    Attributes:
        task: the `Task` of the snapshot; its labels are the tags.
        cut: number of words so far that had no token: those after --seq_length, and those of control characters. Their tag is O.
    Raises:
        UserError: the path is not a snapshot, or the snapshot tags no words.
    """

    _name = "the tagger"

    def __init__(self, path, log=say, **further):
        snapshot = Snapshot(find_snapshot(path))
        self.task, config, self.cut = stored_task(snapshot), snapshot.config(), 0
        if self.task is None or not set(TAG_HEAD) <= set(snapshot.sizes):
            raise UserError(f"{snapshot.path}: has no head that tags words: give a snapshot of recipes/sequence_labeling.py")
        head = dense_head_shapes(config, TAG_HEAD, self.task.num_labels)
        shapes = {**shapes_without_pooler(config, None), **head}
        super().__init__(snapshot, config, shapes, {**encoder_shapes(config), **head}, log=log, **further)
        engine = self._engine

        @global_function(type="predict", variables=self._variables, engine=engine)
        def predict_job(variables, **text):
            return predict_tags(variables, config, engine.kernels, **text)

        self._job = predict_job

    def __call__(self, sentences):
        """Yields the tags of each sentence, lists of str, in order.

        Args:
            sentences: iterable of lists of words. The method reads it in portions, so that any number of sentences needs little memory.
        Raises:
            UserError: as of `Predictor.__call__`.
        """
        for portion in self._portions(sentences):
            with self._lock:
                found = self._tag(portion)
            yield from found.tags(portion, self.task.labels)

    def _tag(self, sentences) -> Tagged:
        pieces = split_words(self._tokenizer, sentences, self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(pieces.input_ids, pieces.input_mask)
        self.unknown, self.tokens, self.cut = self.unknown + unknown, self.tokens + tokens, self.cut + pieces.cut
        encoded = Encoded(pieces.input_ids, pieces.input_mask, np.zeros_like(pieces.input_ids), pieces.cut)
        found = predict_words(self._padded(self._job, encoded, pieces.input_mask.sum(axis=1)), pieces.words)
        check_logits(found.logits)
        return found
