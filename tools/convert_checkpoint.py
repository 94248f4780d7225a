"""Converts a Hugging Face BERT folder into the snapshot format that the phase scripts load.

    python3 tools/convert_checkpoint.py --model_dir bert-base-uncased --output_dir uncased_L-12_H-768_A-12_oneflow

Reads config.json, the weights (model.safetensors, whole or sharded; pytorch_model.bin where PyTorch is installed) and
vocab.txt (or the vocabulary inside tokenizer.json). Takes tensor names with or without the `bert.` prefix, and float16,
bfloat16 and float64 besides float32. Refuses what is not BERT, and says why.
"""
import argparse
import collections
import json
import math
import os
import sys

if not __package__:  # run as a file: Python put tools/ on the path, where the project's root belongs
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from safetensors import SafetensorError, safe_open

from modeling.config import BertConfig
from modeling.errors import UserError, run
from modeling.snapshot import CONFIG_FILE, DONE, VOCAB_FILE, write_variables
from tools import checkpoint_names

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"

# Up to 2.5, torch.load(weights_only=True) could still be made to run a file's code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

Tensor = collections.namedtuple("Tensor", ("shape", "dtype", "read"))
Tensor.__doc__ = """A stored tensor: shape, type as safetensors names it, and `read()`, which gives a float32 array."""


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            value = json.load(f)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object")
    return value


def read_config(model_dir):
    """The encoder's sizes from a Hugging Face config.json.

    Returns:
        (BertConfig, the parsed config.json).
    Raises:
        UserError: no BERT, or a BERT that differs from the one of this project in what it computes.
    """
    path = os.path.join(model_dir, "config.json")
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; --model_dir wants a Hugging Face folder with config.json")
    values = _read_json(path)
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise UserError(f"{path}: architectures must be a list of names, not {architectures!r}")
    # The first releases wrote no model_type.
    kind = values.get("model_type")
    if kind is None:
        kind = "bert" if all(name.startswith("Bert") for name in architectures) else architectures[0]
    if kind != "bert":
        raise UserError(
            f"{path}: model_type is {kind!r}; only 'bert' has the layers, positions and vocabulary that the "
            "phases build"
        )
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
        data = np.memmap(path, np.uint8, "r")[8 + length:]
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
        raise UserError(
            f"{path} is damaged or holds more than plain tensors ({type(error).__name__}): not read"
        ) from error
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
            where = _read_json(index).get("weight_map")
            if not isinstance(where, dict) or not where:
                raise UserError(f"{index} has no weight_map")
            shards = {shard: reader(_inside(model_dir, shard)) for shard in sorted(set(map(str, where.values())))}
            absent = sorted(name for name, shard in where.items() if name not in shards[str(shard)])
            if absent:
                raise UserError(f"{index} names tensors that its files do not hold: {', '.join(absent)}")
            return {name: shards[str(shard)][name] for name, shard in where.items()}
    found = ", ".join(sorted(os.listdir(model_dir))) or "nothing"
    raise UserError(f"{model_dir}: neither {SAFETENSORS} nor {TORCH} (nor their .index.json); found {found}")


def _value(tensor, pair, shape):
    """The tensor as the snapshot holds it: float32 of `shape`, dense weights transposed."""
    value = tensor.read()
    if not np.isfinite(value).all():
        raise UserError(f"tensor {pair.hugging_face} holds values that are no finite float32 numbers")
    value = value.T if pair.transposed else value
    return np.ascontiguousarray(value.reshape(shape), np.float32)


def to_variables(tensors, config, is_classifier=True):
    """Renames, checks and transposes the tensors of a BERT.

    Args:
        tensors: dict of stored name -> Tensor.
        config: the encoder's BertConfig.
        is_classifier: whether a `classifier` among the tensors is one of whole sequences (not of tokens, say).
    Returns:
        (dict of variable name -> float32 array, list of stored names that were left behind).
    Raises:
        UserError: missing or unknown tensors (all named), wrong shapes, types that are no floating point, values that
            are not finite.
    """
    from modeling.variables import classifier_shapes, encoder_shapes  # late: OneFlow comes with it, seconds of import

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

    pairs = checkpoint_names.encoder_pairs(config.num_hidden_layers)
    for head in (checkpoint_names.POOLER, checkpoint_names.CLASSIFIER):
        if any(pair.hugging_face in stored for pair in head):  # a head comes whole or not at all
            pairs.extend(head)
    missing = [pair.hugging_face for pair in pairs if pair.hugging_face not in stored]
    unknown = sorted(stored[name] for name in set(stored) - {pair.hugging_face for pair in pairs})
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (
            ["unknown " + ", ".join(unknown)] if unknown else []
        )
        raise UserError(
            f"the tensors are not those of a BERT of {config.num_hidden_layers} layers (config.json): " + "; ".join(parts)
        )

    shapes = encoder_shapes(config)
    bias = stored.get(checkpoint_names.CLASSIFIER[1].hugging_face)
    if bias is not None:
        shapes.update(classifier_shapes(config, int(np.prod(tensors[bias].shape))))
    problems = []
    for pair in pairs:
        name, shape = stored[pair.hugging_face], tuple(shapes[pair.snapshot])
        tensor = tensors[name]
        wanted = shape[::-1] if pair.transposed else shape
        if tensor.dtype not in ("F32", "F16", "BF16", "F64"):
            problems.append(f"{name} is of type {tensor.dtype}, no floating point of 16 to 64 bits")
        elif tensor.shape != wanted:
            problems.append(f"{name} has shape {list(tensor.shape)}, config.json says {list(wanted)}")
    if problems:
        raise UserError("the tensors do not fit: " + "; ".join(problems))
    values = {p.snapshot: _value(tensors[stored[p.hugging_face]], p, shapes[p.snapshot]) for p in pairs}
    return values, sorted(left)


