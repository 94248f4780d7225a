"""Writes a classifier as one ONNX file, which ONNX Runtime runs without this project.

Inputs, int64 [batch, length]: input_ids, attention_mask (1 at tokens, 0 at padding), token_type_ids. Output, float32 [batch, labels]:
logits. The metadata of the file has `labels` (a JSON list), `seq_length`, `pair` and `tokenizer.json`, from which
`tokenizers.Tokenizer.from_str` makes the tokenizer; `task_type` if it is not classification: the logit of a regression is the number, the
sigmoid of each logit of multi_label is the probability of a label. `write` needs the package onnx, and for 8-bit weights onnxruntime.
"""

import json
import math

import numpy as np
import six

from modeling.bert import names
from modeling.bert.config import CLS, MEAN, MODEL_TYPES
from modeling.checkpoints.snapshot import VOCAB_FILE
from modeling.cli.choices import ONE_HEAD, RAW_CLS, SQRT_LENGTH, TWO_HEADS
from ofrecord_util.array_reading import PartFile
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.json_tokenizer import JSON_FILE
from tools import checkpoint_roberta
from tools.checkpoint_labels import label_names
from tools.checkpoint_model import check_is_bert
from tools.checkpoint_tokenizer import TOKENIZER, tokenizer_texts
from tools.extras import extra

PRODUCER = "meta-finetuning-oneflow"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
_OPSET, _IR = 17, 8  # the first with LayerNormalization; the ONNX Runtimes since 1.12 run it
_LIMIT = 2**31 - 1  # bytes of one protobuf message
_FAR = -10000.0  # added to the scores of padding, as in modeling/bert/encoder.py


class _Graph:
    """Nodes and constants of an ONNX graph. Each method returns the name of its output."""

    def __init__(self, onnx):
        self.onnx, self.nodes, self.constants = onnx, [], {}

    def op(self, kind, *inputs, **attributes):
        """Adds one node."""
        output = attributes.pop("output", None) or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value, name=None):
        """Adds a constant. Small ones without a name are shared."""
        value = np.asarray(value, order="C")  # keeps a scalar without axes
        name = name or "constant_" + "_".join([str(value.dtype), *map(str, value.shape), *map(str, value.reshape(-1).tolist())])
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(value, name)
        return name


