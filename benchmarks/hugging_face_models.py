"""Tries which models of Hugging Face can be converted: makes a folder of random weights of each kind with transformers, converts it, and
compares the probabilities of those with a classifier.

    BENCH_TORCH_PYTHON=/path/to/python python3 benchmarks/hugging_face_models.py [--rows bert-base,albert]

Prints one line per kind: what transformers and the snapshot differ by, or why it is refused. docs/models.md has the result.
"""

if not __package__:
    import _root  # noqa: F401

import json
import os
import subprocess
import tempfile

import numpy as np

from benchmarks.hugging_face_parity import SENTENCES, ask_transformers
from benchmarks.side_by_side import TORCH_PYTHON, show, torch_python
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.predictor import Predictor
from tools.convert_checkpoint import convert

VOCABULARY = os.path.join("models", "uncased_L-6_H-384_A-12_oneflow", "vocab.txt")
_SMALL = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 52, "max_position_embeddings": 64}


def _bert(layers, width, **more):
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64, "intermediate_size": 4 * width}
    return {"model": "BertForSequenceClassification", "config": "BertConfig", "values": {**sizes, **more}}


def _other(name, **values):
    return {"model": f"{name}ForSequenceClassification", "config": f"{name}Config", "values": {**_SMALL, **values}}


# name: model class, config class and values of transformers; vocabulary; values put into the finished config.json
MODELS = {
    "bert-tiny (2 x 128)": _bert(2, 128),
    "bert-mini (4 x 256)": _bert(4, 256),
    "bert-small (4 x 512)": _bert(4, 512),
    "bert-medium (8 x 512)": _bert(8, 512),
    "bert-base (12 x 768)": _bert(12, 768),
    "bert-large (24 x 1024)": _bert(24, 1024),
    "bert cased": {**_other("Bert"), "lower_case": False},
    "bert Chinese": {**_other("Bert"), "vocabulary": "chinese"},
    "bert with a pretraining head": {**_other("Bert"), "model": "BertForPreTraining"},
    "bert for tokens": {**_other("Bert"), "model": "BertForTokenClassification"},
    "bert for several labels at once": _other("Bert", problem_type="multi_label_classification"),
    "bert with gelu_new": _other("Bert", hidden_act="gelu_new"),
    "bert that is a decoder": {**_other("Bert", is_decoder=True), "model": "BertModel"},
    "structbert, written as sbert": {**_other("Bert"), "written": {"model_type": "sbert", "attention_type": "self"}},
    "structbert, written as structbert": {**_other("Bert"), "written": {"model_type": "structbert"}},
    "structbert, Chinese, without a kind": {**_other("Bert"), "vocabulary": "chinese", "written": {"model_type": None}},
    "bert with relative positions": {**_other("Bert"), "written": {"position_embedding_type": "relative_key"}},
    "roberta": {**_other("Roberta", max_position_embeddings=66, type_vocab_size=1), "tokenizer": "bpe"},
    "xlm-roberta": {**_other("XLMRoberta", max_position_embeddings=66, type_vocab_size=1), "tokenizer": "unigram"},
    "camembert": _other("Camembert"),
    "distilbert": {**_other("DistilBert"), "values": {"dim": 36, "n_layers": 2, "n_heads": 3, "hidden_dim": 52}},
    "albert": _other("Albert", embedding_size=12),
    "electra": _other("Electra", embedding_size=12),
    "deberta-v2": _other("DebertaV2"),
    "ernie": _other("Ernie"),
    "mobilebert": _other("MobileBert", num_attention_heads=4, true_hidden_size=32, intra_bottleneck_size=32, embedding_size=32),
    "mpnet": _other("MPNet"),
    "convbert": _other("ConvBert", num_attention_heads=4, hidden_size=32, embedding_size=32),
}