def _vocab_tokens(model_dir):
    """The vocabulary in id order and the path that it came from."""
    path = os.path.join(model_dir, VOCAB_FILE)
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8", newline="\n") as f:
                text = f.read()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        return [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")], path
    path = os.path.join(model_dir, "tokenizer.json")
    if not os.path.isfile(path):
        raise UserError(f"{model_dir}: neither {VOCAB_FILE} nor tokenizer.json, so there is no vocabulary")
    model = _read_json(path).get("model")
    if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise UserError(f"{path} holds no WordPiece vocabulary, which is BERT's")
    tokens = sorted(model["vocab"], key=lambda token: str(model["vocab"][token]).zfill(20))
    if [model["vocab"][token] for token in tokens] != list(range(len(tokens))) or "\n" in "".join(tokens):
        raise UserError(f"{path}: the token ids are not 0 to {len(tokens) - 1}, each once")
    return tokens, path


def read_vocab(model_dir, config):
    """The text of vocab.txt, one token a line in id order.

    Raises:
        UserError: no vocabulary, one that lacks BERT's special tokens, or more tokens than the embeddings have rows.
    """
    tokens, path = _vocab_tokens(model_dir)
    lacking = [token for token in _SPECIAL_TOKENS if token not in tokens]
    if lacking:
        raise UserError(f"{path} lacks {', '.join(lacking)}, so it is no BERT vocabulary")
    if len(tokens) > config.vocab_size:
        raise UserError(f"{path} has {len(tokens)} tokens, the model embeddings for {config.vocab_size} (config.json)")
    return "".join(token + "\n" for token in tokens)


def _check_output(model_dir, output_dir, overwrite):
    source, target = os.path.realpath(model_dir), os.path.realpath(output_dir)
    if source == target or source.startswith(target + os.sep):
        raise UserError(f"--output_dir {output_dir} holds --model_dir {model_dir}, and would replace it")
    if not os.path.lexists(output_dir):
        return
    if os.path.isdir(output_dir) and not os.listdir(output_dir):
        return
    if not overwrite:
        raise UserError(f"--output_dir {output_dir} exists; --overwrite replaces it")
    if not os.path.isfile(os.path.join(output_dir, DONE)):
        # a mistyped path must not cost anybody a folder
        raise UserError(f"--output_dir {output_dir} is no snapshot (no {DONE} in it), so --overwrite leaves it alone")


def convert(model_dir, output_dir, overwrite=False, log=print):
    """Writes the BERT of the Hugging Face folder `model_dir` as a snapshot.

    Args:
        model_dir: folder with config.json, weights and vocabulary.
        output_dir: the snapshot's folder; whole or not there.
        overwrite: replace a snapshot that is there already.
        log: called with one line for each thing a user should know.
    Raises:
        UserError: the folder is no BERT, is damaged, or the output cannot be written.
    """
    if not os.path.isdir(model_dir):
        raise UserError(f"--model_dir {model_dir}: no such folder (download a model of the Hugging Face hub first)")
    _check_output(model_dir, output_dir, overwrite)
    config, values = read_config(model_dir)
    vocab = read_vocab(model_dir, config)
    architectures = values.get("architectures") or []
    is_classifier = not architectures or "BertForSequenceClassification" in architectures
    variables, left = to_variables(read_tensors(model_dir), config, is_classifier)
    write_variables(output_dir, variables, {CONFIG_FILE: config.to_json(), VOCAB_FILE: vocab})

    parameters = sum(value.size for value in variables.values())
    log(
        f"{output_dir}: {config.num_hidden_layers} layers x {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{vocab.count(chr(10))} tokens; {len(variables)} variables, {parameters / 1e6:.1f} million parameters"
    )
    if checkpoint_names.POOLER[0].snapshot not in variables:
        log("no pooler in the checkpoint: the phases initialise it")
    classifier = variables.get(checkpoint_names.CLASSIFIER[0].snapshot)
    if classifier is not None:
        log(f"classifier of {len(classifier)} labels kept; a phase with other labels starts its own")
    if left:
        log("left behind: " + ", ".join(left))
    tokenizer = os.path.join(model_dir, "tokenizer_config.json")
    if os.path.isfile(tokenizer) and _read_json(tokenizer).get("do_lower_case") is False:
        log("the model is cased: give --do_lower_case false to every phase")


def main(argv=None):
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    required = dict(required=True, default=argparse.SUPPRESS)  # a required flag has no default to show
    parser.add_argument("--model_dir", help="Hugging Face folder: config.json, weights, vocabulary", **required)
    parser.add_argument("--output_dir", help="folder of the snapshot to write", **required)
    parser.add_argument("--overwrite", action="store_true", help="replace a snapshot that is there already")
    flags = parser.parse_args(argv)
    convert(flags.model_dir, flags.output_dir, flags.overwrite)


if __name__ == "__main__":
    run(main)
