"""Step 2 of Meta Fine-tuning in PyTorch with Hugging Face's BERT, as one process, for comparison in benchmarks/bench_step2.py.

It runs in the Python from BENCH_TORCH_PYTHON. It does the same work: from text to the best dev accuracy, with one weight per sample, the
corrupted-domain loss on three layers, AdamW with clipping by the global norm, linear warm-up and decay, and evaluation on dev at the
documented period. `--padding` is 128 or longest.
"""

import argparse
import contextlib
import json
import time

import torch
from transformers import AutoTokenizer, BertForSequenceClassification


def read_rows(path, domains, labels):
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\r\n").split("\t") for line in file]
    texts, names, classes = zip(*rows)
    domains = domains or {name: place for place, name in enumerate(sorted(set(names)))}
    labels = labels or {name: place for place, name in enumerate(sorted(set(classes)))}
    return list(texts), [domains[n] for n in names], [labels[c] for c in classes], domains, labels


class Batches:
    def __init__(self, tokenizer, texts, domain, label, padding, device):
        fixed = padding != "longest"
        kinds = {"padding": "max_length" if fixed else False, "max_length": 128, "truncation": True}
        self.rows = tokenizer(texts, **kinds)
        self.fixed, self.tokenizer, self.device = fixed, tokenizer, device
        self.domain, self.label = torch.tensor(domain, device=device), torch.tensor(label, device=device)

    def __call__(self, places):
        rows = {name: [self.rows[name][place] for place in places] for name in self.rows}
        inputs = self.tokenizer.pad(rows, padding=True, return_tensors="pt")
        return dict(inputs.to(self.device)), self.domain[places], self.label[places]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--padding", default="longest", choices=("128", "longest"))
    parser.add_argument("--num_epochs", type=int, default=63)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--dev_batch_size", type=int, default=2)
    parser.add_argument("--dev_every", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--use_fp16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    texts, domain, label, domains, labels = read_rows(args.data_dir + "/train.csv", None, None)
    train = Batches(tokenizer, texts, domain, label, args.padding, args.device)
    dev_texts, dev_domain, dev_label, _, _ = read_rows(args.data_dir + "/dev.csv", domains, labels)
    dev = Batches(tokenizer, dev_texts, dev_domain, dev_label, args.padding, args.device)
    count, num_domains = len(texts), len(domains)
    model = BertForSequenceClassification.from_pretrained(args.model_dir, num_labels=len(labels), attn_implementation="sdpa")
    model.to(args.device)
    half = torch.autocast(args.device, torch.float16) if args.use_fp16 else contextlib.nullcontext()
    scaler = torch.amp.GradScaler(args.device, enabled=args.use_fp16)
    width = model.config.hidden_size
    depth = model.config.num_hidden_layers
    layers = [-(-depth * third // 3) for third in (1, 2, 3)]  # indices into hidden_states, whose first element is the embeddings
    table = torch.nn.Parameter(torch.randn(num_domains, width, device=args.device) * 0.02)
    head = torch.nn.Linear(width, num_domains, device=args.device)
    parameters = [*model.parameters(), table, *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.01, fused=True)
    total = -(-count * args.num_epochs // args.batch_size)
    warm = int(0.1 * total)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: s / warm if s < warm else max(0.0, 1 - s / total))
    weights = torch.rand(count, device=args.device)  # replaces the scores of step 1, which is not timed
    best, order = 0.0, []
    training = time.perf_counter()
    for step in range(1, total + 1):
        model.train()
        if len(order) < args.batch_size:
            order += torch.randperm(count).tolist()
        places, order = order[: args.batch_size], order[args.batch_size :]
        inputs, d, y = train(places)
        with half:
            out = model(**inputs, output_hidden_states=True)
            loss = (torch.nn.functional.cross_entropy(out.logits, y, reduction="none") * weights[places]).mean()
            other = (d + torch.randint(1, num_domains, d.shape, device=args.device)) % num_domains
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            for layer in layers:
                mean = (out.hidden_states[layer] * mask).sum(1) / mask.sum(1) + table[d]
                loss = loss + 0.1 / len(layers) * torch.nn.functional.cross_entropy(head(mean), other)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        rates.step()
        if step % args.dev_every == 0 or step == total:
            model.eval()
            hits = 0
            with torch.inference_mode(), half:
                for place in range(0, len(dev_texts), args.dev_batch_size):
                    inputs, _, y = dev(list(range(place, min(len(dev_texts), place + args.dev_batch_size))))
                    hits += int((model(**inputs).logits.argmax(-1) == y).sum())
            best = max(best, hits / len(dev_texts))
    print(json.dumps({"training_seconds": round(time.perf_counter() - training, 1), "steps": total, "best_dev": round(best, 4)}))


main()
