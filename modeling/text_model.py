"""A snapshot as functions of texts: what predictions (modeling/predictor.py) and vectors (modeling/embedder.py) share.

Texts are read in portions, so that any number of them needs little memory. On a CPU they share rows; each shape of a batch is one more
graph to compile, so there are few.
"""

import math
import re
import threading
from collections.abc import Iterable, Mapping

import numpy as np

from modeling.bert.config import CLS
from modeling.bert.names import POOLER
from modeling.bert.variables import Variables, load_values
from modeling.checkpoints.snapshot import VOCAB_FILE, stored_task
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.cli import interruption
from modeling.cli.choices import DEVICES
from modeling.engine.cpu_threads import cpu_threads
from modeling.engine.engine import plan_engine
from modeling.engine.runtime import check_process, select_device
from modeling.run.evaluation import predict_packed
from modeling.run.prediction_rows import can_pack, plan_rows, shape_for
from modeling.run.resources import FREE_SOME, Graph, MemoryPlan, Model, announcement, check_memory
from modeling.run.resources import memory_limit as limit_in_bytes
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.on_demand import OnDemand
from ofrecord_util.packing import Rows

_LENGTHS = (32, 128)  # batch lengths below the model's own length on a GPU; each length in use is one more graph to compile
_ROW = 128  # tokens of the rows for few texts on a CPU, and of the rows for texts that the first rows have no room for
_SURROGATE = re.compile("[\ud800-\udfff]")
_BATCHES_AT_ONCE = 64  # number of batches that are read and sorted by length at a time


def _check_settings(device, batch_size, seq_length, memory_limit):
    """Raises a UserError where a setting is none that the flag of its name takes."""
    if device not in DEVICES:
        raise UserError(f"--device {device!r}: is none of {', '.join(DEVICES)}")
    for flag, value in (("batch_size", batch_size), ("seq_length", seq_length)):
        if not isinstance(value, (int, np.integer)) and (value is not None or flag == "batch_size"):
            raise UserError(f"--{flag} {value!r}: is not an integer")
        if value is not None and value < 1:
            raise UserError(f"--{flag} {value}: is not 1 or more")
    if memory_limit is not None and not (isinstance(memory_limit, (int, float)) and 0 < memory_limit < math.inf):
        raise UserError(f"--memory_limit {memory_limit!r}: is not a number of GB above 0")


