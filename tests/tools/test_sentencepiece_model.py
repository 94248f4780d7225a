"""tools/sentencepiece_model.py: the ids of the SentencePiece library, with XLM-R's numbering."""

import base64
import json
import os

import pytest
import tiny
import xlmr

from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.snapshot_tokenizer import open_tokenizer
from ofrecord_util.errors import UserError
from tools.convert_checkpoint import convert
from tools.sentencepiece_model import unigram_tokenizer

with open(os.path.join(tiny.ROOT, "tests", "golden", "sentencepiece.json"), encoding="utf-8") as _file:
    GOLDEN = json.load(_file)
MODEL = base64.b64decode(GOLDEN["model"])


def test_ids_and_pieces():
    tokenizer = unigram_tokenizer(MODEL, "x.model")
    assert [tokenizer.encode(text).ids for text in GOLDEN["texts"]] == GOLDEN["ids"]
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    assert tokens == ["<s>", "<pad>", "</s>", "<unk>", *GOLDEN["pieces"][3:], "<mask>"]


def test_a_folder_with_the_model(tmp_path):
    """tokenizer.json of the snapshot has the same ids."""
    sizes = {"vocab_size": len(GOLDEN["pieces"]) + 2}
    tensors = {name: value for name, value in xlmr.random_encoder()[0].items() if "position" not in name}
    tensors["embeddings.position_embeddings.weight"] = xlmr.formula_tensors("encoder")["embeddings.position_embeddings.weight"]
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][: sizes["vocab_size"]]
    source = xlmr.write_folder(tmp_path / "hf", tensors, "encoder", **sizes)
    os.remove(os.path.join(source, "tokenizer.json"))
    (tmp_path / "hf" / "sentencepiece.bpe.model").write_bytes(MODEL)
    convert(source, str(tmp_path / "out"), log=lambda line: None)
    snapshot = Snapshot(str(tmp_path / "out"))
    assert open_tokenizer(snapshot, snapshot.config()).whole_texts(GOLDEN["texts"]) == GOLDEN["ids"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xff\xff", "is not a model of SentencePiece"),
        (b"", "its first pieces are not <unk>, <s>, </s>"),
        (MODEL.replace(b"\n\x03<s>", b"\n\x03<t>"), "its first pieces are not <unk>, <s>, </s>"),
        (MODEL + b"\x12\x02\x18\x02", "is not a Unigram model"),  # trainer_spec { model_type: BPE }
    ],
)
def test_what_is_refused(content, words):
    with pytest.raises(UserError) as caught:
        unigram_tokenizer(content, "x.model")
    assert words in str(caught.value)
    assert str(caught.value).startswith("x.model: ")