# Runs in the other Python: reads a JSON list of {folder, tokens, lower_case, model, config, values, written, tokenizer, texts},
# and saves the models. A job with a tokenizer, unigram or bpe, trains it on the texts.
_MAKE = r"""
import json, os, sys
import torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
ROLES = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

def trained(kind, texts):
    if kind == "bpe":
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    else:
        library = Tokenizer(models.Unigram())
        library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    library.train_from_iterator(texts * 9, trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library, mask_token="<mask>", model_max_length=64, **ROLES)

for job in json.load(sys.stdin):
    torch.manual_seed(3)
    tokens, folder = job["tokens"], job["folder"]
    tokenizer = trained(job["tokenizer"], job["texts"]) if job["tokenizer"] else None
    config = getattr(transformers, job["config"])(vocab_size=len(tokenizer or tokens), num_labels=3, **job["values"])
    config.pad_token_id = 1 if tokenizer else 0
    model = getattr(transformers, job["model"])(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) / 16)
    model.save_pretrained(folder)
    if tokenizer is None:
        with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as file:
            file.writelines(token + "\n" for token in tokens)
        lower = job["lower_case"]
        tokenizer = transformers.BertTokenizer(vocab=os.path.join(folder, "vocab.txt"), do_lower_case=lower, model_max_length=64)
    tokenizer.save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        values = json.load(file)
    values.update(job["written"])
    with open(path, "w") as file:
        json.dump(values, file)
"""


def vocabulary(kind):
    """Tokens of a vocabulary: those of the English model, or special tokens and the 20,992 characters of CJK's first block."""
    if kind == "chinese":
        return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0xA000)), *"abcdefghijklmnopqrstuvwxyz.,!"]
    with open(VOCABULARY, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def make(python, folders):
    """Makes the Hugging Face folders of models.

    Args:
        python: with torch and transformers.
        folders: dict of name in MODELS -> path.
    Raises:
        UserError: that Python failed.
    """
    jobs = []
    for name, path in folders.items():
        model = MODELS[name]
        job = {"folder": path, "tokens": vocabulary(model.get("vocabulary")), "lower_case": model.get("lower_case", True)}
        job.update({key: model.get(key, {}) for key in ("model", "config", "values", "written")})
        job.update(tokenizer=model.get("tokenizer"), texts=list(SENTENCES))
        jobs.append(job)
    environment = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    made = subprocess.run([python, "-c", _MAKE], input=json.dumps(jobs), capture_output=True, text=True, env=environment)
    if made.returncode:
        raise UserError(f"{python}: {(made.stderr.strip().splitlines() or ['?'])[-1][:300]}")


def _name_as_bert(folder, model):
    """Gives a folder the model_type under which transformers knows it: StructBERT's are not among its own."""
    if not model.get("written"):
        return
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        values = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(dict(values, model_type="bert"), file)


def try_model(python, source, model):
    """A dict for a JSON line: what a conversion of the folder `source` gives."""
    folder, target = os.path.dirname(source), source + "-snapshot"
    lines = []
    try:
        convert(source, target, log=lines.append)
    except UserError as error:
        return {"refused": str(error).replace(folder + os.sep, "")}
    notes = [line for line in lines[1:] if "left out" in line or "classifier" in line]
    if "SequenceClassification" not in model["model"] or any("is one of" in note for note in notes):
        return {"converted": True, "notes": notes}
    ours = np.array([list(prediction.probabilities.values()) for prediction in Predictor(target, "cpu", log=lines.append)(SENTENCES)])
    _name_as_bert(source, model)
    theirs = np.array(ask_transformers(python, {"folder": source, "texts": list(SENTENCES), "pairs": None})["log_probabilities"])
    return {"converted": True, "largest_difference": float(np.abs(np.log(ours) - theirs).max()), "notes": notes}


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--rows", help="kinds to try, by how their names begin, separated by commas (default: all)")
    args = parser.parse_args()
    python = torch_python()
    if python is None:
        raise UserError(f"{TORCH_PYTHON} must name a Python with torch and transformers")
    wanted = tuple(args.rows.split(",")) if args.rows else ("",)
    with tempfile.TemporaryDirectory() as folder:
        folders = {name: os.path.join(folder, str(number)) for number, name in enumerate(MODELS) if name.startswith(wanted)}
        make(python, folders)
        for name, path in folders.items():
            show({"model": name, **try_model(python, path, MODELS[name])})


if __name__ == "__main__":
    run(main)
