"""Writes retrieval.json: vectors of sentences and their translations, as Tatoeba makes them, from the hidden states of transformers.

The model is the encoder of make_xlmr.py, with its formula for the weights, but with a row for each piece of the tokenizer in xlmr.json and
with 60 positions. The vector of a sentence is the mean of a layer's states over all tokens, <s> and </s> included.

To run it (Python 3.10 or newer)::

    pip install torch==2.13.0 transformers==5.24.0
    python tests/golden/make_retrieval.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import XLMRobertaConfig, XLMRobertaModel

SOURCE = (
    "The room was clean and the staff were friendly.",
    "The battery lasts a day and the screen is good.",
    "La chambre \u00e9tait propre et le personnel aimable.",
    "La batterie tient une journ\u00e9e et l'\u00e9cran est bon.",
    "good day",
)
TARGET = (
    "Das Zimmer war sauber und das Personal freundlich.",
    "Der Akku h\u00e4lt einen Tag und der Bildschirm ist gut.",
    "\u623f\u95f4\u5f88\u5e72\u51c0\uff0c\u670d\u52a1\u4e5f\u5f88\u597d\u3002",
    "\u7535\u6c60\u5f88\u597d\uff0c\u5c4f\u5e55\u4e5f\u5f88\u597d\u3002",
    "good day.",
)


def main():
    torch.set_num_threads(1)
    folder = Path(__file__).resolve().parent
    golden = json.loads((folder / "xlmr.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_str(json.dumps(golden["tokenizer"]))
    sizes = dict(golden["sizes"], vocab_size=len(golden["tokenizer"]["model"]["vocab"]), max_position_embeddings=60)
    model = XLMRobertaModel(XLMRobertaConfig(pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes)).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for number, name in enumerate(sorted(parameters)):
            values = 0.3 * np.sin(0.37 * np.arange(parameters[name].numel()) + 1.3 * number) + ("LayerNorm.weight" in name)
            parameters[name].copy_(torch.tensor(values.reshape(tuple(parameters[name].shape)), dtype=torch.float32))
    rows = [[0, *tokenizer.encode(text, add_special_tokens=False).ids, 2] for text in (*SOURCE, *TARGET)]
    ids = torch.tensor([row + [1] * (max(map(len, rows)) - len(row)) for row in rows])
    mask = (ids != 1).long()
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:]
    weights = mask[:, :, None].double()
    vectors = [((layer.double() * weights).sum(1) / weights.sum(1)).tolist() for layer in states]
    record = {"versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}}
    record.update(
        sizes=sizes, ids=rows, source=SOURCE, target=TARGET, vectors=[[[round(x, 7) for x in v] for v in layer] for layer in vectors]
    )
    path = folder / "retrieval.json"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    for layer in vectors:
        units = np.array(layer) / np.linalg.norm(layer, axis=1, keepdims=True)
        cosines = units[: len(SOURCE)] @ units[len(SOURCE) :].T
        print(path.stat().st_size, cosines.argmax(1), cosines.argmax(0), np.sort(cosines, 1)[:, -2:].round(4).tolist())


if __name__ == "__main__":
    main()
