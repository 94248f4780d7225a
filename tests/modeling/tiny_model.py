"""The tiny random BERT of tests/golden under the project's names, and how a test gets a static graph's numbers.

Sizes are odd and unrelated (batch 3, length 13, 99 pieces, hidden 20, 4 heads of 5, 3 layers, intermediate 52, 17
positions, 3 labels), so that no two axes can be confused.
"""

import dataclasses
import json
import os

import numpy as np

from modeling.bert.config import BertConfig
from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import Variables
from modeling.engine.global_function import GlobalFunction
from modeling.engine.kernels import CpuKernels, StockKernels
from modeling.engine.runtime import flow
from ofrecord_util.records import Records
from tools.checkpoint_names import CLASSIFIER, POOLER, encoder_pairs

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = {"cpu": CpuKernels(), "stock": StockKernels("cpu")}

with np.load(os.path.join(ROOT, "tests", "golden", "tiny_bert.npz"), allow_pickle=False) as _file:
    GOLDEN = {name: _file[name] for name in _file.files}

_known = {field.name for field in dataclasses.fields(BertConfig)}
CONFIG = BertConfig(**{name: value for name, value in json.loads(str(GOLDEN["config"])).items() if name in _known})
NO_DROPOUT = dataclasses.replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BATCH, LENGTH = GOLDEN["input/input_ids"].shape
NUM_LABELS = 3
NUM_DOMAINS = 4


def documented(kind):
    """The arrays of `weight/…` or `grad/…` under their documented names, dense weights as [in, out]."""
    pairs = [("bert.", pair) for pair in (*encoder_pairs(CONFIG.num_hidden_layers), *POOLER)]
    pairs += [("", pair) for pair in CLASSIFIER]
    arrays = {pair.snapshot: GOLDEN[f"{kind}/{prefix}{pair.hugging_face}"] for prefix, pair in pairs}
    return {pair.snapshot: arrays[pair.snapshot].T if pair.transposed else arrays[pair.snapshot] for _, pair in pairs}


def domain_head(seed=5):
    """Random values of the corrupted-domain head."""
    draw = np.random.RandomState(seed)
    shapes = ((NUM_DOMAINS, CONFIG.hidden_size), (NUM_DOMAINS, CONFIG.hidden_size), (NUM_DOMAINS,))
    return {name: draw.randn(*shape).astype(np.float32) * 0.3 for name, shape in zip(DOMAIN_HEAD, shapes)}


def golden_batch():
    """word_rows, input_mask and segment_ids of the golden batch."""
    return {
        "word_rows": GOLDEN["input/input_ids"],
        "input_mask": GOLDEN["input/attention_mask"],
        "segment_ids": GOLDEN["input/token_type_ids"],
    }


def numpy_of(outputs):
    """What a graph returned as NumPy arrays, in the same nesting of tuples."""
    return tuple(numpy_of(part) for part in outputs) if isinstance(outputs, (tuple, list)) else outputs.numpy()


def run_graph(function, arrays, variables=None):
    """Outputs (NumPy) of `function(variables, **arrays)` in a predict graph.

    Args:
        variables: dict of name -> float32 array.
    """
    variables = Variables(variables or {"unused": np.zeros(1, np.float32)})
    return numpy_of(GlobalFunction(function, "predict", variables)(arrays))


def gradients(function, values, arrays, frozen=()):
    """Gradients of the first output of `function(variables, **arrays)` by variable: what one step of SGD with learning
    rate 1 in a train graph takes off.

    Args:
        values: dict of name -> float32 array.
        frozen: names of variables that are not trained.
    Returns:
        (outputs, dict of name -> gradient)
    """
    variables = Variables(values, frozen=frozen)
    optimizer = flow.optim.SGD(list(variables.trained().values()), lr=1.0)

    outputs = numpy_of(GlobalFunction(function, "train", variables, optimizer)(arrays))
    return outputs, {name: values[name] - variables.get(name).numpy() for name in values}


def random_samples(lengths, seq_length=LENGTH, num_domains=NUM_DOMAINS, num_labels=NUM_LABELS, seed=3):
    """`Samples` with texts of the given numbers of tokens."""
    draw = np.random.RandomState(seed)
    count = len(lengths)
    mask = (np.arange(seq_length) < np.asarray(lengths)[:, None]).astype(np.int32)
    return Records(
        input_ids=draw.randint(1, CONFIG.vocab_size, (count, seq_length)).astype(np.int32) * mask,
        input_mask=mask,
        segment_ids=draw.randint(0, 2, (count, seq_length)).astype(np.int32) * mask,
        domain=draw.randint(0, num_domains, count).astype(np.int32),
        label=draw.randint(0, num_labels, count).astype(np.int32),
        idxs=np.arange(count, dtype=np.int32),
        sample_weights=draw.rand(count).astype(np.float32),
    ).samples()


def log_softmax(logits):
    """Reference, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
