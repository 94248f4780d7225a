"""The tokenizer of a Hugging Face folder: reads the settings that decide the ids of a text, and writes them.

Settings stand in tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json. What the `Tokenizer` of this project
can do is kept, anything else is refused: other ids than those of the training would change every prediction.
"""

import json
import os

from tokenizers import AddedToken as LibraryToken
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from ofrecord_util.errors import UserError
from ofrecord_util.json_reading import read_json
from ofrecord_util.tokenization import CLS, PAD, SEP, UNK, TokenizerSettings

TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, ADDED_TOKENS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
ROLES = {"unk_token": UNK, "sep_token": SEP, "pad_token": PAD, "cls_token": CLS, "mask_token": "[MASK]"}

_REMEDY = "download the model again, or check --model_dir"
_CLASSES = ("BertTokenizer", "BertTokenizerFast", "SbertTokenizer", "SbertTokenizerFast")  # SOFA's for StructBERT is a copy
FROM_JSON = ("PreTrainedTokenizerFast", "TokenizersBackend")  # do what tokenizer.json says
_MAX_WORD_CHARS = 100  # of transformers; tokenizer.json may say another number


def _read(model_dir, name):
    path = os.path.join(model_dir, name)
    return read_json(path, _REMEDY) if os.path.isfile(path) else {}


def _text(value):
    """The content of a token, which may be a dict."""
    return value.get("content") if isinstance(value, dict) else value


def refuse(path, what, wanted):
    """Raises a UserError about a setting of a tokenizer that would give other ids."""
    raise UserError(f"{path}: {what}; only {wanted} is supported, because other settings give other ids than the model was trained with")


def _check_class(model_dir, config, parsed):
    """Raises a UserError if the class of the tokenizer splits text in another way than BERT."""
    path = os.path.join(model_dir, TOKENIZER_CONFIG)
    name = config.get("tokenizer_class")
    known = (*_CLASSES, *(FROM_JSON if parsed else ()))
    if name is not None and name not in known:
        refuse(path, f"tokenizer_class is {name!r:.60}", "BertTokenizer")
    if config.get("auto_map"):
        refuse(path, "auto_map names code of the model's own", "BertTokenizer")
    for key, plain in (("do_basic_tokenize", True), ("clean_text", True), ("wordpieces_prefix", "##"), ("never_split", None)):
        value = config.get(key, plain)
        if value not in (plain, []):
            refuse(path, f"{key} is {value!r:.60}", f"{json.dumps(plain)}")
    for source in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
        values = config if source == TOKENIZER_CONFIG else _read(model_dir, source)
        for role, token in ROLES.items():
            found = _text(values.get(role))
            if role != "mask_token" and found not in (None, token):
                refuse(os.path.join(model_dir, source), f"{role} is {found!r:.60}", token)


def _check_parsed(model_dir, parsed):
    """Raises a UserError if tokenizer.json describes another way to split text than that of BERT. Returns its normalizer, a dict."""
    path = os.path.join(model_dir, TOKENIZER)
    for key, kind in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        if key in parsed and (not isinstance(parsed[key], dict) or parsed[key].get("type") != kind):
            found = parsed[key].get("type") if isinstance(parsed[key], dict) else parsed[key]
            refuse(path, f"{key} is {found!r:.60}", kind)
    model = parsed.get("model")
    model = model if isinstance(model, dict) else {}
    for key, plain in (("unk_token", UNK), ("continuing_subword_prefix", "##")):
        if model.get(key, plain) != plain:
            refuse(path, f"{key} of the model is {model[key]!r:.60}", plain)
    normalizer = parsed.get("normalizer") or {}
    if normalizer.get("clean_text", True) is not True:
        refuse(path, "clean_text of the normalizer is false", "true")
    return normalizer


