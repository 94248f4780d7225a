"""Reads a Unigram model of the SentencePiece library (XLM-R's `sentencepiece.bpe.model`) as a tokenizer of the `tokenizers` library.

The ids are XLM-R's: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, each further piece its number in the model plus 1, and `<mask>` last. This is
the rule of transformers.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import Precompiled
from tokenizers.pre_tokenizers import Metaspace, Sequence, WhitespaceSplit

from ofrecord_util.errors import UserError
from ofrecord_util.json_tokenizer import BEGIN, END, MASKED, PADDING, UNKNOWN

_FIRST = [UNKNOWN, BEGIN, END]  # the first pieces of the model
_UNIGRAM = 1  # of the enum ModelType
_FIELDS = {  # message: (field, number, type, message of the field) of sentencepiece_model.proto, as far as they are read
    "Piece": (("piece", 1, "STRING", None), ("score", 2, "FLOAT", None)),
    "Trainer": (("model_type", 3, "INT32", None),),
    "Normalizer": (("precompiled_charsmap", 2, "BYTES", None),),
    "Model": (
        ("pieces", 1, "MESSAGE", "Piece"),
        ("trainer_spec", 2, "MESSAGE", "Trainer"),
        ("normalizer_spec", 3, "MESSAGE", "Normalizer"),
    ),
}


def _model_class():
    """The protobuf class of a model. The pool is a private one, as in ofrecord_util/schema.py."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sentencepiece_model.proto", package="pieces")
    for message, fields in _FIELDS.items():
        entry = file.message_type.add(name=message)
        for name, number, kind, of in fields:
            label = field.LABEL_REPEATED if name == "pieces" else field.LABEL_OPTIONAL
            entry.field.add(name=name, number=number, type=getattr(field, "TYPE_" + kind), label=label, type_name=of and ".pieces." + of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("pieces.Model"))


def unigram_tokenizer(content, path):
    """The tokenizer of a model.

    Args:
        content: bytes of the file.
        path: of the file, for messages.
    Returns:
        `tokenizers.Tokenizer`.
    Raises:
        UserError: the file is damaged, or not a Unigram model with the special tokens of XLM-R.
    """
    model = _model_class()()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{path}: is not a model of SentencePiece; download it again, or set --vocab_file to a tokenizer.json") from error
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    if [piece for piece, _ in pieces[: len(_FIRST)]] != _FIRST:
        raise UserError(
            f"{path}: its first pieces are not {', '.join(_FIRST)}, as in a model of XLM-R; set --vocab_file to a tokenizer.json"
        )
    if model.trainer_spec.model_type not in (0, _UNIGRAM):  # 0: not stored, which means Unigram
        raise UserError(f"{path}: is not a Unigram model; set --vocab_file to a tokenizer.json")
    special = [BEGIN, PADDING, END, UNKNOWN]
    tokenizer = Tokenizer(Unigram([*((token, 0.0) for token in special), *pieces[len(_FIRST) :], (MASKED, 0.0)], unk_id=3))
    if model.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Metaspace(replacement="\u2581", prepend_scheme="always")])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (*special, MASKED)])
    return tokenizer
