"""Which static graphs a run compiles: the lengths that its batches are padded to."""

import numpy as np

from modeling import parallel
from ofrecord_util.batches import choose_lengths, evaluation_needs, padded_length, training_needs

# Rough costs that decide how many batch lengths pay: floating-point operations of a token for each dense weight,
# seconds that a graph takes to compile for each encoder layer, and what two CPU cores compute in a second.
_TRAIN_FLOPS, _PREDICT_FLOPS = 6, 2
_TRAIN_GRAPH_SECONDS, _PREDICT_GRAPH_SECONDS = 0.8, 0.3
_FLOPS_PER_SECOND = 1e11


class GraphPlan:
    """Chooses a run's batch lengths, each of which is a graph to compile, and keeps count of the graphs.

    Args:
        flags: of the script.
        config: `BertConfig`.
    Attributes:
        graphs: list of (trains, batch size of this process, length).
    """

    def __init__(self, flags, config):
        self._flags, self._config = flags, config
        self.graphs = []

    def training_lengths(self, records, batch_size):
        """Lengths that training batches are padded to (see `choose_lengths`); --seq_length alone with --pad_to_max_length."""
        needed = training_needs(records, batch_size, self._flags.num_epochs, self._flags.seed)
        lengths = self._lengths(records, needed, batch_size, _TRAIN_FLOPS, _TRAIN_GRAPH_SECONDS)
        parts = self._flags.gradient_accumulation_steps * parallel.size()
        self.graphs += [(True, batch_size // parts, length) for length in lengths]
        return lengths

    def evaluation_lengths(self, records, batch_size, passes=1):
        """The same for `predict`; `passes` is how often the split is evaluated."""
        needed = np.tile(evaluation_needs(records, batch_size * parallel.size()), passes)
        lengths = self._lengths(records, needed, batch_size, _PREDICT_FLOPS, _PREDICT_GRAPH_SECONDS)
        self.graphs += [(False, batch_size, length) for length in lengths]
        return lengths

    def _lengths(self, records, needed, batch_size, flops, graph_seconds):
        if getattr(self._flags, "pad_to_max_length", False):
            return (records.seq_length,)
        token_seconds = batch_size * flops * self._config.dense_weights / _FLOPS_PER_SECOND
        return choose_lengths(needed, padded_length(records), token_seconds, graph_seconds * self._config.num_hidden_layers)
