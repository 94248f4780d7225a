"""Reads and writes the BERT folders of Hugging Face.

`read` needs config.json, the weights (model.safetensors, in one file or in shards, or pytorch_model.bin if PyTorch is
installed) and vocab.txt (or the vocabulary inside tokenizer.json). Tensor names may have the prefix `bert.`. The types
float16, bfloat16, float32 and float64 are accepted. A model that is not a BERT is refused with a reason. StructBERT is a BERT
that was trained in another way, so it is read too.

`write` makes config.json, model.safetensors, vocab.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json and the card
README.md. AutoTokenizer of transformers loads them, and AutoModelForSequenceClassification; without a classifier the class of its head of
tags, answers or masked language modelling, or AutoModel if there is none.
"""

import json
import math
import os

import numpy as np
from safetensors.numpy import save

from modeling.bert.config import BERT, CLS, BertConfig
from modeling.checkpoints.snapshot import VOCAB_FILE
from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS
from ofrecord_util.tokenizer_settings import TokenizerSettings
from tools import checkpoint_names, checkpoint_roberta
from tools.checkpoint_card import CARD_FILE, card
from tools.checkpoint_files import read_tokens, refuse_pointer, vocabulary_text, write_folder
from tools.checkpoint_labels import label_names, read_labels
from tools.checkpoint_model import Checkpoint, read_variables, rename
from tools.checkpoint_tensors import SAFETENSORS, read_tensors, without_prefix
from tools.checkpoint_tokenizer import SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, read_settings, tokenizer_texts

FILES = ("config.json", SAFETENSORS, VOCAB_FILE, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, CARD_FILE)  # the files that `write` makes

_REMEDY = "download the model again, or check --model_dir"

_KINDS = (BERT, "sbert", "structbert")  # values of model_type; SOFA, which published StructBERT, calls it sbert
_CLASSES = ("Bert", "Sbert", "StructBert")  # how the names of their classes begin


def read_config(model_dir):
    """Reads the sizes of the encoder from a config.json of Hugging Face.

    Returns:
        (BertConfig, the parsed config.json).
    Raises:
        UserError: if the model is not a BERT, or computes something else than the BERT of this project.
    """
    path = os.path.join(model_dir, "config.json")
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: no such file; --model_dir must be a Hugging Face folder with config.json, "
            "a snapshot, a folder with Google's bert_model.ckpt.index, or an .npz file"
        )
    refuse_pointer(path)
    values = read_json(path, _REMEDY)
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise UserError(f"{path}: architectures must be a list of names, not {architectures!r}")
    # The first releases wrote no model_type.
    kind = values.get("model_type")
    if kind is None:
        is_bert = all(name.startswith(_CLASSES) for name in architectures)
        kind = BERT if is_bert else checkpoint_roberta.kind_of(architectures) or architectures[0]
    if not isinstance(kind, str) or kind not in {*_KINDS, *checkpoint_roberta.KINDS}:
        known = ", ".join(map(repr, (*_KINDS, *checkpoint_roberta.KINDS)))
        raise UserError(f"{path}: model_type is {kind!r}; only {known} are supported")
    values = dict(values, model_type=BERT) if kind in _KINDS else checkpoint_roberta.bert_values(values, kind, path)
    for key, plain in (("position_embedding_type", "absolute"), ("attention_type", "self")):  # the second is StructBERT's
        if values.get(key, plain) != plain:
            raise UserError(f"{path}: {key} is {values[key]!r}; only {plain!r} is supported")
    for key in ("is_decoder", "add_cross_attention", "pruned_heads"):
        if values.get(key):
            raise UserError(f"{path}: {key} is {values[key]!r}; only the whole, bidirectional encoder is supported")
    for key in ("layer_norm_eps", "initializer_range"):
        value = values.get(key, 1e-12)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise UserError(f"{path}: {key} must be a number above 0, not {value!r}")
    return BertConfig.from_dict(values, path), values


