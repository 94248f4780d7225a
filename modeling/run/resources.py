"""Estimates the memory that a run needs, reads how much is free, and refuses runs that do not fit."""

import os
from typing import NamedTuple

from modeling.bert.config import BERT, PALM, BertConfig
from modeling.bert.dropout import DropoutPlan
from modeling.engine import parallel
from modeling.objectives.smoothness import smoothness_of
from modeling.run.child_tuning import uses_masks
from modeling.run.prediction_rows import token_bytes
from ofrecord_util.errors import UserError
from ofrecord_util.reading import size_text

_PROCESS_BYTES = 440e6  # Python, OneFlow and the BLAS without any graph
_PIECE_BYTES = 1500  # per token of a tokenizer.json, in the tokenizers library (0.37 GB for 250,002 tokens of Unigram)
_LOADING_SHARE = 0.5  # of the parameters' bytes: what loading needs beside them. A run that trains needs more than this later
_PARTS_BYTES = 200e6  # of a run in parts: further jobs to compile
FREE_SOME = "free some memory, or give a smaller model"  # the remedy that always helps
CONTINUED = "a continued run keeps its layout: free some memory, give a higher --memory_limit, or start a new run without --resume"
_USED_SHARE = 0.9  # of the free memory, if --memory_limit is not given: estimates are up to 15 % off
# OneFlow's CPU engine has a separate buffer for the output of each operation of a graph. The factors count these outputs for the train
# graphs of modeling/bert/encoder.py on modeling/engine/kernels.py: multiples of L * T * H, of L * B * N * S * S, and of T * H
# (tests/modeling/run/test_resources.py compares them with the graphs)
_TRAIN_HIDDEN, _TRAIN_SCORES, _TRAIN_REST = 102.0, 7.5, 40.0
_OPERATION_BYTES = 0.15e6  # for an operation itself: its actor, its entries in the plan
_TRAIN_OPERATIONS, _PREDICT_OPERATIONS = 110, 47  # per encoder layer and lane
# Of each value that a distillation compares with the teacher's: the operations of its squared error and of the gradient, and the teacher's
# input; and the whole batches of the teacher's values that are in memory at the same time
_COMPARISONS, _KEPT_BATCHES = 11, 3
# Floats per trained parameter: its moments and the update; in a step of parts also the summed gradient and the input that holds it. The
# gradient itself belongs to a graph. With 24 steps of BERT-base the estimate is then 0.98 to 1.00 of the measured peak
# (benchmarks/bench_memory.py), without the update and the input 0.91
_TRAINED_FLOATS, _SUMMED_FLOATS = 3, 2
_MASKED = 6  # floats per element of a masked gradient: its sum, its mask, their product, its gradient, and two arrays of the next mask
_RETURNED_COPIES = 3  # of the values that a graph returns: an operation's output, and two tensors that OneFlow fills in turns


class Graph(NamedTuple):
    """What the memory of a graph depends on, besides its model."""

    trains: bool
    rows: int
    length: int  # tokens per row
    all_tokens: bool = False  # of a predict graph: whether it computes the last layer for all tokens
    returned: int = 0  # of a predict graph: float32 values per token that it returns


class Model(NamedTuple):
    """What the memory of a model's graphs depends on."""

    config: BertConfig
    parameters: int  # `Variables.in_memory`
    trained: int = 0  # those with gradients and moments. Of another model in the train graph: whether it has a backward pass there
    further: int = 0  # further numbers in memory for each of these
    passes: int = 1  # over the encoder in a training step
    frozen_layers: int = 0  # encoder layers without a backward pass
    in_train_graph: bool = False  # whether the train graph of another model contains its forward pass (a teacher)
    graphs: tuple = ()  # the `Graph`s of its predict functions
    word_uses: int = 1  # uses of all word embeddings in a training step. Each has a gradient, and these are added two at a time


