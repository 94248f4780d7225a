"""Reads the stored tensors of a Hugging Face folder: safetensors or PyTorch, in one file or in shards.

The values are read when they are asked for, so that the weights are in memory once. Nothing here depends on the kind of the model.
"""

import contextlib
import os

import numpy as np

from ofrecord_util.array_reading import PartFile
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from tools.checkpoint_files import refuse_pointer
from tools.checkpoint_model import Tensor

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
_SINGLE_FILES = ("en_model", "ch_model")  # StructBERT's first archives: a PyTorch file, English or Chinese

_REMEDY = "download the model again, or check --model_dir"

# Up to 2.5, torch.load(weights_only=True) could still be made to run a file's code (CVE-2025-32434).
_SAFE_TORCH = (2, 6)


def _inside(folder, name):
    """Returns the path of `name` in `folder`. An index file must not name a file outside its folder."""
    if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
        raise UserError(f"{folder}: the index names {name!r}, which is not a file of this folder")
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file, but the index in this folder names it")
    refuse_pointer(path)
    return path


def _decode(data, dtype):
    """Converts the raw bytes of a safetensors tensor to float32 values."""
    if dtype == "BF16":  # NumPy does not have this type: it is the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    # A value beyond float32's range becomes infinite here, and the caller refuses it.
    with np.errstate(over="ignore"):
        return np.frombuffer(data, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype(np.float32)


def _read_safetensors(path):
    """Reads a dict of name -> Tensor. The library checks the file. It has no bfloat16 for NumPy, so the bytes are read here."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(PartFile(path, _REMEDY, 1 << 40))  # not mapped, because a file that is cut would end the process
        try:
            tensors = file.safetensors()
        except ValueError as error:
            raise UserError(f"{path} is not a complete safetensors file: {error}") from error
        stack.pop_all()  # it stays open, for the tensors

    def tensor(entry):
        def read():
            return _decode(file.read(np.empty(entry.size, np.uint8), entry.start), entry.dtype).reshape(entry.shape)

        return Tensor(entry.shape, entry.dtype, read)

    return {name: tensor(entry) for name, entry in tensors.items()}


def _import_torch(path):
    mend = (
        f"pip install 'torch>={_SAFE_TORCH[0]}.{_SAFE_TORCH[1]}' (the CPU build is enough; Python 3.9 or newer), "
        f"or save the model as {SAFETENSORS}"
    )
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{path} needs PyTorch, which is not installed: {mend}") from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _SAFE_TORCH:
        raise UserError(f"{path}: PyTorch {torch.__version__} may run code that such a file hides: {mend}")
    return torch


def _read_torch(path):
    """Reads a dict of name -> Tensor from a PyTorch file. Only plain tensors are accepted."""
    torch = _import_torch(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document the types of its errors
        # The message of torch is left out, because it asks the user to switch the protection off.
        raise UserError(f"{path} is damaged or holds more than plain tensors ({type(error).__name__}): not read") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds values that are not named tensors")

    def tensor(value):
        dtype = str(value.dtype).replace("torch.", "")
        dtype = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}.get(dtype, dtype)
        return Tensor(tuple(value.shape), dtype, lambda: value.detach().to(torch.float32).contiguous().numpy())

    return {str(name): tensor(value) for name, value in state.items()}


def read_state(path):
    """The tensors of one PyTorch file: dict of name -> Tensor. UserError if it is damaged or holds more than plain tensors."""
    refuse_pointer(path)
    return _read_torch(path)


def read_tensors(model_dir):
    """Lists all stored tensors of a Hugging Face folder. Their values are read later, on request.

    Returns:
        dict of name (as stored) -> Tensor.
    Raises:
        UserError: if there are no weights, a file is damaged, or the shards do not agree with their index.
    """
    for single, reader in ((SAFETENSORS, _read_safetensors), (TORCH, _read_torch)):
        path, index = os.path.join(model_dir, single), os.path.join(model_dir, single + ".index.json")
        if os.path.isfile(path):
            refuse_pointer(path)
            return reader(path)
        if os.path.isfile(index):
            where = read_json(index, _REMEDY).get("weight_map")
            if not isinstance(where, dict) or not where:
                raise UserError(f"{index} has no weight_map")
            shards = {shard: reader(_inside(model_dir, shard)) for shard in sorted(set(map(str, where.values())))}
            absent = sorted(name for name, shard in where.items() if name not in shards[str(shard)])
            if absent:
                raise UserError(f"{index} names tensors that are not in its files: {', '.join(absent)}")
            return {name: shards[str(shard)][name] for name, shard in where.items()}
    found = sorted(os.listdir(model_dir))
    singles = [os.path.join(model_dir, name) for name in _SINGLE_FILES if os.path.isfile(os.path.join(model_dir, name))]
    if len(singles) > 1:
        raise UserError(f"{model_dir} has the weights of two models ({', '.join(_SINGLE_FILES)}): put each into a folder of its own")
    if singles:
        return read_state(singles[0])
    raise UserError(f"{model_dir}: neither {SAFETENSORS} nor {TORCH} (nor their .index.json); found {', '.join(found) or 'nothing'}")


def without_prefix(tensors, base="bert."):
    """Removes a prefix that all names have, such as `module.` of torch.nn.DataParallel.

    Args:
        tensors: dict of name -> Tensor.
        base: prefix of the encoder in a model with a head, which stays.
    Returns:
        (dict of name -> Tensor, the prefix or "").
    Raises:
        UserError: only some names have the prefix of the encoder, or there are several encoders.
    """
    start = "embeddings.word_embeddings.weight"
    prefixes = sorted(name[: -len(start)] for name in tensors if name.endswith(start))
    # `base` itself is the prefix of models with a head, whose names do not have it
    heads = [prefix[: -len(base)] if prefix.endswith(base) else None for prefix in prefixes]
    prefixes = [prefix if head is None or (head and not head.endswith(".")) else head for prefix, head in zip(prefixes, heads)]
    if len(prefixes) > 1:
        raise UserError(f"the tensors are those of {len(prefixes)} encoders ({', '.join(map(repr, prefixes))}); save one of them alone")
    prefix = prefixes[0] if prefixes else ""
    others = sorted(name for name in tensors if not name.startswith(prefix))
    if others:
        raise UserError(
            f"the names of the encoder's tensors begin with {prefix!r}, but {len(others)} others do not ({', '.join(others[:5])}): "
            "this is a model around a BERT; save its BERT alone"
        )
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}, prefix