def _tied_token_head(tensors):
    """Names of the head of masked language modelling, empty if it is not complete, or if its output weights are not the word embeddings."""
    plain = {checkpoint_names.canonical_name(name): tensor for name, tensor in tensors.items()}
    originals = {
        checkpoint_names.DECODER_WEIGHT: "embeddings.word_embeddings.weight",
        checkpoint_names.DECODER_BIAS: "cls.predictions.bias",
    }
    for copy, original in originals.items():
        if copy in plain and original in plain and not np.array_equal(plain[copy].read(), plain[original].read()):
            return ()
    return checkpoint_names.whole_token_head(plain, "hugging_face")


def to_variables(tensors, config, is_classifier=True, tags=False):
    """Renames, checks and transposes the tensors of a BERT.

    Args:
        tensors: dict of stored name -> Tensor.
        config: the encoder's BertConfig.
        is_classifier: whether a tensor `classifier` classifies whole sequences, and not tokens, for example.
        tags: whether it tags tokens.
    Returns:
        (dict of variable name -> float32 array, list of stored names that are not used).
    Raises:
        UserError: as `read_variables`, or if a tensor is stored twice.
    """
    stored, left, kept = {}, [], _tied_token_head(tensors)
    for name in tensors:
        plain = checkpoint_names.canonical_name(name)
        if tags and plain.startswith("classifier."):
            plain = plain.replace("classifier.", checkpoint_names.TAG_CLASSIFIER, 1)
        if plain in checkpoint_names.BUFFERS or (kept and plain in (checkpoint_names.DECODER_WEIGHT, checkpoint_names.DECODER_BIAS)):
            continue
        head = plain.startswith(checkpoint_names.HEADS_LEFT_BEHIND) and plain not in kept
        if head or (plain.startswith("classifier.") and not is_classifier):
            left.append(name)
        elif plain in stored:
            raise UserError(f"tensors {stored[plain]} and {name} are the same variable")
        else:
            stored[plain] = name
    return read_variables(tensors, stored, "hugging_face", config, "config.json"), sorted(left)


def _check_same(tokens, path, parsed_path):
    """Raises a UserError if the vocabulary inside tokenizer.json is another one than vocab.txt."""
    if not os.path.isfile(parsed_path):
        return
    refuse_pointer(parsed_path)
    model = read_json(parsed_path, _REMEDY).get("model")
    inside = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(inside, dict) and inside:
        ids = {token: number for number, token in enumerate(tokens)}
        odd = next((token for token, number in inside.items() if type(number) is not int), None)
        if odd is not None:
            raise UserError(f"{parsed_path}: the id of token {odd!r:.40} is {inside[odd]!r:.40}, which is not a whole number; {_REMEDY}")
        other = sorted(token for token, number in inside.items() if ids.get(token.strip()) != number and number < len(tokens))
        if other:
            raise UserError(
                f"{path} and {parsed_path} are different vocabularies: {len(other)} tokens have other ids, for example {other[0]!r:.40}; "
                "set --vocab_file to the right one"
            )


def _vocab_tokens(model_dir):
    """Reads the vocabulary in the order of its ids. Also returns the path of its file."""
    path = os.path.join(model_dir, VOCAB_FILE)
    if os.path.isfile(path):
        tokens = read_tokens(path)
        _check_same(tokens, path, os.path.join(model_dir, TOKENIZER))
        return tokens, path
    path = os.path.join(model_dir, TOKENIZER)
    refuse_pointer(path)
    if not os.path.isfile(path):
        raise UserError(f"{model_dir}: neither {VOCAB_FILE} nor tokenizer.json, so there is no vocabulary; set --vocab_file")
    model = read_json(path, _REMEDY).get("model")
    if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise UserError(f"{path} does not hold a WordPiece vocabulary; set --vocab_file")
    tokens = sorted(model["vocab"], key=lambda token: str(model["vocab"][token]).zfill(20))
    if [model["vocab"][token] for token in tokens] != list(range(len(tokens))) or "\n" in "".join(tokens):
        raise UserError(f"{path}: the token ids are not 0 to {len(tokens) - 1}, each once; set --vocab_file")
    return tokens, path


