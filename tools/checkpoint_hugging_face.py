"""Hugging Face's BERT folders, in and out.

In: config.json, the weights (model.safetensors, whole or sharded; pytorch_model.bin where PyTorch is installed) and
vocab.txt (or the vocabulary inside tokenizer.json). Tensor names with or without the `bert.` prefix; float16, bfloat16
and float64 besides float32. Refuses what is not BERT, and says why.

Out: config.json, model.safetensors, vocab.txt, tokenizer_config.json and special_tokens_map.json, which transformers'
AutoModelForSequenceClassification (AutoModel where there is no classifier) and AutoTokenizer load.
"""

import dataclasses
import json
import math
import os

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modeling.bert.config import CLS, BertConfig
from modeling.checkpoints.snapshot import VOCAB_FILE
from ofrecord_util.errors import UserError
from ofrecord_util.tasks import Task
from tools import checkpoint_names
from tools.checkpoint_files import read_json, read_tokens, read_vocabulary, vocabulary_text, write_folder
from tools.checkpoint_model import Checkpoint, Tensor, read_variables, rename

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
FILES = ("config.json", SAFETENSORS, VOCAB_FILE, "tokenizer_config.json", "special_tokens_map.json")  # what `write` leaves

# Up to 2.5, torch.load(weights_only=True) could still be made to run a file's code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)

_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def read_config(model_dir):
    """The encoder's sizes from a Hugging Face config.json.

    Returns:
        (BertConfig, the parsed config.json).
    Raises:
        UserError: no BERT, or a BERT that differs from the one of this project in what it computes.
    """
    path = os.path.join(model_dir, "config.json")
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: no such file; --model_dir wants a Hugging Face folder with config.json, "
            "a snapshot, a folder with Google's bert_model.ckpt.index, or an .npz file"
        )
    values = read_json(path)
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise UserError(f"{path}: architectures must be a list of names, not {architectures!r}")
    # The first releases wrote no model_type.
    kind = values.get("model_type")
    if kind is None:
        kind = "bert" if all(name.startswith("Bert") for name in architectures) else architectures[0]
    if kind != "bert":
        raise UserError(f"{path}: model_type is {kind!r}; only 'bert' has the layers, positions and vocabulary that the phases build")
    positions = values.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UserError(f"{path}: position_embedding_type is {positions!r}; only 'absolute' is built here")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads"):
        if values.get(key):
            raise UserError(f"{path}: {key} is {values[key]!r}; only the whole, bidirectional encoder is built here")
    for key in ("layer_norm_eps", "initializer_range"):
        value = values.get(key, 1e-12)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise UserError(f"{path}: {key} must be a number above 0, not {value!r}")
    try:
        return BertConfig.from_dict(values), values
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _inside(folder, name):
    """The path of `name` in `folder`; an index file must not lead out of the folder that it describes."""
    if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
        raise UserError(f"{folder}: the index names {name!r}, which is no file of this folder")
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file, but the index in this folder names it")
    return path


def _decode(data, dtype):
    """float32 values from the raw bytes of a safetensors tensor."""
    if dtype == "BF16":  # NumPy has no such type: it is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    # A value beyond float32's range becomes infinite here, and is refused as such by the caller.
    with np.errstate(over="ignore"):
        return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype(np.float32)


def _read_safetensors(path):
    """dict of name -> Tensor. The library checks the file; its NumPy side has no bfloat16, so bytes are read here."""
    try:
        with safe_open(path, framework="np"):
            pass
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length).decode("utf-8"))
        data = np.memmap(path, np.uint8, "r")[8 + length :]
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is no whole safetensors file: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error

    def tensor(entry):
        begin, end = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        return Tensor(shape, dtype, lambda: _decode(data[begin:end], dtype).reshape(shape))

    return {name: tensor(entry) for name, entry in header.items() if name != "__metadata__"}


def _import_torch(path):
    mend = (
        f"pip install 'torch>={_SAFE_TORCH[0]}.{_SAFE_TORCH[1]}' (the CPU build is enough; Python 3.9 or newer), "
        f"or save the model as {SAFETENSORS}"
    )
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path} can be read with PyTorch only, which is not installed here: {mend}") from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _SAFE_TORCH:
        raise UserError(f"{path}: PyTorch {torch.__version__} may run code that is hidden in such a file: {mend}")
    return torch