def _tokens_of(values, key, path):
    """The tokens under a key: a list of them, the values of an object, or nothing. Each is a str or an object with `content`.

    Raises:
        UserError: they are something else. A text alone would be read as one token per character.
    """
    listed = values.get(key)
    entries = list(listed.values()) if isinstance(listed, dict) else [] if listed is None else listed
    if not isinstance(entries, list) or not all(isinstance(_text(entry), str) for entry in entries):
        raise UserError(f"{path}: {key} is {listed!r:.60}, which is no list of tokens; {_REMEDY}")
    return entries


def _added(model_dir, config, parsed):
    """The added tokens apart from BERT's own: dict of content -> (id or None, normalized, single_word).

    Raises:
        UserError: an entry is not a token, or has no id.
    """
    paths = {name: os.path.join(model_dir, name) for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS, TOKENIZER)}
    special = set()
    for name, values in ((TOKENIZER_CONFIG, config), (SPECIAL_TOKENS, _read(model_dir, SPECIAL_TOKENS))):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            special.update(map(_text, _tokens_of(values, key, paths[name])))
    found = dict.fromkeys(sorted(special), (None, False, False))
    listed = [(number, token, None) for token, number in _read(model_dir, ADDED_TOKENS).items()]
    entries = _tokens_of(parsed, "added_tokens", paths[TOKENIZER])
    listed += [(entry.get("id") if isinstance(entry, dict) else None, _text(entry), entry) for entry in entries]
    decoder = config.get("added_tokens_decoder") or {}
    _tokens_of(config, "added_tokens_decoder", paths[TOKENIZER_CONFIG])
    numbers = list(decoder)
    if not isinstance(decoder, dict) or not all(number.isdecimal() and number.isascii() and len(number) < 10 for number in numbers):
        raise UserError(f"{paths[TOKENIZER_CONFIG]}: the ids of added_tokens_decoder are not whole numbers ({numbers!r:.60}); {_REMEDY}")
    listed += [(int(number), _text(entry), entry) for number, entry in decoder.items()]
    for number, token, entry in listed:
        entry = entry if isinstance(entry, dict) else {"normalized": token not in special}
        found[token] = (number, bool(entry.get("normalized", False)), bool(entry.get("single_word", False)))
    return {token: value for token, value in found.items() if token not in ROLES.values()}


def _with_added(tokens, added, path):
    """Tokens followed by the added tokens whose ids are beyond them. UserError where the ids do not fit."""
    tokens, ids = list(tokens), {token: number for number, token in enumerate(tokens)}
    for token, (number, _, _) in sorted(added.items(), key=lambda entry: entry[1][0] if type(entry[1][0]) is int else len(tokens)):
        if number is None and token in ids:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or number < 0 or number > len(tokens):
            raise UserError(f"{path}: added token {token!r:.60} has the id {number!r:.20}, but the vocabulary has {len(tokens)} tokens")
        if number < len(tokens) and tokens[number] != token:
            raise UserError(f"{path}: added token {token!r:.60} has the id {number}, which is {tokens[number]!r:.60} in the vocabulary")
        if number == len(tokens):
            tokens.append(token)
    return tokens