def read(path, vocab_file=None, num_heads=None):
    """Reads the BERT of a Hugging Face folder.

    Args:
        path: folder with config.json, weights and vocabulary.
        vocab_file: a vocabulary that replaces the one of the folder.
        num_heads: not used, because config.json has the number.
    Returns:
        `Checkpoint`.
    Raises:
        UserError: if the folder does not hold a BERT, or is damaged.
    """
    config, values = read_config(path)
    if config.model_type != BERT:
        return _read_roberta(path, config, values, vocab_file)
    tokens, origin = _vocab_tokens(path) if vocab_file is None else (read_tokens(vocab_file), vocab_file)
    settings, tokens, notes, longest = read_settings(path, tokens, origin, values.get("tokenizer_class"))
    vocab = vocabulary_text(tokens, origin, config)
    if len(tokens) < config.vocab_size:
        notes.append(
            f"{config.vocab_size - len(tokens)} of {config.vocab_size} word embeddings have no token; they stay, and no text uses them"
        )
    architectures = values.get("architectures") or []
    is_classifier = not architectures or any(kind + "ForSequenceClassification" in architectures for kind in _CLASSES)
    tags = any(kind + "ForTokenClassification" in architectures for kind in _CLASSES)
    tensors, prefix = without_prefix(read_tensors(path))
    if prefix:
        notes.append(f"the names of the tensors begin with {prefix!r}, which is removed")
    variables, left = to_variables(tensors, config, is_classifier, tags)
    return _with_notes(Checkpoint(variables, config, vocab, settings=settings), values, longest, notes, left)


def _read_roberta(path, config, values, vocab_file):
    """`read` for the kinds of tools/checkpoint_roberta.py."""
    vocab, longest = checkpoint_roberta.read_tokenizer(path, vocab_file, config, values.get("tokenizer_class"))
    tensors, prefix = without_prefix(read_tensors(path), checkpoint_roberta.PREFIX)
    notes = [f"the names of the tensors begin with {prefix!r}, which is removed"] if prefix else []
    tags = any(name.endswith("ForTokenClassification") for name in values.get("architectures") or [])
    tensors, unused, is_classifier = checkpoint_roberta.bert_tensors(tensors, tags)
    variables, left = to_variables(tensors, config, is_classifier, tags and not is_classifier)
    return _with_notes(Checkpoint(variables, config, vocab, settings=TokenizerSettings(False)), values, longest, notes, [*unused, *left])


def _with_notes(checkpoint, values, longest, notes, left):
    """The checkpoint with notes, and with a task if it has a classifier or tags words.

    Args:
        values: parsed config.json.
        longest: maximum length in tokens of the tokenizer, or None.
        notes: list of lines so far.
        left: names of tensors that are not used.
    """
    if left:
        notes.append("left out: " + ", ".join(sorted(left)))
    if checkpoint.num_labels or checkpoint.num_tags:
        task, note = read_labels(values, checkpoint, longest)
        checkpoint = checkpoint._replace(task=task)
        notes += [note] if note else []
    return checkpoint._replace(notes=tuple(notes))


def to_config(checkpoint, labels):
    """Returns the content of config.json as a dict.

    Args:
        labels: names in the order of their ids; empty without a classifier or tags.
    """
    config = checkpoint.config
    values = dict(config.as_dict(), model_type=BERT, position_embedding_type="absolute")
    del values["pooling"], values["pooler_input_dropout_prob"]  # the BERT of transformers has cls only, see `write`
    kind = checkpoint_names.head_of(checkpoint.variables)[1]
    values.update(architectures=["Bert" + kind], classifier_dropout=None, torch_dtype="float32")
    if labels:
        values["num_labels"] = len(labels)
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
        task_type = (checkpoint.task or {}).get("task_type", CLASSIFICATION)
        if task_type != CLASSIFICATION:
            values["problem_type"] = LABEL_KINDS[task_type].problem_type
    if config.model_type != BERT:
        return checkpoint_roberta.own_values(values, config)
    return dict(values, pad_token_id=checkpoint.vocab.split("\n").index("[PAD]"))


