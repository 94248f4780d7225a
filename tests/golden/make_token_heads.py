"""Writes token_heads.json: logits, losses and gradients of transformers' BertForTokenClassification and BertForQuestionAnswering.

To run it (Python 3.11; a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install torch transformers==5.24.0 numpy
    python tests/golden/make_token_heads.py

The encoder is that of tiny_bert.npz; the weights of the heads follow a formula. Labels of -100 do not count. The questions have no padding,
because transformers includes padding in the softmax over the places of an answer.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import BertConfig, BertForQuestionAnswering, BertForTokenClassification

HERE = Path(__file__).resolve().parent
TAGS = 5


def head(outputs, width):
    """Weights [outputs, width] and bias [outputs] of a head."""
    return 0.4 * np.sin(0.7 * np.arange(outputs * width) + 0.3).reshape(outputs, width), 0.2 * np.cos(np.arange(outputs) + 1.0)


def model_of(kind, golden, name, outputs):
    config = BertConfig(**{**json.loads(str(golden["config"])), "num_labels": outputs, "hidden_dropout_prob": 0.0})
    config.attention_probs_dropout_prob = 0.0
    model = kind(config).double().eval()
    state = {key[len("weight/") :]: torch.tensor(golden[key]).double() for key in golden.files if key.startswith("weight/bert.")}
    weight, bias = head(outputs, config.hidden_size)
    state.update({f"{name}.weight": torch.tensor(weight), f"{name}.bias": torch.tensor(bias)})
    missing, _ = model.load_state_dict(state, strict=False)
    if missing:
        raise ValueError(missing)
    return model


def main():
    golden = np.load(HERE / "tiny_bert.npz")
    ids, segments = (torch.tensor(golden[f"input/{name}"]).long() for name in ("input_ids", "token_type_ids"))
    mask = torch.tensor(golden["input/attention_mask"]).long()
    tags = (torch.arange(ids.numel()) * 3 % TAGS).reshape(ids.shape)
    tags[:, 0] = -100
    tags[mask == 0] = -100
    tags[1, 2:4] = -100
    model = model_of(BertForTokenClassification, golden, "classifier", TAGS)
    found = model(input_ids=ids, attention_mask=mask, token_type_ids=segments, labels=tags)
    found.loss.backward()
    first = {"logits": found.logits.tolist(), "loss": found.loss.item(), "tags": tags.tolist()}
    first["gradient"] = model.classifier.weight.grad.tolist()
    first["query_gradient"] = model.bert.encoder.layer[0].attention.self.query.weight.grad.tolist()
    model = model_of(BertForQuestionAnswering, golden, "qa_outputs", 2)
    start, end = torch.tensor([0, 3, 5]), torch.tensor([0, 4, 12])
    more = {"attention_mask": torch.ones_like(mask), "start_positions": start, "end_positions": end}
    found = model(input_ids=ids, token_type_ids=segments, **more)
    found.loss.backward()
    second = {"start_logits": found.start_logits.tolist(), "end_logits": found.end_logits.tolist(), "loss": found.loss.item()}
    second.update(start=start.tolist(), end=end.tolist(), gradient=model.qa_outputs.weight.grad.tolist())
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    text = json.dumps({"versions": versions, "tags": first, "spans": second}, separators=(",", ":"))
    (HERE / "token_heads.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
