"""Writes pretraining.json: losses, logits and gradients of tiny models of transformers, whose weights a formula gives: BertForMaskedLM,
BertForPreTraining (masked tokens and pairs of sentences), ElectraForPreTraining (replaced tokens) of equal widths, and this model and
ElectraForMaskedLM with embeddings of half of the width.

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
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

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
SENTENCES = (0, 1)  # classes of the pairs
REPLACED = ((0, 0, 1, 0, 1, 0, 0, 0), (0, 1, 0, 0, 0, 0, 1, 0))


def with_weights(model):
    """The model with the weights of the formula."""
    parameters = dict(model.eval().named_parameters())
    with torch.no_grad():
        for number, name in enumerate(sorted(parameters)):
            values = 0.05 * np.sin(0.37 * np.arange(parameters[name].numel()) + 1.3 * number) + ("LayerNorm.weight" in name)
            parameters[name].copy_(torch.tensor(values.reshape(tuple(parameters[name].shape)), dtype=torch.float32))
    return model


def gradient_norms(model, loss):
    """dict of parameter -> norm of the gradient of a loss."""
    loss.backward()
    return {name: float(value.grad.double().norm()) for name, value in model.named_parameters() if value.grad is not None}


def total(norms):
    return float(np.sqrt(sum(value**2 for value in norms.values())))


def main():
    torch.set_num_threads(1)
    model = with_weights(BertForMaskedLM(BertConfig(pad_token_id=0, **SIZES)))
    parameters = dict(model.named_parameters())
    ids = torch.tensor(IDS)
    labels = torch.full_like(ids, -100)
    for row, place, token in TARGETS:
        labels[row, place] = token
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.tensor(TYPES)}
    output = model(labels=labels, **inputs)
    norms = gradient_norms(model, output.loss)

    pairs = with_weights(BertForPreTraining(BertConfig(pad_token_id=0, **SIZES)))
    of_pairs = pairs(labels=labels, next_sentence_label=torch.tensor(SENTENCES), **inputs)
    pair_norms = gradient_norms(pairs, of_pairs.loss)

    detector = with_weights(ElectraForPreTraining(ElectraConfig(pad_token_id=0, embedding_size=SIZES["hidden_size"], **SIZES)))
    detected = detector(labels=torch.tensor(REPLACED), **inputs)
    detector_norms = gradient_norms(detector, detected.loss)

    narrow = ElectraConfig(pad_token_id=0, embedding_size=SIZES["hidden_size"] // 2, **SIZES)
    narrow_detector, generator = with_weights(ElectraForPreTraining(narrow)), with_weights(ElectraForMaskedLM(narrow))
    narrow_detected, generated = narrow_detector(labels=torch.tensor(REPLACED), **inputs), generator(labels=labels, **inputs)
    narrow_norms, generator_norms = gradient_norms(narrow_detector, narrow_detected.loss), gradient_norms(generator, generated.loss)

    versions = {name: version(name) for name in ("torch", "transformers", "numpy")}
    record = {
        "versions": versions,
        "sizes": SIZES,
        "ids": IDS,
        "types": TYPES,
        "targets": TARGETS,
        "names": sorted(parameters),
        "loss": float(output.loss.detach()),
        "logits": [output.logits[row, place].tolist() for row, place, _ in TARGETS],
        "norm": total(norms),
        "norms": norms,
        "sentences": {
            "classes": SENTENCES,
            "names": sorted(dict(pairs.named_parameters())),
            "loss": float(of_pairs.loss.detach()),
            "logits": of_pairs.seq_relationship_logits.tolist(),
            "token_logits": [of_pairs.prediction_logits[row, place].tolist() for row, place, _ in TARGETS],
            "norm": total(pair_norms),
            "norms": pair_norms,
        },
        "replaced": {
            "labels": REPLACED,
            "names": sorted(dict(detector.named_parameters())),
            "loss": float(detected.loss.detach()),
            "logits": detected.logits.tolist(),
            "norm": total(detector_norms),
            "norms": detector_norms,
        },
        "narrow": {
            "versions": versions,  # in the file they are others than above: this part was added later
            "embedding_size": narrow.embedding_size,
            "discriminator": {
                "names": sorted(dict(narrow_detector.named_parameters())),
                "loss": float(narrow_detected.loss.detach()),
                "logits": narrow_detected.logits.tolist(),
                "norm": total(narrow_norms),
                "norms": narrow_norms,
            },
            "generator": {
                "names": sorted(dict(generator.named_parameters())),
                "loss": float(generated.loss.detach()),
                "logits": [generated.logits[row, place].tolist() for row, place, _ in TARGETS],
                "norm": total(generator_norms),
                "norms": generator_norms,
            },
        },
    }
    path = Path(__file__).resolve().parent / "pretraining.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(record["loss"], record["norm"], record["sentences"]["loss"], record["replaced"]["loss"])


if __name__ == "__main__":
    main()