def to_tensors(variables, num_hidden_layers):
    """Returns a dict of Hugging Face name -> array. Dense weights are [out, in]. The encoder's names begin with `bert.` if
    there is a head; a model of transformers has one, here that of `checkpoint_names.head_of`."""
    pairs = [*checkpoint_names.encoder_pairs(num_hidden_layers), *checkpoint_names.POOLER]
    found = rename(variables, checkpoint_names.head_of(variables)[0], "hugging_face")
    head = {name.replace(checkpoint_names.TAG_CLASSIFIER, "classifier."): value for name, value in found.items()}
    prefix = "bert." if head else ""
    encoder = rename(variables, pairs, "hugging_face")
    return dict({prefix + name: value for name, value in encoder.items()}, **head)


def write(folder, checkpoint):
    """Writes a Hugging Face folder. If writing fails, no folder is left.

    Returns:
        (documented names of the variables written, list of notes: variables that were left out, facts that were not known).
    Raises:
        UserError: if the classifier has another pooling than [CLS] or no pooler, the casing is unknown, the labels do not
            fit, or the folder cannot be written.
    """
    notes = []
    if checkpoint.num_labels and checkpoint.config.pooling != CLS:
        raise UserError(
            f"the classifier of the checkpoint reads the {checkpoint.config.pooling} of the states, that of transformers reads [CLS] only; "
            "keep the model as a snapshot, or train one that reads [CLS]"
        )
    if checkpoint.num_labels and not checkpoint.has_pooler:
        raise UserError(
            "the checkpoint has a classifier but no pooler, and transformers would initialise one at random; train the model here first"
        )
    if checkpoint.do_lower_case is None:
        raise UserError("the checkpoint does not say whether it is cased; set --do_lower_case to true (uncased) or false")
    labels = []
    if checkpoint.num_labels or checkpoint.num_tags:
        labels, notes = label_names(checkpoint)
    elif not checkpoint.has_pooler and not checkpoint_names.head_of(checkpoint.variables)[0]:
        notes.append("the checkpoint has no pooler, so none is written, and transformers initialises one at random unless "
                     "add_pooling_layer=False")  # fmt: skip
    tensors = to_tensors(checkpoint.variables, checkpoint.config.num_hidden_layers)
    known = {pair.snapshot for pair in checkpoint_names.encoder_pairs(checkpoint.config.num_hidden_layers)}
    head = checkpoint_names.head_of(checkpoint.variables)[0]
    known.update(pair.snapshot for pair in (*checkpoint_names.POOLER, *head))
    left = sorted(set(checkpoint.variables) - known)
    if left:
        notes.append("left out, transformers' BERT has no such head: " + ", ".join(left))

    if checkpoint.config.model_type == BERT:
        tokens = checkpoint.vocab.split("\n")[:-1]
        texts = dict(tokenizer_texts(checkpoint.settings, tokens, checkpoint.max_length), **{VOCAB_FILE: checkpoint.vocab})
    else:
        tensors = checkpoint_roberta.own_tensors(tensors, bool(checkpoint.num_labels), bool(head))
        texts = checkpoint_roberta.tokenizer_files(checkpoint)
    texts["config.json"] = to_config(checkpoint, labels)
    files = {
        name: value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, value in texts.items()
    }
    files[CARD_FILE], card_notes = card(os.path.basename(os.path.realpath(folder)), checkpoint)
    notes += card_notes
    files[SAFETENSORS] = save(tensors, {"format": "pt"})  # transformers refuses a file without the name of its framework
    write_folder(folder, files)
    return known & set(checkpoint.variables), notes
