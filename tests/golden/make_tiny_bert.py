"""Writes tiny_bert.npz: outputs and gradients of a tiny random Hugging Face ``BertForSequenceClassification``, and three
steps of ``torch.optim.AdamW`` with clipping. No code of this project is used.

The tests run where only numpy is installed, so the references are computed once, here, and stored without pickle
(``numpy.load`` reads them with ``allow_pickle=False``).

To run it (Python 3.11; no GPU, no downloads besides the packages, a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/make_tiny_bert.py

A second run with the same versions on the same machine gives the same bytes. On another machine the rounding may differ:
a run on one gave other values of ``float32_deviation`` and of the gradients of the key biases, which are 0 but for 1e-17.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from golden_versions import versions

FOLDER = Path(__file__).resolve().parent
SEED = 20240611

# Unrelated sizes (intermediate is not 4 x hidden, head size is not a power of two, the sequence is shorter than
# max_position_embeddings), so that a swapped dimension or an assumed ratio cannot pass.
BERT_CONFIG = {
    "vocab_size": 99,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 52,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 17,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "num_labels": 3,
}

REAL_LENGTHS = (13, 7, 2)
# Id 0 stands at real positions of row 0 and nonzero ids at masked positions of row 1: a model that derives the mask
# from the ids instead of reading attention_mask gets other numbers.
INPUT_IDS = (
    (2, 98, 0, 17, 45, 3, 61, 98, 5, 0, 33, 7, 3),
    (2, 11, 23, 3, 88, 41, 3, 56, 98, 1, 12, 70, 4),
    (2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
TOKEN_TYPE_IDS = (
    (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1),
    (0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0),
    (0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
LABELS = (2, 0, 1)
EXAMPLE_WEIGHTS = (0.5, 0.0, 1.75)
WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def json_array(value):
    """Returns `value` as JSON in a numpy unicode array: text that loads without pickle."""
    return np.array(json.dumps(value, sort_keys=True))


def random_weights(model):
    """Returns a random float32 array for each entry of `model`'s state dict.

    Biases, gamma and beta are random too: with Hugging Face's initial 0 and 1 a forgotten or misplaced one would not
    show. numpy draws them because its seeded stream does not depend on the version of torch.
    """
    generator = np.random.default_rng(SEED)
    weights = {}
    for name, tensor in model.state_dict().items():
        center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights[name] = (center + 0.2 * generator.standard_normal(tuple(tensor.shape))).astype(np.float32)
    return weights


def run_bert(weights, dtype, padding_idx):
    """Runs the tiny model forward and backward in eval mode (no dropout) and returns what it computed.

    Args:
        weights: float32 array by state-dict name.
        dtype: the torch type to compute in.
        padding_idx: row of the word embeddings whose gradient torch drops, or None to drop none.

    Returns:
        dict of numpy arrays of `dtype`, under the keys `output/...` and `grad/...`.
    """
    config = transformers.BertConfig(**BERT_CONFIG, attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config).eval().to(dtype)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.bert.embeddings.word_embeddings.padding_idx = padding_idx

    mask = torch.arange(len(INPUT_IDS[0]))[None, :] < torch.tensor(REAL_LENGTHS)[:, None]
    encoded = model.bert(
        input_ids=torch.tensor(INPUT_IDS),
        attention_mask=mask.long(),
        token_type_ids=torch.tensor(TOKEN_TYPE_IDS),
        output_hidden_states=True,
        output_attentions=True,
    )
    logits = model.classifier(model.dropout(encoded.pooler_output))
    cross_entropy = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction="none")
    loss = (torch.tensor(EXAMPLE_WEIGHTS, dtype=dtype) * cross_entropy).mean()
    loss.backward()

    embeddings, *hidden_states = encoded.hidden_states
    results = {
        "output/embeddings": embeddings,
        "output/pooled": encoded.pooler_output,
        "output/logits": logits,
        "output/cross_entropy": cross_entropy,
        "output/loss": loss,
    }
    results.update({f"output/hidden_{i}": hidden for i, hidden in enumerate(hidden_states)})
    results.update({f"output/attention_probs_{i}": probs for i, probs in enumerate(encoded.attentions)})
    results.update({f"grad/{name}": parameter.grad for name, parameter in model.named_parameters()})
    return {key: tensor.detach().numpy() for key, tensor in results.items()}


def bert_arrays():
    """Returns the part of tiny_bert.npz about the model.

    The reference is computed in float64 from the float32 weights and rounded at the end, so that a test's tolerance
    only has to allow for the error of the implementation under test; `float32_deviation` holds the largest difference
    that the same model in float32 has, which says how tight that tolerance may be.
    """
    config = transformers.BertConfig(**BERT_CONFIG)
    weights = random_weights(transformers.BertForSequenceClassification(config))
    reference = run_bert(weights, torch.float64, padding_idx=0)
    in_float32 = run_bert(weights, torch.float32, padding_idx=0)
    # Hugging Face drops the gradient of the padding id's row even where that id is at a real position; a model
    # without such a rule (Google's, for one) has to compare its word embeddings with this array instead.
    complete_gradient = run_bert(weights, torch.float64, padding_idx=None)[f"grad/{WORD_EMBEDDINGS}"]
    deviation = {
        group: max(float(np.abs(reference[key] - in_float32[key]).max()) for key in reference if key.startswith(group))
        for group in ("output/", "grad/")
    }

    positions = np.arange(len(INPUT_IDS[0]))
    arrays = {f"weight/{name}": array for name, array in weights.items()}
    arrays.update({key: array.astype(np.float32) for key, array in reference.items()})
    arrays.update(
        {
            "config": json_array(BERT_CONFIG),
            "float32_deviation": json_array(deviation),
            "input/input_ids": np.array(INPUT_IDS, np.int32),
            "input/attention_mask": (positions[None, :] < np.array(REAL_LENGTHS)[:, None]).astype(np.int32),
            "input/token_type_ids": np.array(TOKEN_TYPE_IDS, np.int32),
            "train/labels": np.array(LABELS, np.int32),
            "train/weights": np.array(EXAMPLE_WEIGHTS, np.float32),
            f"grad_without_padding_idx/{WORD_EMBEDDINGS}": complete_gradient.astype(np.float32),
        }
    )
    return arrays


def adamw_arrays():
    """Returns the part of tiny_bert.npz about the optimizer: three steps of clipped AdamW on two parameters.

    The gradients' scale changes from step to step, because Adam hardly notices a constant factor: only so does the
    result show whether, and over which parameters, the norm was clipped. Two gamma gradients are tiny and one is zero,
    where the place of eps matters. The first learning rate is 0, as in a warm-up: the step leaves the parameters alone
    but counts for the moments and for bias correction. Computed in float64 and rounded.
    """
    settings = {
        "betas": [0.9, 0.999],
        "eps": 1e-6,
        "weight_decay": {"gamma": 0.0, "matrix": 0.01},
        "clip_global_norm": 1.0,
        "clip_rule": "gradient * min(1, 1.0 / (norm + 1e-6)), norm over gamma and matrix together",
        "update_rule": "p -= lr * weight_decay * p; p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)",
    }
    learning_rates = [0.0, 0.25 * 1e-2, 0.5 * 1e-2]
    scales = np.array([6.0, 40.0, 2.0])

    generator = np.random.default_rng(SEED + 1)
    initial = {
        "gamma": (1.0 + 0.2 * generator.standard_normal(7)).astype(np.float32),
        "matrix": (0.5 * generator.standard_normal((5, 3))).astype(np.float32),
    }
    gradients = {
        "gamma": (scales[:, None] * generator.standard_normal((3, 7))).astype(np.float32),
        "matrix": (scales[:, None, None] * generator.standard_normal((3, 5, 3))).astype(np.float32),
    }
    gradients["gamma"][:, 0] = 0.0
    gradients["gamma"][:, 1:3] *= 1e-5

    parameters = {name: torch.nn.Parameter(torch.from_numpy(array).double()) for name, array in initial.items()}
    optimizer = torch.optim.AdamW(
        [{"params": [parameter], "weight_decay": settings["weight_decay"][name]} for name, parameter in parameters.items()],
        lr=0.0,
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
    )
    norms = []
    after_step = {name: [] for name in parameters}
    for step, learning_rate in enumerate(learning_rates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradients[name][step]).double()
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), settings["clip_global_norm"])
        if not norm > settings["clip_global_norm"]:
            raise AssertionError(f"clipping is meant to bite, but at step {step} the norm is only {norm}")
        norms.append(float(norm))
        optimizer.step()
        for name, parameter in parameters.items():
            after_step[name].append(parameter.detach().numpy().copy())

    arrays = {
        "adamw/config": json_array(settings),
        "adamw/lr": np.array(learning_rates, np.float64),
        "adamw/gradient_norm": np.array(norms, np.float64),
    }
    for name in parameters:
        arrays[f"adamw/initial/{name}"] = initial[name]
        arrays[f"adamw/gradient/{name}"] = gradients[name]
        arrays[f"adamw/after_step/{name}"] = np.stack(after_step[name]).astype(np.float32)
    return arrays


def write_tiny_bert():
    """Writes tiny_bert.npz."""
    torch.set_num_threads(1)
    arrays = {**bert_arrays(), **adamw_arrays(), "versions": json_array(versions("numpy", "torch", "transformers"))}
    np.savez_compressed(FOLDER / "tiny_bert.npz", **arrays)


def main():
    """Writes the file and says how big it is."""
    write_tiny_bert()
    print(f"tiny_bert.npz: {(FOLDER / 'tiny_bert.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