def _read_torch(path):
    """dict of name -> Tensor of a PyTorch file, of which only plain tensors are accepted."""
    torch = _import_torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch documents no type for a file that it refuses
        # Its own words stay out: they tell the user to switch the protection off.
        raise UserError(f"{path} is damaged or holds more than plain tensors ({type(error).__name__}): not read") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds something else than named tensors")

    def tensor(value):
        dtype = str(value.dtype).replace("torch.", "")
        dtype = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}.get(dtype, dtype)
        return Tensor(tuple(value.shape), dtype, lambda: value.detach().to(torch.float32).contiguous().numpy())

    return {str(name): tensor(value) for name, value in state.items()}


def read_tensors(model_dir):
    """All stored tensors of a Hugging Face folder, their values read when asked for.

    Returns:
        dict of name (as stored) -> Tensor.
    Raises:
        UserError: no weights, a damaged file, or shards that do not hold what their index says.
    """
    for single, reader in ((SAFETENSORS, _read_safetensors), (TORCH, _read_torch)):
        path, index = os.path.join(model_dir, single), os.path.join(model_dir, single + ".index.json")
        if os.path.isfile(path):
            return reader(path)
        if os.path.isfile(index):
            where = read_json(index).get("weight_map")
            if not isinstance(where, dict) or not where:
                raise UserError(f"{index} has no weight_map")
            shards = {shard: reader(_inside(model_dir, shard)) for shard in sorted(set(map(str, where.values())))}
            absent = sorted(name for name, shard in where.items() if name not in shards[str(shard)])
            if absent:
                raise UserError(f"{index} names tensors that its files do not hold: {', '.join(absent)}")
            return {name: shards[str(shard)][name] for name, shard in where.items()}
    found = ", ".join(sorted(os.listdir(model_dir))) or "nothing"
    raise UserError(f"{model_dir}: neither {SAFETENSORS} nor {TORCH} (nor their .index.json); found {found}")


def to_variables(tensors, config, is_classifier=True):
    """Renames, checks and transposes the tensors of a BERT.

    Args:
        tensors: dict of stored name -> Tensor.
        config: the encoder's BertConfig.
        is_classifier: whether a `classifier` among the tensors is one of whole sequences (not of tokens, say).
    Returns:
        (dict of variable name -> float32 array, list of stored names that were left behind).
    Raises:
        UserError: as `read_variables`, or a tensor that is there twice.
    """
    stored, left = {}, []
    for name in tensors:
        plain = checkpoint_names.canonical_name(name)
        if plain in checkpoint_names.BUFFERS:
            continue
        head = plain.startswith(checkpoint_names.HEADS_LEFT_BEHIND)
        if head or (plain.startswith("classifier.") and not is_classifier):
            left.append(name)
        elif plain in stored:
            raise UserError(f"tensors {stored[plain]} and {name} are the same variable")
        else:
            stored[plain] = name
    return read_variables(tensors, stored, "hugging_face", config, "config.json"), sorted(left)


def _vocab_tokens(model_dir):
    """The vocabulary in id order and the path that it came from."""
    path = os.path.join(model_dir, VOCAB_FILE)
    if os.path.isfile(path):
        return read_tokens(path), path
    path = os.path.join(model_dir, "tokenizer.json")
    if not os.path.isfile(path):
        raise UserError(f"{model_dir}: neither {VOCAB_FILE} nor tokenizer.json, so there is no vocabulary: give --vocab_file")
    model = read_json(path).get("model")
    if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise UserError(f"{path} holds no WordPiece vocabulary, which is BERT's")
    tokens = sorted(model["vocab"], key=lambda token: str(model["vocab"][token]).zfill(20))
    if [model["vocab"][token] for token in tokens] != list(range(len(tokens))) or "\n" in "".join(tokens):
        raise UserError(f"{path}: the token ids are not 0 to {len(tokens) - 1}, each once")
    return tokens, path


def read(path, vocab_file=None, num_heads=None):
    """The BERT of a Hugging Face folder.

    Args:
        path: folder with config.json, weights and vocabulary.
        vocab_file: a vocabulary to take instead of the folder's.
        num_heads: not needed, config.json says it.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: the folder is no BERT, or is damaged.
    """
    config, values = read_config(path)
    vocab = vocabulary_text(*_vocab_tokens(path), config) if vocab_file is None else read_vocabulary(vocab_file, config)
    architectures = values.get("architectures") or []
    is_classifier = not architectures or "BertForSequenceClassification" in architectures
    variables, left = to_variables(read_tensors(path), config, is_classifier)
    tokenizer = os.path.join(path, "tokenizer_config.json")
    lower = read_json(tokenizer).get("do_lower_case") if os.path.isfile(tokenizer) else None
    return Checkpoint(
        variables,
        config,
        vocab,
        do_lower_case=lower if isinstance(lower, bool) else None,
        notes=("left behind: " + ", ".join(left),) if left else (),
    )