class MemoryPlan:
    """The memory of a process that trains or predicts on a CPU.

    Args:
        model: the `Model` that is trained, or that predicts.
        lanes: `Lanes` of the `Engine`.
        limit: bytes that the process may use.
        others: further `Model`s in memory.
        compared: function of the length of a row -> values per token that the objective compares with those of a teacher; None without one.
        per_row: function of a `Graph` -> numbers that it needs for each row beside those of the encoder; None for 0.
    """

    def __init__(self, model, lanes, limit, others=(), compared=None, per_row=None):
        self.model, self._lanes, self.limit, self._others, self._compared = model, lanes, limit, others, compared
        self._per_row = per_row or (lambda _: 0)

    def needed(self, graphs, parts=1):
        """Estimated bytes of the process.

        Args:
            graphs: list of `Graph`. All of them stay in memory until the process ends.
            parts: number of parts of a training step.
        """
        models = (self.model, *self._others)
        parameters = sum(model.parameters for model in models)
        floats = parameters + (_TRAINED_FLOATS + self.model.further + _SUMMED_FLOATS * (parts > 1)) * self.model.trained
        more = _PARTS_BYTES * (parts > 1) if self.model.trained else 4 * _LOADING_SHARE * parameters
        others = sum(_predict_bytes(other.config, graph, self._lanes) for other in self._others for graph in other.graphs)
        tokenizer = _PIECE_BYTES * self.model.config.vocab_size * (self.model.config.model_type not in (BERT, PALM))
        return _PROCESS_BYTES + tokenizer + 4 * floats + more + others + sum(self._graph_bytes(graph, parts) for graph in graphs)

    def freezing(self, layers):
        """The `MemoryPlan` with the first `layers` encoder layers and the embeddings frozen."""
        config = self.model.config
        share = 1 - layers / config.num_hidden_layers
        model = self.model._replace(trained=int(config.dense_weights * share), frozen_layers=layers)
        return MemoryPlan(model, self._lanes, self.limit, self._others, self._compared, self._per_row)

    def _graph_bytes(self, graph, parts):
        """Bytes of one graph, and of the batches of its length."""
        model, further = self.model, 4 * graph.rows * self._per_row(graph)
        if not graph.trains:
            return _predict_bytes(model.config, graph, self._lanes) + further
        predict, train = _predict_bytes(model.config, graph, self._lanes), _train_bytes(model.config, graph, self._lanes)
        own = predict + (1 - model.frozen_layers / model.config.num_hidden_layers) * (
            train - predict
        )  # frozen layers have no backward pass
        own *= model.passes
        masks = DropoutPlan(model.config, 0, "cpu", passes=model.passes).kept_numbers(graph.rows, graph.length)
        others = [other for other in self._others if other.in_train_graph]
        theirs = sum((_train_bytes if other.trained else _predict_bytes)(other.config, graph, self._lanes) for other in others)
        compared = (
            self._compared(graph.length) * graph.rows * graph.length * (_COMPARISONS + _KEPT_BATCHES * parts) if self._compared else 0
        )
        words = 2 * (model.word_uses - 1) * model.config.vocab_size * model.config.hidden_size
        gradients = self._lanes.used(graph.rows, graph.length) * (model.trained + words)  # each lane has its own
        return own + theirs + further + 4 * (masks + compared + gradients)


def _predict_bytes(config, graph, lanes):
    """Bytes of the operations of a forward pass."""
    per_token = token_bytes(config, graph.length, graph.all_tokens) + 4 * _RETURNED_COPIES * graph.returned
    operations = lanes.used(graph.rows, graph.length) * config.num_hidden_layers * _PREDICT_OPERATIONS
    return graph.rows * graph.length * per_token + operations * _OPERATION_BYTES


def _train_bytes(config, graph, lanes):
    """Bytes of the operations of a train graph whose layers all have a backward pass."""
    tokens, layers = graph.rows * graph.length, config.num_hidden_layers
    hidden, scores = tokens * config.hidden_size, layers * tokens * config.num_attention_heads * graph.length
    outputs = (_TRAIN_HIDDEN * layers + _TRAIN_REST) * hidden + _TRAIN_SCORES * scores
    return 4 * outputs + lanes.used(graph.rows, graph.length) * layers * _TRAIN_OPERATIONS * _OPERATION_BYTES


