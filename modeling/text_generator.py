"""Generates texts with a PALM. The snapshot folder contains all that is needed: weights, sizes and vocabulary.

generator = TextGenerator("output/questions")
for generated in generator(["a source", "another source"]):
    print(generated.text, generated.score)
"""

import numpy as np

from modeling.bert.names import DECODER_PREFIX
from modeling.bert.variables import Variables, load_values
from modeling.checkpoints.snapshot import Snapshot, find_snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from modeling.engine.lanes.plan import Lanes
from modeling.engine.runtime import check_process, select_device
from modeling.palm.beam_search import Search
from modeling.palm.config import PalmConfig
from modeling.palm.variables import palm_shapes
from modeling.run.generation import Generator
from modeling.run.resources import FREE_SOME, MemoryPlan, Model, check_memory, memory_limit
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.on_demand import OnDemand
from ofrecord_util.target_records import padded_rows, source_ids

_LENGTHS = (32, 128)  # lengths of sources below the longest; each length in use is one more graph to compile
_BATCHES_AT_ONCE = 8  # that are read at a time
_DEFAULT_LENGTHS = 128, 100  # of sources and targets, of a model that has not been trained here
_CACHES = 1.5e9  # bytes of the arrays of a step, see `modeling.run.generation`


class TextGenerator:
    """A snapshot of recipes/generation.py, or a converted PALM, as a function from sources to texts.

    Args:
        path: snapshot folder, or the folder of a run with one best snapshot.
        search: `Search`; None for the defaults. A max_length of None is that of the training.
        device: auto, cuda or cpu.
        batch_size: sources per batch at most.
        seq_length: maximum number of tokens per source; longer ones are truncated. None for the length used in training.
        vocab_file: path of a vocabulary; None for the snapshot's own.
        log: called with one line about the device if there is something to report.
        limit: GB of memory that the process may use on a CPU; None for nine tenths of the free memory.
    Attributes:
        path: the snapshot folder.
        search: `Search`.
        seq_length: int.
        unknown, tokens: number of [UNK], and of all tokens without [CLS] and [SEP], in the sources so far.
    Raises:
        UserError: the path is not a snapshot of a PALM, a length is above the model's positions, or there is not enough memory.
    """

    def __init__(self, path, search=None, device="auto", batch_size=16, seq_length=None, vocab_file=None, log=say, limit=None):
        path = find_snapshot(path)
        snapshot = Snapshot(path)
        if not any(name.startswith(DECODER_PREFIX) for name in snapshot.sizes):
            raise UserError(f"{path}: has no decoder: give a snapshot of recipes/generation.py, or a converted PALM")
        self.path, config, stored = path, snapshot.config(kind=PalmConfig), snapshot.task() or {}
        source, target = (stored.get(name, default) for name, default in zip(("seq_length", "target_length"), _DEFAULT_LENGTHS))
        positions = config.max_position_embeddings
        self.seq_length = seq_length or min(source, positions)
        search = search or Search(max_length=None)
        self.search = search if search.max_length is not None else search._replace(max_length=min(target - 1, positions))
        for name, length in (("seq_length", self.seq_length), ("max_length", self.search.max_length)):
            if not (3 if name == "seq_length" else 1) <= length <= positions:
                raise UserError(f"--{name} {length}: the model has {positions} positions, and a source has at least 3 tokens")
        self.search.check()
        self._tokenizer = open_tokenizer(snapshot, config, vocab_file, log=log)
        device = select_device(device, log)
        shapes, stored_shapes = palm_shapes(config), palm_shapes(config, snapshot.sizes)  # no text needs the heads of pre-training
        values = load_values(stored_shapes, snapshot, 0, log=lambda _line: None)
        self._variables = Variables(OnDemand(shapes, values.__getitem__), device, shapes=shapes)
        if device == "cpu":
            plan = MemoryPlan(Model(config, self._variables.in_memory()), Lanes(), memory_limit(limit))
            check_memory(plan.needed([]) + _CACHES, plan.limit, FREE_SOME)
        self._generator = Generator(self._variables, config, self._tokenizer, device, self.search, batch_size)
        self._batch_size, self.unknown, self.tokens = batch_size, 0, 0

    def __call__(self, sources):
        """Yields one `Generated` per source, in order.

        Args:
            sources: iterable of str. The method reads it in portions, so that any number of them needs little memory.
        Raises:
            UserError: `sources` is one text, or this process was forked after the generator was made, so that OneFlow would hang.
            Interrupted: a signal arrived, in a script.
        """
        check_process("the generator")
        if isinstance(sources, str):
            raise UserError("the generator takes a list of texts, not one text: put it into brackets")
        waiting = []
        for source in sources:
            waiting.append(source)
            if len(waiting) == _BATCHES_AT_ONCE * self._batch_size:
                yield from self._generate(waiting)
                waiting = []
        if waiting:
            yield from self._generate(waiting)

    def _generate(self, sources):
        ids, mask, _ = padded_rows(self._tokenizer, source_ids(self._tokenizer, sources), self.seq_length)
        unknown, tokens = self._tokenizer.count_unknown(ids, mask)
        self.unknown, self.tokens = self.unknown + unknown, self.tokens + tokens
        lengths = mask.sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        choices = [*(length for length in _LENGTHS if length < self.seq_length), self.seq_length]
        widths = np.array(choices)[np.searchsorted(choices, lengths)]
        found = [None] * len(sources)
        for width in np.unique(widths).tolist():
            rows = order[widths[order] == width]
            for row, generated in zip(rows.tolist(), self._generator(ids[rows, :width], mask[rows, :width], len(sources))):
                found[row] = generated
        return found