class _Bert:
    """The nodes of a BERT. B batch, S length, H hidden size, N heads, D head size."""

    def __init__(self, onnx, checkpoint):
        self.graph, self.config, self.variables = _Graph(onnx), checkpoint.config, checkpoint.variables

    def variable(self, name):
        return self.graph.constant(self.variables[name], name)

    def number(self, value):
        return self.graph.constant(np.array(value, np.float32))

    def integers(self, *values):
        return self.graph.constant(np.array(values, np.int64))

    def linear(self, x, name):
        product = self.graph.op("MatMul", x, self.variable(name + "-weight"))
        return self.graph.op("Add", product, self.variable(name + "-bias"))

    def norm(self, x, name):
        gamma, beta = self.variable(name + "-gamma"), self.variable(name + "-beta")
        return self.graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=self.config.layer_norm_eps)

    def embeddings(self):
        """[B, S, H]"""
        op = self.graph.op
        words = op("Gather", self.variable(names.WORD_EMBEDDINGS), INPUTS[0])
        types = op("Gather", self.variable(names.TOKEN_TYPE_EMBEDDINGS), INPUTS[2])
        length = op("Shape", INPUTS[0], start=1, end=2)  # [1]
        positions = op("Slice", self.variable(names.POSITION_EMBEDDINGS), self.integers(0), length, self.integers(0))  # [S, H]
        return self.norm(op("Add", op("Add", words, types), positions), names.EMBEDDINGS_NORM)

    def away(self, axes):
        """0 at tokens, a large negative number at padding: the mask [B, S] with these further axes."""
        op = self.graph.op
        mask = op("Cast", INPUTS[1], to=self.graph.onnx.TensorProto.FLOAT)
        return op("Unsqueeze", op("Mul", op("Sub", self.number(1.0), mask), self.number(_FAR)), self.integers(*axes))

    def heads(self, x, name, perm):
        """[B, S, H] -> [B, N, S, D], or [B, N, D, S] for the keys."""
        split = self.integers(0, 0, self.config.num_attention_heads, self.config.head_size)
        return self.graph.op("Transpose", self.graph.op("Reshape", self.linear(x, name), split), perm=perm)

    def layer(self, number, x, away):
        """[B, S, H] -> [B, S, H]"""
        op, prefix = self.graph.op, names.layer_prefix(number)
        query, value = (self.heads(x, prefix + name, [0, 2, 1, 3]) for name in (names.QUERY, names.VALUE))
        key = self.heads(x, prefix + names.KEY, [0, 2, 3, 1])
        scores = op("Div", op("MatMul", query, key), self.number(math.sqrt(self.config.head_size)))
        probs = op("Softmax", op("Add", scores, away), axis=-1)  # [B, N, S, S]
        context = op("Transpose", op("MatMul", probs, value), perm=[0, 2, 1, 3])
        context = op("Reshape", context, self.integers(0, 0, self.config.hidden_size))
        x = self.norm(op("Add", x, self.linear(context, prefix + names.ATTENTION_OUTPUT)), prefix + names.ATTENTION_NORM)
        inner = self.linear(x, prefix + names.INTERMEDIATE)
        erf = op("Erf", op("Div", inner, self.number(math.sqrt(2.0))))
        inner = op("Mul", op("Mul", inner, op("Add", erf, self.number(1.0))), self.number(0.5))  # exact GELU
        return self.norm(op("Add", x, self.linear(inner, prefix + names.OUTPUT)), prefix + names.OUTPUT_NORM)

    def pooled(self, x):
        """[B, S, H] -> [B, H], as modeling/bert/pooling.py."""
        op = self.graph.op
        if self.config.pooling in (CLS, RAW_CLS):
            cls = op("Gather", x, self.graph.constant(np.array(0, np.int64)), axis=1)
            return op("Tanh", self.linear(cls, names.POOLER)) if self.config.pooling == CLS else cls
        if self.config.pooling == MEAN:
            mask = op("Unsqueeze", op("Cast", INPUTS[1], to=self.graph.onnx.TensorProto.FLOAT), self.integers(2))  # [B, S, 1]
            count = op("Max", op("ReduceSum", mask, self.integers(1), keepdims=0), self.number(1.0))  # [B, 1]
            return op("Div", op("ReduceSum", op("Mul", x, mask), self.integers(1), keepdims=0), count)
        if self.config.pooling in (SQRT_LENGTH, ONE_HEAD, TWO_HEADS):
            return self.root_pooled(x)
        return op("ReduceMax", op("Add", x, self.away([2])), axes=[1], keepdims=0)

    def root_pooled(self, x):
        """MEAD's poolings, [B, S, H] -> [B, H], of two heads [B, 2 * H]."""
        op = self.graph.op
        mask = op("Unsqueeze", op("Cast", INPUTS[1], to=self.graph.onnx.TensorProto.FLOAT), self.integers(1))  # [B, 1, S]
        weights = op("Mul", mask, op("Sqrt", op("ReduceSum", mask, self.integers(2), keepdims=1)))
        if not self.config.pooling_heads:
            return op("Squeeze", op("MatMul", weights, x), self.integers(1))
        vectors = []
        for head in map(names.POOLING_HEAD.format, range(self.config.pooling_heads)):
            query, key = (self.linear(x, head + dense) for dense in (names.POOLING_QUERY, names.POOLING_KEY))
            scores = op("MatMul", query, op("Transpose", key, perm=[0, 2, 1]))
            probs = op("Softmax", op("Add", scores, self.away([1])), axis=-1)  # [B, S, S]
            vectors.append(op("Squeeze", op("MatMul", op("MatMul", weights, probs), x), self.integers(1)))
        return op("Concat", *vectors, axis=1)

    def logits(self):
        """[B, labels]"""
        x, away = self.embeddings(), self.away([1, 2])
        for number in range(self.config.num_hidden_layers):
            x = self.layer(number, x, away)
        weights, bias = (self.variable(name) for name in names.CLASSIFIER)
        return self.graph.op("Gemm", self.pooled(x), weights, bias, transB=1, output=OUTPUT)