def plan_memory(context, variables, others=(), trains=True, compared=None, further=0, per_row=None, word_uses=1):
    """The `MemoryPlan` of a run; None on a GPU, whose memory is not planned.

    Args:
        context: `RunContext`.
        variables: the `Variables` that are trained, or that predict.
        others: further `Model`s.
        trains: whether the run trains.
        compared, per_row: see `MemoryPlan`.
        further: numbers in memory for each trained parameter, besides itself and its moments.
        word_uses: see `Model`.
    """
    if context.engine.device != "cpu":
        return None
    trained = sum(parameter.numel() for parameter in variables.trained().values()) if trains else 0
    further += _MASKED if trains and uses_masks(context.flags) else 0
    passes = smoothness_of(context.flags).passes if trains else 1
    model = Model(context.config, variables.in_memory(), trained, further, passes, context.freezing.layers, word_uses=word_uses)
    limit = memory_limit(context.flags.memory_limit) / parallel.processes()
    return MemoryPlan(model, context.engine.lanes, limit, others, compared, per_row)


def memory_limit(wanted):
    """Bytes that this process may use: `wanted` GB, or most of the free memory; infinite if the system does not report it."""
    if wanted is not None:
        return wanted * 1e9
    free = available_memory()
    return float("inf") if free is None else _USED_SHARE * (free + _own_memory())


def settings_that_fit(memory, graphs, seq_length, rows=1):
    """Settings with which a training run would fit, as a text for a message.

    Args:
        memory: `MemoryPlan`.
        graphs: list of the evaluation `Graph`s.
        seq_length: value of the flag.
        rows: texts that the smallest part of a step has.
    """
    found = []
    for length in range(seq_length - 8, 7, -8):
        if (
            memory.needed([*(graph._replace(length=min(graph.length, length)) for graph in graphs), Graph(True, rows, length)], 2)
            <= memory.limit
        ):
            found.append(f"--seq_length {length}")
            break
    for layers in range(1, memory.model.config.num_hidden_layers):
        if memory.freezing(layers).needed([*graphs, Graph(True, rows, seq_length)], 2) <= memory.limit:
            found.append(f"--freeze_layers {layers}")
            break
    if parallel.size() > 1:
        found.append("more --gradient_accumulation_steps (both amounts are those of one of the processes)")
    return " or ".join([FREE_SOME, *found])


def announcement(needed) -> str:
    """The estimated bytes as a part of a line of the log."""
    return f"about {needed / 1e9:.2f} GB of memory"


def check_memory(needed, limit, remedies):
    """Refuses a run that does not fit.

    Args:
        needed: estimated bytes.
        limit: of `memory_limit`.
        remedies: text with the settings that need less.
    Raises:
        UserError: needed is above the limit.
    """
    if needed > limit:
        flag = "" if "--memory_limit" in remedies else "; --memory_limit GB sets another limit"
        raise UserError(f"the run needs about {size_text(needed)} of memory, but may use only {size_text(limit)}: {remedies}{flag}")


def available_memory():
    """Bytes of memory that are available to a new process: those of the machine, or of the control group if it has a lower limit; None if
    the system does not report it."""
    amounts = [amount for amount in (_machine_memory(), _group_memory()) if amount is not None]
    return min(amounts) if amounts else None


def _machine_memory():
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group_memory():
    """Bytes up to the memory limit of the control group (version 2 or 1); None without a limit. File caches count as free."""
    root = "/sys/fs/cgroup"
    for folder, limit, used, cache in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = (next(iter(_lines(os.path.join(root, folder, name))), "").strip() for name in (limit, used))
        if limit.isdigit() and used.isdigit() and int(limit) < 2**60:
            caches = [int(line.split()[1]) for line in _lines(os.path.join(root, folder, "memory.stat")) if line.split()[0] == cache]
            return max(0, int(limit) - int(used) + sum(caches))
    return None


def _own_memory():
    """Bytes of memory that this process uses already."""
    for line in _lines("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path):
    try:
        with open(path, encoding="ascii") as file:
            return list(file)
    except OSError:
        return []
