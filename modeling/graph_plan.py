"""Which static graphs a run compiles: the sizes of its batches and the lengths that they are padded to."""

from typing import NamedTuple

import numpy as np

from modeling import lanes, parallel
from modeling.flags import evaluation_period
from ofrecord_util.batches import choose_lengths, count_steps, evaluation_needs, padded_length, training_needs

# Rough costs that decide how many batch lengths pay: floating-point operations of a token for each dense weight, seconds that
# a graph takes to compile for each encoder layer in each lane, and what two CPU cores compute in a second.
_TRAIN_FLOPS, _PREDICT_FLOPS = 6, 2
_TRAIN_GRAPH_SECONDS, _PREDICT_GRAPH_SECONDS = 0.8, 0.25
_FLOPS_PER_SECOND = 1e11
_EVALUATION_TOKENS = 512  # of a step on a CPU at least: smaller ones keep its cores waiting


class EvaluationBatches(NamedTuple):
    """How a split is cut up for a predict function."""

    size: int  # samples of a step on each device
    lengths: tuple  # that batches are padded to, ascending


def train_batch_size(flags):
    """Samples of a training step: of all devices and accumulated parts."""
    return flags.batch_size_per_device * flags.gradient_accumulation_steps * parallel.size()


def evaluation_batch_size(wanted, length, device):
    """Samples of an evaluation's step: those of the flag; a CPU takes short texts together, which changes no sample's outcome.

    Args:
        wanted: the flag's.
        length: tokens of the longest text.
        device: "cpu" or "cuda".
    Returns:
        int.
    """
    if device != "cpu" or parallel.size() > 1:
        return wanted
    return max(wanted, _EVALUATION_TOKENS // length)


class GraphPlan:
    """Chooses a run's batch lengths, each of which is a graph to compile, and keeps count of the graphs.

    Args:
        flags: of the script.
        config: `BertConfig`.
        device: "cpu" or "cuda".
    Attributes:
        graphs: list of (trains, batch size of this process, length).
    """

    def __init__(self, flags, config, device):
        self._flags, self._config, self._device = flags, config, device
        self.graphs = []

    def training_lengths(self, records, batch_size):
        """Lengths that training batches are padded to (see `choose_lengths`); --seq_length alone with --pad_to_max_length."""
        needed = training_needs(records, batch_size, self._flags.num_epochs, self._flags.seed)
        lengths = self._lengths(records, needed, batch_size, _TRAIN_FLOPS, _TRAIN_GRAPH_SECONDS)
        parts = self._flags.gradient_accumulation_steps * parallel.size()
        self.graphs += [(True, batch_size // parts, length) for length in lengths]
        return lengths

    def evaluation(self, records, batch_size, train_records=None):
        """`EvaluationBatches` of a split.

        Args:
            records: `Records` of the split.
            batch_size: the flag's.
            train_records: `Records` of a training run that evaluates the split now and then; None for a split that is run over once.
        """
        passes = 1
        if train_records is not None:
            steps = count_steps(len(train_records), self._flags.num_epochs, train_batch_size(self._flags))
            passes += -(-steps // evaluation_period(self._flags))
        longest = padded_length(records, self._pads_to_max_length())
        size = min(evaluation_batch_size(batch_size, longest, self._device), max(batch_size, len(records)))
        needed = np.tile(evaluation_needs(records, size * parallel.size()), passes)
        lengths = self._lengths(records, needed, size, _PREDICT_FLOPS, _PREDICT_GRAPH_SECONDS)
        self.graphs += [(False, size, length) for length in lengths]
        return EvaluationBatches(size, lengths)

    def _lengths(self, records, needed, batch_size, flops, graph_seconds):
        if self._pads_to_max_length():
            return (records.seq_length,)
        token_seconds = batch_size * flops * self._config.dense_weights / _FLOPS_PER_SECOND
        graph_seconds *= self._config.num_hidden_layers * lanes.count()
        return choose_lengths(needed, padded_length(records), token_seconds, graph_seconds)

    def _pads_to_max_length(self):
        return getattr(self._flags, "pad_to_max_length", False)
