"""XLM-R and RoBERTa in the folders of Hugging Face: what they write otherwise than BERT. The layers are the same.

- A text's positions begin at 2, so rows 0 and 1 of the table are left out, and are written back as zeros. No text uses them.
- There is one token type, which all tokens have.
- The classifier is W2 dropout(tanh(W1 dropout(h) + b1)) + b2: `classifier.dense`, which is the pooler here, and `classifier.out_proj`. The
  `pooler.dense` of a folder with a classifier is not used.
- The tokenizer is that of tokenizer.json (ofrecord_util/json_tokenizer.py), or of sentencepiece.bpe.model.
"""

import os

import numpy as np
from tokenizers.processors import TemplateProcessing

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.json_tokenizer import BEGIN, END, JSON_FILE, MASKED, PADDING, UNKNOWN, parse_tokenizer
from tools.checkpoint_files import read_vocabulary
from tools.checkpoint_model import Tensor
from tools.checkpoint_tokenizer import FROM_JSON, SPECIAL_TOKENS, TOKENIZER_CONFIG, refuse

PREFIX = "roberta."
KINDS = {"xlm-roberta": "xlm-roberta", "roberta": "roberta", "veco": "xlm-roberta"}  # model_type -> that of `BertConfig`
SENTENCEPIECE = "sentencepiece.bpe.model"
_CLASSES = {"xlm-roberta": "XLMRoberta", "roberta": "Roberta"}  # how the names of their classes begin
_TOKENIZERS = ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "RobertaTokenizer", "RobertaTokenizerFast", *FROM_JSON)
_ROLES = {"bos_token": BEGIN, "cls_token": BEGIN, "eos_token": END, "sep_token": END, "pad_token": PADDING, "unk_token": UNKNOWN}
_PADDING_ID = 1
_SHIFT = _PADDING_ID + 1  # rows of the position table before the first token's
_POSITIONS = "embeddings.position_embeddings.weight"
_HEADS_LEFT_BEHIND = ("lm_head.", "classifier.")
_REMEDY = "download the model again, or check --model_dir"


def kind_of(architectures):
    """The kind of a folder without model_type, from the names of its classes; None if they are of other kinds."""
    kinds = [kind for kind, start in _CLASSES.items() if architectures and all(name.startswith(start) for name in architectures)]
    return kinds[0] if kinds else None


def bert_values(values, kind, path):
    """A parsed config.json with the keys of `BertConfig`.

    Args:
        values: dict.
        kind: a key of KINDS.
        path: of the file, for messages.
    Raises:
        UserError: the padding has another id than 1, or the number of positions or the rate of the classifier's dropout is none.
    """
    padding, positions = values.get("pad_token_id", _PADDING_ID), values.get("max_position_embeddings", 512 + _SHIFT)
    if padding != _PADDING_ID:
        raise UserError(f"{path}: pad_token_id is {padding!r:.40}; only {_PADDING_ID} is supported, because the positions depend on it")
    if isinstance(positions, bool) or not isinstance(positions, int) or positions <= _SHIFT:
        raise UserError(f"{path}: max_position_embeddings must be a whole number above {_SHIFT}, not {positions!r:.40}")
    rate = values.get("classifier_dropout")
    rate = values.get("hidden_dropout_prob", 0.1) if rate is None else rate
    return dict(values, model_type=KINDS[kind], max_position_embeddings=positions - _SHIFT, pooler_input_dropout_prob=rate)


def bert_tensors(tensors, tags=False):
    """Tensors under the names that a BERT has for them.

    Args:
        tensors: dict of name -> `Tensor`, with or without PREFIX.
        tags: whether the classifier tags tokens.
    Returns:
        (dict of name -> `Tensor`, list of the names that are not used, whether there is a classifier of sequences).
    Raises:
        UserError: a tensor is stored twice, with and without PREFIX.
    """
    plain = {name: name[len(PREFIX) :] if name.startswith(PREFIX) else name for name in tensors}
    is_classifier = "classifier.out_proj.weight" in plain.values()
    found, left = {}, []
    for name, tensor in tensors.items():
        new = plain[name]
        if is_classifier and new.startswith("pooler."):
            left.append(name)
            continue
        if is_classifier and new.startswith("classifier.dense."):
            new = new.replace("classifier.", "pooler.", 1)
        elif is_classifier and new.startswith("classifier.out_proj."):
            new = new.replace("out_proj.", "", 1)
        elif new.startswith(_HEADS_LEFT_BEHIND) and not (tags and new in ("classifier.weight", "classifier.bias")):
            left.append(name)
            continue
        if new in found:
            raise UserError(f"tensors {new} and {PREFIX}{new} are the same variable")
        found[new] = _without_first_rows(tensor) if new == _POSITIONS else tensor
    return found, left, is_classifier


