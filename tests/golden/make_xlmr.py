"""Writes xlmr.json: numbers of transformers for XLM-R: logits and states of a tiny model whose weights a formula gives, and ids of a toy
Unigram tokenizer, which is stored too.

Parameter k in the sorted list of names has the elements (in C order) 0.3 sin(0.37 i + 1.3 k), plus 1 in the weights of a LayerNorm. So a
test can make the weights without a file.

To run it (Python 3.10 or newer)::

    pip install torch==2.13.0 transformers==5.24.0
    python tests/golden/make_xlmr.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel, XLMRobertaTokenizer

SIZES = {
    "vocab_size": 51,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "max_position_embeddings": 15,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
LABELS = 3
IDS = ((0, 7, 50, 19, 23, 2, 1, 1, 1), (0, 11, 12, 2, 2, 31, 8, 4, 2), (0, 9, 2, 1, 1, 1, 1, 1, 1))  # 0 <s>, 1 <pad>, 2 </s>
SENTENCES = (
    "The room was clean and the staff were friendly.",
    "The battery lasts a day and the screen is good.",
    "Das Zimmer war sauber und das Personal freundlich.",
    "Der Akku h\u00e4lt einen Tag und der Bildschirm ist gut.",
    "La chambre \u00e9tait propre et le personnel aimable.",
    "La batterie tient une journ\u00e9e et l'\u00e9cran est bon.",
    "\u623f\u95f4\u5f88\u5e72\u51c0\uff0c\u670d\u52a1\u4e5f\u5f88\u597d\u3002",
    "\u7535\u6c60\u5f88\u597d\uff0c\u5c4f\u5e55\u4e5f\u5f88\u597d\u3002",
)
TEXTS = (
    *SENTENCES,
    "  two   spaces\tand a line\nbreak ",
    "\uff26\uff55\uff4c\uff4c width and \ufb01 ligature",
    "unknown \U0001f642 and <s> or </s> in a text",
    "good " * 30,
    "battery day",
)
LENGTH = 24


def make_tokenizer():
    """A Unigram model of 180 pieces, trained on SENTENCES, in the form of XLM-R's."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = UnigramTrainer(vocab_size=180, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def ids_of(tokenizer):
    """The ids of transformers' own class for TEXTS, alone and as pairs, cut after LENGTH tokens. It makes the special tokens itself."""
    pieces = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]
    theirs = XLMRobertaTokenizer(vocab=pieces, split_special_tokens=True)
    theirs.backend_tokenizer.normalizer = tokenizer.normalizer  # XLM-R's own table, close to NFKC, is part of its weights
    cut = {"truncation": "longest_first", "max_length": LENGTH}
    single = [theirs(text, **cut)["input_ids"] for text in TEXTS]
    pair = [theirs(first, second, **cut)["input_ids"] for first, second in zip(TEXTS, TEXTS[1:])]
    return {"single": single, "pair": pair}


def main():
    torch.set_num_threads(1)
    config = XLMRobertaConfig(num_labels=LABELS, pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZES)
    classifier, encoder = XLMRobertaForSequenceClassification(config).eval(), XLMRobertaModel(config).eval()
    record = {"versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}}
    record.update(sizes=SIZES, labels=LABELS, ids=IDS)
    ids = torch.tensor(IDS)
    for kind, model in (("classifier", classifier), ("encoder", encoder)):
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for number, name in enumerate(sorted(parameters)):
                values = 0.3 * np.sin(0.37 * np.arange(parameters[name].numel()) + 1.3 * number) + ("LayerNorm.weight" in name)
                parameters[name].copy_(torch.tensor(values.reshape(tuple(parameters[name].shape)), dtype=torch.float32))
            output = model(input_ids=ids, attention_mask=(ids != 1).long())
        record[kind] = {"shapes": {name: list(parameters[name].shape) for name in sorted(parameters)}}
        if kind == "classifier":
            record[kind]["logits"] = output.logits.tolist()
        else:
            record[kind].update(pooled=output.pooler_output.tolist(), last=output.last_hidden_state[0, :6].tolist())
    tokenizer = make_tokenizer()
    record.update(tokenizer=json.loads(tokenizer.to_str()), texts=TEXTS, length=LENGTH, tokens=ids_of(tokenizer))
    path = Path(__file__).resolve().parent / "xlmr.json"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    print(path.stat().st_size, record["classifier"]["logits"])


if __name__ == "__main__":
    main()
