"""Labels the lines of a file with a Hugging Face classifier, in ONNX Runtime or PyTorch, for comparison in benchmarks/bench_predict.py.

It runs in the Python from BENCH_TORCH_PYTHON as one process: tokens, batches of 32 texts sorted by length and padded to their longest,
labels and probabilities to a file. `--kind export` writes the ONNX models of the other kinds instead.
"""

import argparse
import os

import numpy as np
from transformers import AutoTokenizer

ONNX, ONNX_INT8 = "model.onnx", "model-int8.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export(folder):
    """Writes the model in float32 and with 8-bit weights."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    path = os.path.join(folder, ONNX)
    example = tuple(torch.ones(2, 16, dtype=torch.long) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS}
    names = {"input_names": list(INPUTS), "output_names": ["logits"]}
    torch.onnx.export(model, example, path, **names, dynamic_axes={**axes, "logits": {0: "batch"}}, opset_version=17, dynamo=False)
    quantize_dynamic(path, os.path.join(folder, ONNX_INT8), weight_type=QuantType.QInt8)


def onnx_model(folder, name, threads):
    """A function from a batch to logits, and the name of the library."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(os.path.join(folder, name), options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["logits"], batch)[0]


def torch_model(folder, half, threads):
    """As `onnx_model`."""
    import torch
    from transformers import BertForSequenceClassification

    torch.set_num_threads(threads)
    model = BertForSequenceClassification.from_pretrained(folder).eval()

    def run(batch):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return model(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits.float().numpy()

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=("export", "onnx", "onnx-int8", "transformers", "transformers-bfloat16"))
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seq_length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.kind == "export":
        export(args.model_dir)
        return
    tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    if args.kind.startswith("onnx"):
        model = onnx_model(args.model_dir, ONNX_INT8 if args.kind == "onnx-int8" else ONNX, args.threads)
    else:
        model = torch_model(args.model_dir, args.kind == "transformers-bfloat16", args.threads)
    with open(args.input, encoding="utf-8") as file:
        texts = [line.rstrip("\n") for line in file]
    ids = tokenizer(texts, truncation=True, max_length=args.seq_length)["input_ids"]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    logits = [None] * len(ids)
    for start in range(0, len(order), args.batch_size):
        rows = order[start : start + args.batch_size]
        length = max(len(ids[row]) for row in rows)
        tokens, mask = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(ids[row])], mask[place, : len(ids[row])] = ids[row], 1
        for row, values in zip(rows, model(dict(zip(INPUTS, (tokens, mask, 0 * mask))))):
            logits[row] = values
    values = np.array(logits, np.float64)
    values = np.exp(values - values.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    with open(args.output, "w", encoding="utf-8") as file:
        file.writelines(f"{int(row.argmax())}\t{row.max():.6f}\n" for row in values)


if __name__ == "__main__":
    main()
