"""Selects the static graphs that a run compiles: its batch sizes and the lengths to which batches are padded."""

from typing import NamedTuple

import numpy as np

from modeling.bert.config import MAX
from modeling.cli.flags import evaluation_period
from modeling.engine import parallel
from modeling.run.evaluation import evaluation_batch_size
from modeling.run.optimizer import fewer_epochs
from modeling.run.prediction_rows import can_pack, plan_rows
from modeling.run.resources import Graph
from ofrecord_util.batches import count_steps, evaluation_needs, training_needs
from ofrecord_util.errors import UserError
from ofrecord_util.padded_lengths import LENGTH_STEP, MOST_BUCKETS, bucket_seconds, choose_buckets, padded_length

# Rough costs. They decide how many batch lengths are worth compiling and how many texts share a row: passes over the model, seconds
# of compile time per encoder layer and lane, operations per second of two CPU cores, and the cost of one attention score of a head in
# one layer, in operations
_TRAIN_PASSES, _PREDICT_PASSES = 3, 1
_TRAIN_GRAPH_SECONDS, _PREDICT_GRAPH_SECONDS = 0.28, 0.09
_FLOPS_PER_SECOND = 3e11
_SCORE_FLOPS = 150
_MOST_TEXTS_PER_ROW = 8
_MOST_STEP_ROWS = 2**20  # of a step
_MOST_PASSES = 10_000  # over a split; the time to compile graphs does not count beside that of more
MOST_SAMPLES = 10**8  # of all epochs: the layout is chosen from the batches of the whole run, 8 bytes for each of their samples
# A teacher computes all tokens and returns hidden states and attention scores, which needs more memory: graphs of at most two lengths, each
# with half of the usual tokens
_TEACHER_SHARE, _TEACHER_LENGTHS = 0.5, 2


class TrainingBatches(NamedTuple):
    """The layout of a training step's texts in its arrays."""

    per_row: int  # texts that share a row
    lengths: tuple  # lengths to which rows are padded, ascending
    parts: int = 1  # parts in which a step is computed (modeling/engine/accumulation.py)

    @classmethod
    def from_list(cls, values):
        """The layout from the list in a state."""
        per_row, lengths, parts = values
        return cls(per_row, tuple(lengths), parts)

    def to_dict(self):
        """The values for flags.json."""
        return {"texts_per_row": self.per_row, "lengths": self.lengths, "parts_per_step": self.parts}


class EvaluationBatches(NamedTuple):
    """The batches of a split for a predict function: one sample per row, or packed rows."""

    size: int  # samples per step and device with one sample per row
    lengths: tuple  # lengths to which these are padded, ascending
    packed: tuple = ()  # `Rows` of packed batches, ascending by length; empty for one sample per row


def train_batch_size(flags, name="batch_size_per_device", what="samples"):
    """Samples, or episodes, per training step, over all devices and accumulated parts.

    Args:
        name: of the flag with their number per device and part.
        what: they are, for the message.
    Raises:
        UserError: they are too many.
    """
    per_part, parts, devices = getattr(flags, name), flags.gradient_accumulation_steps, parallel.size()
    total = per_part * parts * devices
    if total > _MOST_STEP_ROWS:
        where = f" on {devices} devices" if devices > 1 else ""
        raise UserError(
            f"--{name} {per_part}, --gradient_accumulation_steps {parts}{where}: a step would have {total:,} {what}, more than "
            f"{_MOST_STEP_ROWS:,}: give smaller numbers"
        )
    return total