def read_settings(model_dir, tokens, path, model_class=None):
    """Reads how the model of a Hugging Face folder splits text.

    Args:
        model_dir: the folder.
        tokens: its vocabulary, list of str in the order of the ids.
        path: file of the vocabulary, for messages.
        model_class: `tokenizer_class` of config.json, used where tokenizer_config.json has none.
    Returns:
        (`TokenizerSettings`, tokens with the added ones, list of notes for the user, maximum length in tokens or None).
    Raises:
        UserError: the tokenizer does something that the project's cannot do, or its files contradict each other.
    """
    config, parsed, notes = _read(model_dir, TOKENIZER_CONFIG), _read(model_dir, TOKENIZER), []
    _check_class(model_dir, dict({"tokenizer_class": model_class}, **config), parsed)
    normalizer = _check_parsed(model_dir, parsed)
    values = {}
    for key, other in (
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ):
        if key in config and other in normalizer and config[key] != normalizer[other]:
            said = f"{key} {json.dumps(config[key])}, not {json.dumps(normalizer[other])} as in {TOKENIZER}"
            notes.append(f"{TOKENIZER_CONFIG} has {said}: the first is used")
        if key in config or other in normalizer:
            values[key] = config[key] if key in config else normalizer[other]
    model = parsed.get("model") if isinstance(parsed.get("model"), dict) else {}
    values["max_word_chars"] = model.get("max_input_chars_per_word", _MAX_WORD_CHARS)
    added = _added(model_dir, config, parsed)
    values["added_tokens"] = [
        {"content": token, "normalized": normalized, "single_word": single_word} for token, (_, normalized, single_word) in added.items()
    ]
    settings = TokenizerSettings.from_dict(values, os.path.join(model_dir, TOKENIZER_CONFIG))
    other = [key for key in ("strip_accents", "tokenize_chinese_chars") if getattr(settings, key) != getattr(TokenizerSettings(), key)]
    notes += [f"tokenizer: {key} {json.dumps(getattr(settings, key))}" for key in other]
    if added:
        names = ", ".join(list(added)[:5]) + (", …" if len(added) > 5 else "")
        notes.append(f"tokenizer: {len(added)} added tokens ({names}) are found in texts")
    longest = config.get("model_max_length")
    longest = longest if isinstance(longest, int) and not isinstance(longest, bool) else None
    return settings, _with_added(tokens, added, path), notes, longest


def tokenizer_texts(settings, tokens, max_length):
    """The tokenizer's files of a Hugging Face folder.

    Args:
        settings: `TokenizerSettings`; the casing is known.
        tokens: list of str in the order of the ids.
        max_length: number of tokens of a text, with [CLS] and [SEP].
    Returns:
        dict of file name -> parsed JSON.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    special = {role: token if token in ids else None for role, token in ROLES.items()}
    tokenizer = LibraryTokenizer(WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=settings.max_word_chars))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.lowers,
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0", pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1", special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])]
    )
    tokenizer.decoder = WordPieceDecoder(prefix="##")
    tokenizer.add_special_tokens([LibraryToken(token, normalized=False, special=True) for token in special.values() if token])
    decoder = {str(ids[token]): {"content": token, "normalized": False, "single_word": False} for token in special.values() if token}
    for token in settings.added_tokens:
        own = LibraryToken(token.content, normalized=token.normalized, single_word=token.single_word, special=not token.normalized)
        (tokenizer.add_tokens if token.normalized else tokenizer.add_special_tokens)([own])
        decoder[str(ids[token.content])] = {
            "content": token.content,
            "normalized": token.normalized,
            "single_word": token.single_word,
        }
    for entry in decoder.values():
        entry.update(lstrip=False, rstrip=False, special=not entry["normalized"])
    # The tokenizers library applies this itself; transformers needs truncation=True, and then takes model_max_length
    tokenizer.enable_truncation(max_length)
    config = dict(
        special,
        # BertTokenizer of transformers 5 builds its own tokenizer, with the limit of 100 characters; this class reads tokenizer.json
        tokenizer_class=_CLASSES[0] if settings.max_word_chars == _MAX_WORD_CHARS else FROM_JSON[0],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        do_lower_case=settings.lowers,
        strip_accents=settings.strip_accents,
        tokenize_chinese_chars=settings.tokenize_chinese_chars,
        model_max_length=max_length,
        # "[SEP]" inside a text is text, as in training; but added tokens that are found in texts are special tokens there
        split_special_tokens=all(token.normalized for token in settings.added_tokens),
        added_tokens_decoder=decoder,
        additional_special_tokens=[token.content for token in settings.added_tokens if not token.normalized],
    )
    return {
        TOKENIZER: json.loads(tokenizer.to_str()),
        TOKENIZER_CONFIG: config,
        SPECIAL_TOKENS: {role: token for role, token in special.items() if token},
    }