def build_model(checkpoint):
    """The ONNX model (`onnx.ModelProto`) of a `Checkpoint` with a classifier, and a list of notes for the user.

    Raises:
        UserError: there is no classifier or no pooler that it needs; the casing is not known; the labels do not fit; the model is larger
            than one file can be; or the package onnx is missing.
    """
    onnx = extra("onnx", "--to onnx")
    if not checkpoint.num_labels:
        raise UserError("the checkpoint has no classifier, so there are no logits to compute: --to onnx takes a trained snapshot")
    check_is_bert(checkpoint, "onnx", MODEL_TYPES)
    if checkpoint.config.pooling == CLS and not checkpoint.has_pooler:
        raise UserError("the checkpoint has a classifier but no pooler; train the model here first")
    lacking = [name for name in names.POOLING_HEADS[: 4 * checkpoint.config.pooling_heads] if name not in checkpoint.variables]
    if lacking:
        raise UserError(f"the pooling is {checkpoint.config.pooling}, but the checkpoint has no {lacking[0]}; train the model here first")
    if checkpoint.do_lower_case is None and checkpoint.vocab_name == VOCAB_FILE:
        raise UserError("the checkpoint does not say whether it is cased; set --do_lower_case to true (uncased) or false")
    size = sum(value.nbytes for value in checkpoint.variables.values())
    if size > _LIMIT:
        raise UserError(f"the variables have {size / 1e9:.1f} GB, and an ONNX file has at most 2.1 GB; --layers selects fewer layers")
    labels, notes = label_names(checkpoint)
    bert, helper = _Bert(onnx, checkpoint), onnx.helper
    bert.logits()
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"]) for name in INPUTS]
    outputs = [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["batch", len(labels)])]
    graph = helper.make_graph(bert.graph.nodes, "bert", inputs, outputs, list(bert.graph.constants.values()))
    model = helper.make_model(graph, producer_name=PRODUCER, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)])
    if checkpoint.vocab_name == VOCAB_FILE:
        tokenizer = tokenizer_texts(checkpoint.settings, checkpoint.vocab.split("\n")[:-1], checkpoint.max_length)[TOKENIZER]
    else:  # XLM-R and RoBERTa. Their positions and types are those of a BERT here, so the graph is the same
        tokenizer = json.loads(checkpoint_roberta.tokenizer_files(checkpoint)[JSON_FILE])
    about = {"labels": labels, "seq_length": checkpoint.max_length, "pair": bool((checkpoint.task or {}).get("pair")), TOKENIZER: tokenizer}
    task_type = (checkpoint.task or {}).get("task_type")
    about.update({} if task_type is None else {"task_type": task_type})
    helper.set_model_props(model, {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()})
    onnx.checker.check_model(model)
    return model, notes


def write(path, checkpoint, dev_file=None, text_flags=None):
    """Writes the ONNX file.

    Args:
        path: of the file.
        checkpoint: `Checkpoint` with a classifier.
        dev_file: labelled text. If it is given, the file has 8-bit weights, and their loss of accuracy on this text is measured.
        text_flags: dict of the flags that describe text files, by name.
    Returns:
        (names of the variables written, list of notes for the user).
    Raises:
        UserError: as `build_model`; the text cannot be read or its labels are not those of the model; or the file cannot be written.
    """
    model, notes = build_model(checkpoint)
    data = model.SerializeToString()
    if dev_file is not None:
        from tools import onnx_int8  # imported here, because it imports OneFlow

        small = onnx_int8.quantize(model)
        notes.append(onnx_int8.loss_text(data, small, checkpoint, dev_file, text_flags or {}))
        data = small
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    used = {tensor for tensor in checkpoint.variables if tensor not in (*names.DOMAIN_HEAD, *names.PRETRAINING_HEADS)}
    if checkpoint.config.pooling != CLS:
        used -= {name for name in used if name.startswith(names.POOLER)}
    left = sorted(set(checkpoint.variables) - used)
    if left:
        notes.append("left out, the logits do not depend on them: " + ", ".join(left))
    return used, notes


def is_own(path):
    """Whether this module wrote the file `path`."""
    with PartFile(path, "check --output_dir", 1 << 40) as file:
        start = file.read(np.empty(min(file.size, 64), np.uint8), 0).tobytes()
    return six.ensure_binary(PRODUCER) in start