class Bucketing:
    """Chooses the batch lengths of a run and lists the graphs. Each length is one graph to compile.

    Args:
        flags: flags of the script.
        config: `BertConfig`.
        engine: `Engine`.
    Attributes:
        graphs: list of `Graph`, whose rows are those of this process.
    """

    def __init__(self, flags, config, engine):
        self._flags, self._config, self._engine = flags, config, engine
        self.graphs = []

    def training(self, records, batch_size, may_share=False, planned=None, memory=None, together=1, needed=None):
        """`TrainingBatches` of a split. With --pad_to_max_length the only length is --seq_length.

        Args:
            records: `Records` of the split.
            batch_size: samples per step, over all devices and accumulated parts.
            may_share: whether the objective supports several texts per row.
            planned: `TrainingBatches` of the run that --resume continues, or None.
            memory: `MemoryPlan`, None if the memory does not matter. A step is computed in as many parts as fit into its limit. Other
                lengths and another number of texts per row are taken only if no number of parts fits. If nothing fits, the choice is the
                one that needs the least memory.
            together: number of consecutive texts of a batch that the objective compares. Parts have whole groups of them.
            needed: int [steps], tokens of the longest text in each step; None for the steps of epochs.
        Raises:
            UserError: the value of --texts_per_row is not possible, or the epochs have too many samples.
        """
        chosen = planned or self._choose(records, batch_size, self._texts_per_row(records, may_share), memory, together, needed)
        self.graphs += self._training_graphs(batch_size, chosen)
        return chosen

    def _training_graphs(self, batch_size, layout):
        rows = batch_size // parallel.size() // layout.parts // layout.per_row
        return [Graph(True, rows, length) for length in layout.lengths]

    def _choose(self, records, batch_size, texts_per_row, memory, together=1, longest=None):
        """The fastest layout, in as many parts as fit. The layout decides which samples share a row and the shapes of the dropout masks, so
        the memory changes it only if it fits in no number of parts."""
        epochs, seed = self._flags.num_epochs, self._flags.seed
        if longest is None and len(records) * epochs > MOST_SAMPLES:
            raise UserError(
                f"--num_epochs {epochs}: {epochs} passes over {len(records)} samples are more than {MOST_SAMPLES:,} samples; give "
                + fewer_epochs(len(records), batch_size, MOST_SAMPLES)
            )
        layouts = []  # (estimated seconds, `TrainingBatches` in one part per accumulated batch)
        for per_row in texts_per_row:
            needed = training_needs(records, batch_size, epochs, seed, per_row) if longest is None else longest
            layouts += [self._estimate(records, batch_size, needed, per_row, most) for most in range(MOST_BUCKETS, 0, -1)]
        least = None  # (bytes above the limit, number of the layout, `TrainingBatches`)
        for number, (_, layout) in enumerate(sorted(layouts)):
            for parts in self._numbers_of_parts(batch_size // together, layout.per_row, memory):
                divided = layout._replace(parts=parts)
                graphs = self._training_graphs(batch_size, divided)
                excess = max(0.0, memory.needed(self.graphs + graphs, parts) - memory.limit) if memory else 0.0
                least = min(filter(None, (least, (excess, number, divided))))
                if not excess:
                    return divided
        return least[2]

    def _numbers_of_parts(self, batch_size, per_row, memory):
        """The numbers of parts to choose from, ascending."""
        accumulated = self._flags.gradient_accumulation_steps
        if memory is None or not self._engine.sums_gradients:
            return [accumulated]
        rows = batch_size // per_row
        return [number for number in range(accumulated, rows + 1, accumulated) if rows % number == 0]

    def _estimate(self, records, batch_size, needed, per_row, most):
        """(estimated seconds of a run, `TrainingBatches`) with at most `most` lengths."""
        longest = padded_length(records) if per_row == 1 else -(-int(needed.max()) // LENGTH_STEP) * LENGTH_STEP
        parts, lanes = self._flags.gradient_accumulation_steps, self._engine.lanes.count
        count = parts * parallel.size()
        rows = -(-batch_size // count // per_row // lanes) * lanes  # a lane with fewer rows waits for the others
        costs = self._costs(count * rows, _TRAIN_PASSES, _TRAIN_GRAPH_SECONDS)
        lengths = self._lengths(records, needed, longest, costs, most)
        return bucket_seconds(lengths, needed, *costs), TrainingBatches(per_row, lengths, parts)

    def _texts_per_row(self, records, may_share):
        """The numbers of texts per row to choose from."""
        wanted, batch_size = getattr(self._flags, "texts_per_row", 1), self._flags.batch_size_per_device
        may_share = may_share and not self._pads_to_max_length() and not _has_holes(records) and self._config.pooling != MAX
        if wanted > 1:
            if batch_size % wanted:
                raise UserError(f"--texts_per_row {wanted}: does not divide --batch_size_per_device {batch_size}")
            if not may_share:
                raise UserError(
                    f"--texts_per_row {wanted}: not possible with --pad_to_max_length, --pooling max, or records whose masks have gaps: "
                    "leave the flag out"
                )
            return [wanted]
        if wanted == 1 or not may_share or self._engine.device != "cpu":
            return [1]
        most = min(_MOST_TEXTS_PER_ROW, max(1, batch_size // self._engine.lanes.count))
        return [number for number in range(1, most + 1) if batch_size % number == 0]

    def evaluations(self, splits, batch_sizes, train_records=None):
        """`EvaluationBatches` of the splits that one predict function computes.

        Args:
            splits: dict of split -> its `Records` or `Samples`.
            batch_sizes: dict of split -> value of the batch size flag.
            train_records: training `Records` of a run that evaluates dev periodically; None if each split is evaluated once.
        Returns:
            dict of split -> `EvaluationBatches`. Splits that share rows have the same shapes.
        """
        if not splits or not all(map(self._packs, splits.values())):
            return {
                split: self.evaluation(records, batch_sizes[split], train_records if split == "dev" else None)
                for split, records in splits.items()
            }
        lengths = np.concatenate([records.lengths for records in splits.values()])
        return dict.fromkeys(splits, self._packed(lengths, self._passes(train_records)))

    def evaluation(self, records, batch_size, train_records=None, may_share=False, all_tokens=False):
        """`EvaluationBatches` of a split.

        Args:
            records: `Records` of the split.
            batch_size: value of the batch size flag.
            train_records: training `Records` of a run that evaluates the split periodically; None for a split that is evaluated once.
            may_share: whether the predict function takes several texts per row, as `predict` passes them.
            all_tokens: whether the function needs the last layer for all tokens.
        """
        passes = self._passes(train_records)
        if may_share and self._packs(records):
            return self._packed(records.lengths, passes, all_tokens)
        return self._padded((records,), batch_size, passes, all_tokens)

    def teacher(self, splits, batch_size, returned):
        """`EvaluationBatches` of a teacher, for all splits: one sample per row, in graphs of at most two lengths.

        Args:
            splits: list of `Records` or `Samples`.
            batch_size: value of the batch size flag.
            returned: function of the length -> float32 values per token that the teacher returns.
        """
        return self._padded(splits, batch_size, 1, True, returned, _TEACHER_SHARE, _TEACHER_LENGTHS)

    def _padded(self, splits, batch_size, passes, all_tokens, returned=None, share=1.0, most=MOST_BUCKETS):
        """`EvaluationBatches` of splits with one sample per row."""
        padded = max(padded_length(records, self._pads_to_max_length()) for records in splits)
        size = evaluation_batch_size(batch_size, padded, self._engine, self._config, share)
        if self._engine.device == "cpu":
            size = min(size, max(self._engine.lanes.count, *map(len, splits)))
        needed = np.tile(np.concatenate([evaluation_needs(records, size * parallel.size()) for records in splits]), passes)
        longest, costs = max(map(padded_length, splits)), self._costs(size, _PREDICT_PASSES, _PREDICT_GRAPH_SECONDS)
        lengths = self._lengths(splits[0], needed, longest, costs, most)
        self.graphs += [Graph(False, size, length, all_tokens, returned(length) if returned else 0) for length in lengths]
        return EvaluationBatches(size, lengths)

    def _passes(self, train_records):
        """How often a run evaluates a split, for the choice of its lengths."""
        if train_records is None:
            return 1
        steps = count_steps(len(train_records), self._flags.num_epochs, train_batch_size(self._flags))
        return min(1 - (-steps // evaluation_period(self._flags)), _MOST_PASSES)

    def _packs(self, records):
        """Whether the texts of a prediction may share rows."""
        return can_pack(self._config, self._engine.device) and not self._pads_to_max_length() and not _has_holes(records)

    def _packed(self, lengths, passes, all_tokens=False):
        shapes = plan_rows(lengths, self._config, self._engine.lanes.count, passes=passes)
        self.graphs += [Graph(False, shape.number, shape.length, all_tokens) for shape in shapes]
        return EvaluationBatches(0, (), shapes)

    def _costs(self, rows, passes, graph_seconds):
        """Estimated seconds of one token in each of `rows` rows, of one graph, and of one pair of tokens in each row."""
        config = self._config
        token = 2 * config.dense_weights
        pair = config.num_hidden_layers * (4 * config.hidden_size + _SCORE_FLOPS * config.num_attention_heads)
        factor = rows * passes / _FLOPS_PER_SECOND
        return factor * token, graph_seconds * config.num_hidden_layers * self._engine.lanes.count, factor * pair

    def _lengths(self, records, needed, longest, costs, most=MOST_BUCKETS):
        if self._pads_to_max_length():
            return (records.seq_length,)
        return choose_buckets(needed, longest, *costs, most=most)

    def _pads_to_max_length(self):
        return getattr(self._flags, "pad_to_max_length", False)


def _has_holes(records):
    """Whether a record has padding between its tokens."""
    return bool((records.input_mask.sum(axis=1) != records.lengths).any())
