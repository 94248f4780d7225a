"""Writes adversarial.json: the adversarial term of SOFA's fine-tuning of StructBERT, computed with PyTorch in float64.

The model is the tiny BERT of tiny_bert.npz without dropout. The noise and the step are large, so that float32 shows the term; SOFA's own
values (5e-6, 5e-5, 1e-5) move the predictions of such a model by less than float32 resolves.

    python -m venv /tmp/golden && /tmp/golden/bin/pip install torch==2.13.0 transformers==5.23.0
    /tmp/golden/bin/python tests/golden/make_adversarial.py
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).resolve().parent
SIGMA, FACTOR, BOUND, SEED = 0.3, 1.0, 0.4, 31
GRADIENTS = {
    "word_embeddings": "bert.embeddings.word_embeddings.weight",
    "query": "bert.encoder.layer.1.attention.self.query.weight",
    "classifier": "classifier.weight",
}


def divergence(first, second):
    """(KL(p || q) + KL(q || p)) / C of each sample."""
    logs, others = first.log_softmax(-1), second.log_softmax(-1)
    forward = torch.nn.functional.kl_div(others, logs.exp(), reduction="none").sum(-1)
    backward = torch.nn.functional.kl_div(logs, others.exp(), reduction="none").sum(-1)
    return (forward + backward) / first.shape[-1]


def main():
    with np.load(FOLDER / "tiny_bert.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    config = transformers.BertConfig(**json.loads(str(arrays["config"])), attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config).eval().double()
    weights = {name[len("weight/") :]: value for name, value in arrays.items() if name.startswith("weight/")}
    model.load_state_dict({name: torch.from_numpy(value).double() for name, value in weights.items()}, strict=False)
    model.bert.embeddings.word_embeddings.padding_idx = None
    ids, mask, types = (torch.from_numpy(arrays[f"input/{name}"]).long() for name in ("input_ids", "attention_mask", "token_type_ids"))
    labels, real = torch.from_numpy(arrays["train/labels"]).long(), torch.tensor([1.0, 0.0, 1.0]).double()

    def logits(embeddings):
        return model(inputs_embeds=embeddings, attention_mask=mask, token_type_ids=types).logits

    words = model.bert.embeddings.word_embeddings(ids)
    noise = torch.from_numpy(np.random.default_rng(SEED).standard_normal(words.shape).astype(np.float32) * np.float32(SIGMA)).double()
    plain = logits(words)
    place = (words + noise).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(plain.detach(), logits(place)).sum(), place)
    largest = gradient.abs().amax(dim=(1, 2), keepdim=True)
    step = (FACTOR * gradient / largest).clamp(-BOUND, BOUND)
    term = (divergence(plain, logits(words + noise + step)) * real).sum() / real.sum()
    label_loss = (torch.nn.functional.cross_entropy(plain, labels, reduction="none") * real).sum() / real.sum()
    (label_loss + term).backward()
    parameters = dict(model.named_parameters())
    result = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "sigma": SIGMA,
        "factor": FACTOR,
        "bound": BOUND,
        "noise": noise.flatten().tolist(),
        "step": step.detach().flatten().tolist(),
        "term": term.item(),
        "label_loss": label_loss.item(),
        "gradients": {name: parameters[parameter].grad.tolist() for name, parameter in GRADIENTS.items()},
    }
    (FOLDER / "adversarial.json").write_text(json.dumps(result) + "\n", encoding="ascii")
    share = float((step.abs() == BOUND).double().mean())
    print(f"term {term.item():.6f}, label loss {label_loss.item():.6f}, share of the coordinates at the bound {share:.3f}")


if __name__ == "__main__":
    main()
