"""Writes pretraining.json: loss, logits and gradients of a tiny BertForMaskedLM of transformers, whose weights a formula gives.

Parameter k in the sorted list of distinct names has the elements (in C order) 0.05 sin(0.37 i + 1.3 k), plus 1 in the weights of a
LayerNorm. So a test can make the weights without a file.

To run it (Python 3.10 or newer)::

    pip install torch==2.13.0 transformers==5.24.0
    python tests/golden/make_pretraining.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IDS = ((2, 7, 4, 19, 23, 3, 0, 0), (2, 11, 12, 4, 31, 8, 4, 3))  # 2 [CLS], 3 [SEP], 4 [MASK], 0 [PAD]
TYPES = ((0, 0, 0, 1, 1, 1, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0))
TARGETS = ((0, 2, 9), (0, 3, 19), (1, 3, 5), (1, 6, 17))  # row, place, token


def main():
    torch.set_num_threads(1)
    model = BertForMaskedLM(BertConfig(pad_token_id=0, **SIZES)).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for number, name in enumerate(sorted(parameters)):
            values = 0.05 * np.sin(0.37 * np.arange(parameters[name].numel()) + 1.3 * number) + ("LayerNorm.weight" in name)
            parameters[name].copy_(torch.tensor(values.reshape(tuple(parameters[name].shape)), dtype=torch.float32))
    ids = torch.tensor(IDS)
    labels = torch.full_like(ids, -100)
    for row, place, token in TARGETS:
        labels[row, place] = token
    output = model(input_ids=ids, attention_mask=(ids != 0).long(), token_type_ids=torch.tensor(TYPES), labels=labels)
    output.loss.backward()
    norms = {name: float(value.grad.double().norm()) for name, value in parameters.items()}
    record = {
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "sizes": SIZES,
        "ids": IDS,
        "types": TYPES,
        "targets": TARGETS,
        "names": sorted(parameters),
        "loss": float(output.loss.detach()),
        "logits": [output.logits[row, place].tolist() for row, place, _ in TARGETS],
        "norm": float(np.sqrt(sum(value**2 for value in norms.values()))),
        "norms": norms,
    }
    path = Path(__file__).resolve().parent / "pretraining.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(record["loss"], record["norm"])


if __name__ == "__main__":
    main()