def _labels(checkpoint):
    """Names of the classifier's labels, in id order, and the line to say where they are made up."""
    if checkpoint.task is None:
        names = [f"LABEL_{i}" for i in range(checkpoint.num_labels)]
        return names, [f"no task.json, so the labels are called {names[0]} to {names[-1]}"]
    names = list(Task.from_dict(checkpoint.task).labels)
    if len(names) != checkpoint.num_labels:
        raise UserError(f"task.json names {len(names)} labels ({', '.join(names)}), the classifier has {checkpoint.num_labels}")
    return names, []


def to_config(checkpoint, labels):
    """config.json as a dict.

    Args:
        labels: names in id order; empty without a classifier.
    """
    values = dict(dataclasses.asdict(checkpoint.config), model_type="bert", position_embedding_type="absolute")
    del values["pooling"]  # transformers' BERT knows cls alone, see `write`
    values.update(architectures=["BertForSequenceClassification" if labels else "BertModel"], classifier_dropout=None)
    values.update(pad_token_id=checkpoint.vocab.split("\n").index("[PAD]"), torch_dtype="float32")
    if labels:
        values["num_labels"] = len(labels)
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values


def to_tensors(variables, num_hidden_layers):
    """dict of Hugging Face name -> array: dense weights [out, in], the encoder below `bert.` where a classifier stands
    beside it."""
    pairs = [*checkpoint_names.encoder_pairs(num_hidden_layers), *checkpoint_names.POOLER]
    head = rename(variables, checkpoint_names.CLASSIFIER, "hugging_face")
    prefix = "bert." if head else ""
    encoder = rename(variables, pairs, "hugging_face")
    return dict({prefix + name: value for name, value in encoder.items()}, **head)


def write(folder, checkpoint):
    """Writes a Hugging Face folder, whole or not at all.

    Returns:
        (documented names of the variables written, list of lines: what has no place there, what was not known).
    Raises:
        UserError: a classifier on another pooling than [CLS] or without the pooler that it reads, no casing, labels
            that do not fit, a disk error.
    """
    notes = []
    if checkpoint.num_labels and checkpoint.config.pooling != CLS:
        raise UserError(
            f"the checkpoint's classifier stands on the {checkpoint.config.pooling} over the tokens (--pooling), that of transformers' "
            "BERT on [CLS] alone: leave it in this project's format, or train one with --pooling cls"
        )
    if checkpoint.num_labels and not checkpoint.has_pooler:
        raise UserError("the checkpoint has a classifier but no pooler, which transformers would draw at random: train it here first")
    if checkpoint.do_lower_case is None:
        raise UserError("nothing in the checkpoint says whether it is cased: give --do_lower_case true (uncased) or false")
    labels = []
    if checkpoint.num_labels:
        labels, notes = _labels(checkpoint)
    elif not checkpoint.has_pooler:
        notes.append("no pooler in the checkpoint: none is written, and transformers draws one at random unless "
                     "add_pooling_layer=False")  # fmt: skip
    tensors = to_tensors(checkpoint.variables, checkpoint.config.num_hidden_layers)
    known = {pair.snapshot for pair in checkpoint_names.encoder_pairs(checkpoint.config.num_hidden_layers)}
    known.update(pair.snapshot for pair in (*checkpoint_names.POOLER, *checkpoint_names.CLASSIFIER))
    left = sorted(set(checkpoint.variables) - known)
    if left:
        notes.append("left out, transformers' BERT has no such head: " + ", ".join(left))

    tokens = checkpoint.vocab.split("\n")
    special = {key: token if token in tokens else None for key, token in _SPECIAL_TOKENS.items()}
    tokenizer = dict(
        special,
        tokenizer_class="BertTokenizer",
        do_lower_case=checkpoint.do_lower_case,
        model_max_length=checkpoint.config.max_position_embeddings,
    )
    texts = {
        "config.json": to_config(checkpoint, labels),
        "tokenizer_config.json": tokenizer,
        "special_tokens_map.json": {key: token for key, token in special.items() if token},
    }
    files = {name: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n" for name, value in texts.items()}
    files[VOCAB_FILE] = checkpoint.vocab
    files[SAFETENSORS] = save(tensors, {"format": "pt"})  # transformers refuses a file that does not name its framework
    write_folder(folder, files)
    return known & set(checkpoint.variables), notes
