"""Worker: steps of PyTorch with Hugging Face's BERT. It runs in the Python from BENCH_TORCH_PYTHON, without the rest of this project.

Keys of the job: implementation ("eager", "compile", or "bfloat16" for eager with autocast), mode ("train", "predict", "mlm"), layers,
hidden, heads, batch, length, words (word pieces in use, of a vocabulary of 30,522), masked (tokens per text, for "mlm"), steps, device,
use_fp16, threads. It uses sdpa attention, fused AdamW, clipping at a global norm of 1, and dropout 0.1.
"""

import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import torch
from protocol import read_job, serve
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification


def main():
    job = read_job()
    if job["device"] == "cpu":
        torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=job["hidden"],
        num_hidden_layers=job["layers"],
        num_attention_heads=job["heads"],
        intermediate_size=4 * job["hidden"],
        num_labels=2,
        attn_implementation="sdpa",
    )
    model = (BertForMaskedLM if job["mode"] == "mlm" else BertForSequenceClassification)(config).to(job["device"])
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "input_ids": torch.randint(0, job["words"], (job["batch"], job["length"]), generator=draw),
        "attention_mask": torch.ones(job["batch"], job["length"], dtype=torch.long),
        "token_type_ids": torch.zeros(job["batch"], job["length"], dtype=torch.long),
    }
    labels = torch.randint(0, 2, (job["batch"],), generator=draw)
    if job["mode"] == "mlm":  # -100: not masked
        labels = torch.full((job["batch"], job["length"]), -100)
        labels[:, : job["masked"]] = torch.randint(0, job["words"], (job["batch"], job["masked"]), generator=draw)
    labels = labels.to(job["device"])
    inputs = {name: value.to(job["device"]) for name, value in inputs.items()}
    forward = torch.compile(model) if job["implementation"] == "compile" else model
    half = torch.autocast(job["device"], torch.float16) if job["use_fp16"] else contextlib.nullcontext()
    if job["implementation"] == "bfloat16":
        half = torch.autocast(job["device"], torch.bfloat16)
    finish = torch.cuda.synchronize if job["device"] == "cuda" else (lambda: None)

    if job["mode"] != "predict":
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
        scaler = torch.amp.GradScaler(job["device"], enabled=job["use_fp16"])

        def step():
            with half:
                loss = forward(**inputs, labels=labels).loss
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss

    else:
        model.eval()

        def step():
            with torch.inference_mode(), half:
                return forward(**inputs).logits

    def turn(count=job["steps"]):
        for _ in range(count):
            result = step()
        finish()
        result.detach().sum().item()
        return count

    serve(lambda: turn(1), turn, torch=torch.__version__)


main()
