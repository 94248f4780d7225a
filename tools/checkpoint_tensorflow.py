"""Google's TensorFlow checkpoints of BERT, in: bert_model.ckpt.*, bert_config.json and vocab.txt in a folder.

Needs TensorFlow, which this project does not install. Dense weights are [in, out], as in a snapshot.
"""

import os

import numpy as np

from modeling.bert.config import BertConfig
from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE
from ofrecord_util.errors import UserError
from tools.checkpoint_files import read_json, read_vocabulary
from tools.checkpoint_model import Checkpoint, array_tensor, check_names, read_variables

PREFIX = "bert_model.ckpt"
INDEX = PREFIX + ".index"

# What Google's training script keeps beside the weights; the heads of pre-training and of question answering.
_SLOTS, _STEP, _HEADS = ("adam_m", "adam_v"), "global_step", "cls/"


def open_checkpoint(prefix):
    """TensorFlow's reader of a checkpoint.

    Returns:
        an object with `get_variable_to_shape_map()` and `get_tensor(name)`.
    Raises:
        UserError: TensorFlow is not installed, or refuses the files.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its start-up notes about this processor
    try:
        import tensorflow
    except ImportError as error:
        raise UserError(
            f"{prefix} can be read with TensorFlow only, which is not installed here: pip install tensorflow-cpu "
            "(an environment of its own will do), or convert a Hugging Face folder of the same model"
        ) from error
    try:
        return tensorflow.train.load_checkpoint(prefix)
    except Exception as error:  # TensorFlow's own errors have no common class outside it
        raise UserError(f"{prefix} cannot be read: {type(error).__name__}: {error}") from error


def _tensor(reader, name, prefix):
    try:
        return array_tensor(np.asarray(reader.get_tensor(name)))
    except Exception as error:  # as above
        raise UserError(f"{prefix}: {name} cannot be read: {type(error).__name__}: {error}") from error


def read(path, vocab_file=None, num_heads=None):
    """The BERT of a folder as Google publishes it.

    Args:
        path: the folder.
        vocab_file: a vocabulary to take instead of the folder's.
        num_heads: not needed, bert_config.json says it.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: no TensorFlow, no bert_config.json, or variables that are not BERT's.
    """
    prefix, config_file = os.path.join(path, PREFIX), os.path.join(path, CONFIG_FILE)
    if not os.path.isfile(config_file):
        raise UserError(f"{config_file}: no such file, but Google's checkpoints need it beside {INDEX}")
    config = BertConfig.from_dict(read_json(config_file), config_file)
    vocab = read_vocabulary(vocab_file or os.path.join(path, VOCAB_FILE), config)
    reader = open_checkpoint(prefix)
    stored, slots, heads = {}, [], []
    for name in reader.get_variable_to_shape_map():
        if name == _STEP or name.split("/")[-1] in _SLOTS:
            slots.append(name)
        elif name.startswith(_HEADS):
            heads.append(name)
        else:
            stored[name] = name
    check_names(stored, "google", config.num_hidden_layers, CONFIG_FILE)
    tensors = {name: _tensor(reader, name, prefix) for name in stored}
    notes = []
    if slots:
        kinds = ", ".join(sorted({name.split("/")[-1] for name in slots}))
        notes.append(f"left behind: {len(slots)} variables of the optimizer ({kinds})")
    if heads:
        notes.append("left behind: " + ", ".join(sorted(heads)))
    variables = read_variables(tensors, stored, "google", config, CONFIG_FILE)
    return Checkpoint(variables, config, vocab, notes=tuple(notes))
