"""Writes sentencepiece.json: a small model of the SentencePiece library in the form of XLM-R's sentencepiece.bpe.model, and its ids.

The model normalises by a few rules of its own, because the table of XLM-R alone has 200 kB. XLM-R's ids are those of SentencePiece plus 1,
but for `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3.

To run it (Python 3.10 or newer)::

    pip install sentencepiece==0.2.3
    python tests/golden/make_sentencepiece.py
"""

import base64
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import sentencepiece

FOLDER = Path(__file__).resolve().parent
RULES = {"\uff26": "F", "\uff55": "u", "\uff4c": "l", "\ufb01": "fi", "\u2026": "...", "\t": " ", "\n": " ", "A\u030a": "\u00c5"}
TEXTS = (
    "The room was clean and the staff were friendly.",
    "Der Akku h\u00e4lt einen Tag",
    "\u623f\u95f4\u5f88\u5e72\u51c0\uff0c\u670d\u52a1\u4e5f\u5f88\u597d\u3002",
    "  two   spaces\tand a line\nbreak ",
    "\uff26\uff55\uff4c\uff4c width and \ufb01ne print\u2026",
    "A\u030angstr\u00f6m",
    "unknown \U0001f642 sign",
)


def main():
    sentences = json.loads((FOLDER / "xlmr.json").read_text(encoding="utf-8"))["texts"][:8]
    with tempfile.TemporaryDirectory() as folder:
        rules, text, prefix = (Path(folder) / name for name in ("rules.tsv", "text.txt", "model"))
        codes = [[" ".join(f"{ord(char):X}" for char in side) for side in rule] for rule in RULES.items()]
        rules.write_text("".join("\t".join(rule) + "\n" for rule in codes), encoding="utf-8")
        text.write_text("".join(sentence + "\n" for sentence in sentences * 3), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(prefix), vocab_size=90, model_type="unigram", normalization_rule_tsv=str(rules), minloglevel=2
        )
        model = prefix.with_suffix(".model").read_bytes()
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = [[3 if number == 0 else number + 1 for number in library.encode(text)] for text in TEXTS]
    pieces = [library.id_to_piece(number) for number in range(library.get_piece_size())]
    record = {"versions": {"sentencepiece": version("sentencepiece")}, "model": base64.b64encode(model).decode("ascii")}
    record.update(pieces=pieces, texts=TEXTS, ids=ids)
    path = FOLDER / "sentencepiece.json"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(path.stat().st_size, pieces[:5], ids[-3:])


if __name__ == "__main__":
    main()