def _without_first_rows(tensor):
    if not tensor.shape:  # damaged, and refused later
        return tensor
    return Tensor((max(tensor.shape[0] - _SHIFT, 0), *tensor.shape[1:]), tensor.dtype, lambda: tensor.read()[_SHIFT:])


def read_tokenizer(model_dir, vocab_file, config, tokenizer_class=None):
    """Reads the tokenizer of a folder.

    Args:
        model_dir: the folder.
        vocab_file: a file that replaces that of the folder, or None.
        config: `BertConfig`.
        tokenizer_class: that of config.json, or None.
    Returns:
        (text of tokenizer.json, maximum length in tokens or None).
    Raises:
        UserError: there is no tokenizer, it does something that this project cannot do, or it does not fit the model.
    """
    path = os.path.join(model_dir, TOKENIZER_CONFIG)
    values = read_json(path, _REMEDY) if os.path.isfile(path) else {}
    name = values.get("tokenizer_class") or tokenizer_class
    if name is not None and name not in _TOKENIZERS:
        refuse(path, f"tokenizer_class is {name!r:.60}", " or ".join(_TOKENIZERS))
    for role, token in _ROLES.items():
        found = values.get(role)
        found = found.get("content") if isinstance(found, dict) else found
        if found not in (None, token):
            refuse(path, f"{role} is {found!r:.60}", token)
    files = [os.path.join(model_dir, name) for name in (JSON_FILE, SENTENCEPIECE)]
    vocab = vocab_file or next((file for file in files if os.path.isfile(file)), None)
    if vocab is None:
        raise UserError(f"{model_dir}: neither {JSON_FILE} nor {SENTENCEPIECE}, so there is no tokenizer; set --vocab_file")
    longest = values.get("model_max_length")
    return read_vocabulary(vocab, config), longest if isinstance(longest, int) and not isinstance(longest, bool) else None


def own_tensors(tensors, is_classifier, has_head=False):
    """Arrays under the names of these models.

    Args:
        tensors: dict of name in a BERT's folder -> array.
        is_classifier: whether there is a classifier, whose names then have no prefix.
        has_head: whether there is a head of tags or answers, whose names then have no prefix.
    """
    found = {}
    for name, value in tensors.items():
        plain = name[len("bert.") :] if name.startswith("bert.") else name
        if plain == _POSITIONS:
            value = np.concatenate([np.zeros((_SHIFT, value.shape[1]), value.dtype), value])
        if is_classifier and plain.startswith("pooler."):
            name = plain.replace("pooler.", "classifier.", 1)
        elif is_classifier and plain.startswith("classifier."):
            name = plain.replace("classifier.", "classifier.out_proj.", 1)
        elif plain.startswith(("classifier.", "qa_outputs.")):
            name = plain
        else:
            name = PREFIX + plain if is_classifier or has_head else plain
        found[name] = value
    return found


def own_values(values, config):
    """The content of config.json.

    Args:
        values: that of a BERT, without its special tokens.
        config: `BertConfig`.
    """
    (architecture,) = (_CLASSES[config.model_type] + name[len("Bert") :] for name in values["architectures"])
    rate = config.pooler_input_dropout_prob
    return dict(
        values,
        architectures=[architecture],
        model_type=config.model_type,
        max_position_embeddings=config.max_position_embeddings + _SHIFT,
        classifier_dropout=None if rate == config.hidden_dropout_prob else rate,
        pad_token_id=_PADDING_ID,
        bos_token_id=0,
        eos_token_id=2,
    )


def tokenizer_files(checkpoint):
    """The tokenizer's files of a folder: dict of file name -> str, or dict for JSON."""
    library = parse_tokenizer(checkpoint.vocab.encode("utf-8"), JSON_FILE)
    library.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} {END} $B {END}",
        special_tokens=[(token, library.token_to_id(token)) for token in (BEGIN, END)],
    )
    library.enable_truncation(checkpoint.max_length)
    roles = dict(_ROLES, **({} if library.token_to_id(MASKED) is None else {"mask_token": MASKED}))
    config = dict(
        roles,
        tokenizer_class=FROM_JSON[0],  # XLMRobertaTokenizer of transformers 5 builds a tokenizer of its own
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=checkpoint.max_length,
        split_special_tokens=True,  # texts are not searched for special tokens, as in training
    )
    return {JSON_FILE: library.to_str(pretty=True), TOKENIZER_CONFIG: config, SPECIAL_TOKENS: roles}
