"""Reads Google's TensorFlow checkpoints of BERT: a folder with bert_model.ckpt.*, bert_config.json and vocab.txt.

This format needs TensorFlow, which the project does not install. Dense weights are [in, out], as in a snapshot.
"""

import os

import numpy as np

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from tools import checkpoint_names
from tools.checkpoint_files import read_vocabulary
from tools.checkpoint_model import Checkpoint, array_tensor, check_names, read_variables

PREFIX = "bert_model.ckpt"
INDEX = PREFIX + ".index"

# Variables that are not weights of the model: those of the optimizer, the step, and the heads of pre-training except TOKEN_HEAD.
_SLOTS, _STEP, _HEADS = ("adam_m", "adam_v"), "global_step", "cls/"


def open_checkpoint(prefix):
    """Opens a checkpoint with TensorFlow.

    Returns:
        an object with `get_variable_to_shape_map()` and `get_tensor(name)`.
    Raises:
        UserError: if TensorFlow is not installed or refuses the files.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides its messages about this processor
    try:
        import tensorflow
    except ImportError as error:
        raise UserError(
            f"{prefix} needs TensorFlow, which is not installed: run pip install tensorflow-cpu "
            "(a separate environment is enough), or convert a Hugging Face folder of the same model"
        ) from error
    try:
        return tensorflow.train.load_checkpoint(prefix)
    except Exception as error:  # TensorFlow's errors have no public base class
        raise UserError(f"{prefix} cannot be read: {type(error).__name__}: {error}") from error


def _tensor(reader, name, prefix):
    try:
        return array_tensor(np.asarray(reader.get_tensor(name)))
    except Exception as error:  # as above
        raise UserError(f"{prefix}: {name} cannot be read: {type(error).__name__}: {error}") from error


def read(path, vocab_file=None, num_heads=None):
    """Reads the BERT of a folder that Google published.

    Args:
        path: the folder.
        vocab_file: a vocabulary that replaces the one of the folder.
        num_heads: not used, because bert_config.json has the number.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: if TensorFlow or bert_config.json is missing, or the variables are not those of a BERT.
    """
    prefix, config_file = os.path.join(path, PREFIX), os.path.join(path, CONFIG_FILE)
    if not os.path.isfile(config_file):
        raise UserError(f"{config_file}: no such file; a checkpoint of Google needs it in the same folder as {INDEX}")
    config = BertConfig.from_dict(read_json(config_file, "download the checkpoint again, or check --model_dir"), config_file)
    vocab = read_vocabulary(vocab_file or os.path.join(path, VOCAB_FILE), config)
    reader = open_checkpoint(prefix)
    stored, slots, heads = {}, [], []
    kept = checkpoint_names.whole_token_head(reader.get_variable_to_shape_map(), "google")
    for name in reader.get_variable_to_shape_map():
        if name == _STEP or name.split("/")[-1] in _SLOTS:
            slots.append(name)
        elif name.startswith(_HEADS) and name not in kept:
            heads.append(name)
        else:
            stored[name] = name
    check_names(stored, "google", config.num_hidden_layers, CONFIG_FILE)
    tensors = {name: _tensor(reader, name, prefix) for name in stored}
    notes = []
    if slots:
        kinds = ", ".join(sorted({name.split("/")[-1] for name in slots}))
        notes.append(f"left out: {len(slots)} variables of the optimizer ({kinds})")
    if heads:
        notes.append("left out: " + ", ".join(sorted(heads)))
    variables = read_variables(tensors, stored, "google", config, CONFIG_FILE)
    return Checkpoint(variables, config, vocab, notes=tuple(notes))