class TextModel:
    """The variables of a snapshot, its tokenizer, and batches of texts. A subclass has the functions that run on them.

    Args:
        snapshot: `Snapshot`.
        config: `BertConfig` of the graphs. It may have fewer layers than the snapshot.
        shapes: dict of name -> shape of the variables that the graphs need.
        stored_shapes: the same for all variables that the snapshot may have; None for `shapes`.
        device: auto, cuda or cpu.
        batch_size: texts per batch on a GPU. On a CPU texts share the rows of batches whose size the model determines
            (modeling/run/prediction_rows.py). Everywhere, 64 times this number of texts are read at a time.
        seq_length: maximum number of tokens per text; longer texts are truncated. None for the length used in training, or without a
            training the number of positions.
        vocab_file: path of a vocabulary; None for the snapshot's own.
        log: called with one line about the device if there is something to report.
        memory_limit: GB of memory that the process may use on a CPU; None for nine tenths of the free memory.
        announce: None, or a function that is called with one line about the memory before a graph is compiled on a CPU.
    Attributes:
        path: the snapshot folder.
        pair: whether a text is a (str, str).
        seq_length: int.
        unknown, tokens: number of [UNK], and of all tokens without [CLS] and [SEP], in the texts so far.
    Raises:
        UserError: the snapshot has no vocabulary, the length is not one of the model's, or another argument is out of its range.
    """

    _name = "the model"  # in messages

    def __init__(
        self,
        snapshot,
        config,
        shapes,
        stored_shapes=None,
        device="auto",
        batch_size=32,
        seq_length=None,
        vocab_file=None,
        log=say,
        memory_limit=None,
        announce=None,
    ):
        _check_settings(device, batch_size, seq_length, memory_limit)
        self.path, stored = snapshot.path, snapshot.task() or {}
        task = stored_task(snapshot)
        if vocab_file is None and snapshot.vocab_file() is None:
            raise UserError(f"{self.path}: no {VOCAB_FILE}: give --vocab_file")
        self.pair = task is not None and task.pair
        self.seq_length = seq_length or stored.get("seq_length") or config.max_position_embeddings
        if self.pair:
            config.check_pairs(self.path)
        if not 5 <= self.seq_length <= config.max_position_embeddings:
            raise UserError(
                f"--seq_length {self.seq_length}: the model has {config.max_position_embeddings} positions: give 5 up to this number"
            )
        self._tokenizer = open_tokenizer(snapshot, config, vocab_file, log=log)
        self.unknown = self.tokens = 0
        self._batch_size, self._config = batch_size, config
        device = select_device(device, log)
        self._packs, self._shapes = can_pack(config, device), []  # `Rows` of the compiled graphs, in the order in which they were needed
        self._engine = plan_engine(device, config.dense_weights, max(batch_size, cpu_threads()), self.seq_length)
        unread = POOLER + "-" if config.pooling != CLS else None  # only pooling at [CLS] reads the pooler
        lacking = [name for name in shapes if name not in snapshot.sizes and not (unread and name.startswith(unread))]
        if lacking:
            raise UserError(f"{self.path}: no {lacking[0]}, which predictions need: train the model from this snapshot first")
        values = load_values(stored_shapes or shapes, snapshot, 0, log=lambda _line: None)
        self._variables = Variables(OnDemand(shapes, values.__getitem__), self._engine.device, shapes=shapes)
        self._lock = threading.RLock()
        model = Model(config, self._variables.in_memory())
        self._memory = MemoryPlan(model, self._engine.lanes, limit_in_bytes(memory_limit)) if device == "cpu" else None
        self._graphs, self._announce = [], announce  # pairs of a job and a `Graph`

    def _portions(self, texts):
        """Yields lists of texts that are computed together, in order. Each but the last has 64 batches.

        Raises:
            UserError: `texts` is one text or no list of texts, or this process was forked after the model was loaded, so that OneFlow would
                hang.
        """
        check_process(self._name)
        if isinstance(texts, (str, bytes)):
            raise UserError(f"{self._name} takes a list of texts, not one text: put it into brackets")
        if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
            raise UserError(f"{self._name} takes a list of texts, not {type(texts).__name__}")
        waiting = []
        for text in texts:
            waiting.append(text)
            if len(waiting) == _BATCHES_AT_ONCE * self._batch_size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def preprocess(self, texts):
        """The model's input for some texts.

        Args:
            texts: list of N str, or of (str, str) for a task of text pairs.
        Returns:
            `Encoded`, [N, S].
        Raises:
            UserError: one of them is no text.
        """
        for number, text in enumerate(texts, 1):
            self._check_text(f"text {number} of {len(texts)} that are read together", text)
        first, second = ([a for a, _ in texts], [b for _, b in texts]) if self.pair else (texts, None)
        encoded = self._tokenizer.encode(first, second, self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(encoded.input_ids, encoded.input_mask)
        self.unknown, self.tokens = self.unknown + unknown, self.tokens + tokens
        return encoded

    def _check_text(self, place, text):
        """Raises a UserError if `text` is not a str, or for text pairs not two of them. A str of two characters is no pair."""
        if self.pair and (not isinstance(text, (tuple, list)) or len(text) != 2):
            raise UserError(f"{self._name}: {place} is {text!r:.60}: the model was trained for pairs of texts: give (str, str)")
        for part in text if self.pair else (text,):
            if not isinstance(part, str):
                raise UserError(f"{self._name}: {place} is {part!r:.60}, which is {type(part).__name__}, not str")
            if not part.isascii() and _SURROGATE.search(part):
                raise UserError(f"{self._name}: {place} ({part!r:.60}) has half of a surrogate pair, which no text in UTF-8 has")

    def _run(self, job, encoded, width, dtype=np.float64):
        """The outputs of a job for N texts, [N, width]."""
        lengths = encoded.input_mask.sum(axis=1)
        found = np.empty((len(lengths), width), dtype)
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
