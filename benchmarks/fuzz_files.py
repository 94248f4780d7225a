"""The files that the project reads, written small and whole: what `benchmarks/fuzz.py` damages."""

import contextlib
import dataclasses
import io
import json
import os

import numpy as np
from safetensors.numpy import save_file

from modeling.bert.config import BertConfig
from modeling.bert.variables import classifier_shapes, encoder_shapes, initial_value
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, write_variables
from modeling.checkpoints.teacher_output_writer import TeacherOutputWriter
from modeling.checkpoints.teacher_outputs import Layout
from modeling.objectives.teacher import ATTENTION, HIDDEN, LOGITS, REPRESENTATION, Knowledge
from modeling.run.evaluation import Predictions, measure
from modeling.run.measures import SCALARS
from modeling.run.predictions import predictions_path, write_predictions
from modeling.run.resume import write_state
from ofrecord_util.dataset import Dataset
from ofrecord_util.scores import EmbeddingMap, save_map, save_scores
from ofrecord_util.tasks import Task
from ofrecord_util.text import read_text
from ofrecord_util.tokenization import Tokenizer
from tools import checkpoint_npz

SEQ_LENGTH = 12
WORDS = ("good", "bad", "film", "phone", "the", "a", "was", "very", "##s", "##ly", ".", "!")
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
CONFIG = BertConfig(len(TOKENS), 20, 2, 4, 36, 16, 2)
TASK = Task("t", ("books", "dvd"), ("no", "yes"))
COUNTS = {"train": 12, "dev": 8, "test": 8}
KNOWLEDGE = Knowledge((0, 1), True, True, True)


def silent(_line):
    """Takes a line of log."""


def write(path, data):
    """Writes bytes or text to a file, and makes its folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode("utf-8"))


def _rows(split):
    draw = np.random.RandomState(len(split))
    for row in range(COUNTS[split]):
        text = " ".join(draw.choice(WORDS[:8], 5)) + f" {split} {row}"
        yield f"{text}\t{TASK.domains[row % 2]}\t{TASK.labels[row // 2 % 2]}\n"


def vocabulary():
    """Text of a vocabulary."""
    return "".join(token + "\n" for token in TOKENS)


def _variables(labels=2):
    shapes = {**encoder_shapes(CONFIG), **classifier_shapes(CONFIG, labels)}
    return {name: initial_value(name, shape, 3) for name, shape in shapes.items()}


def write_data(folder, vocab_file):
    """Text, records, scores and a map."""
    for split in COUNTS:
        write(os.path.join(folder, split + ".csv"), "".join(_rows(split)))
    dataset = Dataset(folder, TASK, Tokenizer(vocab_file), SEQ_LENGTH, resave=True, log=silent)
    train = read_text(os.path.join(folder, "train.csv"), TASK)
    draw = np.random.RandomState(1)
    save_scores(folder, draw.rand(len(train)).astype(np.float32), train.digest)
    place = draw.randn(len(train), 2).astype(np.float32)
    save_map(
        folder, EmbeddingMap(place, train.domain, train.label, draw.randn(2, 2, 2).astype(np.float32), np.array([0.5, 0.2])), train.digest
    )
    for split in COUNTS:
        dataset.records(split)


def write_snapshot(folder):
    """A snapshot of a training step."""
    task = dict(TASK.to_dict(), script="finetuning", seq_length=SEQ_LENGTH, do_lower_case=True)
    write_variables(folder, _variables(), {CONFIG_FILE: CONFIG.to_json(), VOCAB_FILE: vocabulary(), TASK_FILE: json.dumps(task, indent=1)})


def write_states(folder):
    """Two states."""
    for step in (2, 4):
        best = {
            "name": "snapshot_best_ft_model_t_dev_0.5",
            "correct": 1,
            "total": 2,
            "accuracy": 0.5,
            "cross_entropy": 0.7,
            "by_domain": {},
            **dict.fromkeys(SCALARS, 0.5),
        }
        values = {"step": step, "identity": {"--seed": 1}, "layout": [1, [8, 12], 1], "stale": 0, "best": best}
        values.update(counters={"step": {"dtype": "int64", "values": [step]}}, window=[[step, [0, 1], [0.5, 0.25]]])
        write_state(folder, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(4, np.float32)}, values)


def write_teacher(folder):
    """Outputs of a teacher."""
    lengths, draw = np.array([3, 5, 2]), np.random.RandomState(4)
    outputs = {LOGITS: draw.randn(3, 2), REPRESENTATION: draw.randn(3, 20)}
    for layer in KNOWLEDGE.layers:
        outputs[HIDDEN.format(layer)], outputs[ATTENTION.format(layer)] = draw.randn(3, 6, 20), draw.randn(3, 4, 6, 6)
    with TeacherOutputWriter(folder, Layout(KNOWLEDGE, 20, 4, 2), np.array([1, 0, 2]), lengths, {"teacher_digest": "a" * 64}) as writer:
        writer.write(np.arange(3), {name: value.astype(np.float32) for name, value in outputs.items()})


def write_run(folder, data):
    """The folder of a finished run."""
    os.makedirs(folder)
    rows = [{"kind": "train", "step": step, "epoch": step / 4, "learning_rate": 1e-5, "loss": 2.0 / step} for step in range(1, 9)]
    about = {}
    for place, split in enumerate(("dev", "test")):
        text = read_text(os.path.join(data, split + ".csv"), TASK)
        logits = np.random.RandomState(place).randn(len(text), 2).astype(np.float32)
        found = Predictions(np.arange(len(text)), text.domain, text.label, logits, text.digest)
        result = measure(logits, text.label, text.domain, TASK, 42).to_dict()
        write_predictions(predictions_path(folder, split), TASK, found, text)
        rows.append({"kind": split, **({"step": 8, "best": True} if split == "dev" else {}), **result})
        counts = {name: dict.fromkeys(TASK.labels, len(text) // 4) for name in TASK.domains}
        about[split] = {"rows": len(text), "text_file": split + ".csv", "text_digest": text.digest, "truncated": 0, "by_domain": counts}
    write(os.path.join(folder, "metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
    record = {
        "script": "meta_finetuning",
        "command": ["meta_finetuning.py", "--task_name", "t"],
        "flags": {
            "task_name": "t",
            "data_dir": data,
            "num_epochs": 2,
            "learning_rate": 1e-5,
            "domains": None,
            "model_load_dir": "models/x",
        },
        "task": TASK.to_dict(),
        "config": dataclasses.asdict(CONFIG),
        "data": dict(about, train=dict(about["dev"], text_digest=read_text(os.path.join(data, "train.csv"), TASK).digest)),
        "device": "cpu",
        "versions": {"oneflow": "0.9.0", "python": "3.10"},
        **dict.fromkeys(("vocab_digest", "snapshot_digest"), "a" * 64),
        **{"parameters": 1234, "total_steps": 8, "samples_per_step": 4},
    }
    write(os.path.join(folder, "flags.json"), json.dumps(record, indent=1))
    accuracy = next(row["accuracy"] for row in rows if row["kind"] == "dev")
    task = json.dumps(dict(TASK.to_dict(), seq_length=SEQ_LENGTH, do_lower_case=True))
    write_variables(os.path.join(folder, f"snapshot_best_mft_model_t_dev_{accuracy!r}"), {"a": np.zeros(3, np.float32)}, {TASK_FILE: task})


def write_hugging_face(folder):
    """A Hugging Face folder, with the names of its own."""
    names = {"0": "no", "1": "yes"}
    config = dict(dataclasses.asdict(CONFIG), model_type="bert", architectures=["BertForSequenceClassification"], id2label=names)
    config.update(position_embedding_type="absolute", label2id={"no": 0, "yes": 1}, problem_type="single_label_classification")
    special = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
    added = [{"id": place, "content": TOKENS[place], "special": True, "normalized": False} for place in (14, 15)]
    parsed = {
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "lowercase": True,
            "strip_accents": None,
            "handle_chinese_chars": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": dict(zip(TOKENS, range(len(TOKENS))))},
    }
    tokenizer = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 16, "additional_special_tokens": ["##s"]}
    tokenizer.update(special, added_tokens_decoder={"14": {"content": TOKENS[14], "normalized": False}})
    write(os.path.join(folder, "vocab.txt"), vocabulary())
    values = {"config": config, "tokenizer_config": tokenizer, "tokenizer": parsed, "special_tokens_map": special}
    for name, content in {**values, "added_tokens": {token["content"]: token["id"] for token in added}}.items():
        write(os.path.join(folder, name + ".json"), json.dumps(content, indent=1))
    wide, inner = CONFIG.hidden_size, CONFIG.intermediate_size
    shapes = {
        "embeddings.word_embeddings.weight": (len(TOKENS), wide),
        "embeddings.position_embeddings.weight": (CONFIG.max_position_embeddings, wide),
        "embeddings.token_type_embeddings.weight": (2, wide),
        "pooler.dense.weight": (wide, wide),
        "pooler.dense.bias": (wide,),
        "classifier.weight": (2, wide),
        "classifier.bias": (2,),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(CONFIG.num_hidden_layers):
        start = f"encoder.layer.{layer}."
        norms += [start + "attention.output.LayerNorm", start + "output.LayerNorm"]
        sizes = {f"attention.self.{name}": (wide, wide) for name in ("query", "key", "value")}
        sizes.update({"attention.output.dense": (wide, wide), "intermediate.dense": (inner, wide), "output.dense": (wide, inner)})
        for name, shape in sizes.items():
            shapes.update({f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]})
    shapes.update({f"{name}.{part}": (wide,) for name in norms for part in ("weight", "bias")})
    draw = np.random.RandomState(5)
    tensors = {name if name.startswith("classifier") else "bert." + name: draw.randn(*shape) for name, shape in shapes.items()}
    save_file({name: value.astype(np.float32) for name, value in tensors.items()}, os.path.join(folder, "model.safetensors"))


def write_npz(folder):
    """MEAD's NPZ file of an encoder, with a vocabulary."""
    os.makedirs(folder, exist_ok=True)
    checkpoint_npz.write(os.path.join(folder, "model.npz"), checkpoint_npz.Checkpoint(_variables(), CONFIG))
    write(os.path.join(folder, "vocab.txt"), vocabulary())


def write_corpora(folder):
    """Raw corpora of all forms."""
    rows = "".join(f"text {row} <b>good</b>\t{row % 2}\n" for row in range(20))
    write(os.path.join(folder, "text.tsv"), "sentence\tlabel\n" + rows)
    review = "<review>\n<rating>\n5.0\n</rating>\n<review_text>\nA good film &amp; more {}\n</review_text>\n</review>\n"
    for name in ("positive", "negative"):
        write(os.path.join(folder, name + ".review"), "".join(review.format(row) for row in range(5)))
        write(os.path.join(folder, name + ".txt"), "".join(f"line {row} of {name}\n" for row in range(5)))


def write_flags(folder):
    """A flags file."""
    text = '# flags of finetuning.py\n--task_name "t"\n--data_dir data\n--seq_length=12\n--learning_rate 1e-4\n--do_lower_case true\n'
    write(os.path.join(folder, "run.flags"), text + "--domains books,dvd\n--num_epochs 2\n")


def write_inputs(folder):
    """Lines for tools/predict.py."""
    write(os.path.join(folder, "lines.txt"), "a good film\nthe phone\tbooks\tyes\n")
    write(os.path.join(folder, "table.csv"), 'text,label\n"a good, long film",yes\n"the ""bad"" phone",no\n')
    write(os.path.join(folder, "rows.jsonl"), '{"text": "a good film", "label": "yes"}\n{"text": "the phone", "label": "no"}\n')


def write_tables(folder):
    """Text of a task as comma-separated text and as JSON lines."""
    rows = [line.rstrip("\n").split("\t") for line in _rows("train")]
    table = "".join(f'"{text}, ""said""",{domain},{label}\n' for text, domain, label in rows)
    write(os.path.join(folder, "train.csv"), "text,domain,label\n" + table)
    lines = (json.dumps(dict(zip(("text", "domain", "label"), row))) + "\n" for row in rows)
    write(os.path.join(folder, "dev.jsonl"), "".join(lines))


def write_all(work):
    """Writes the files of all targets into a folder, whole."""
    names = ("vocabulary", "data", "snapshot", "states", "teacher", "run", "hugging_face", "mead", "corpora", "flags", "inputs", "tables")
    place = {name: os.path.join(work, name) for name in names}
    write(os.path.join(place["vocabulary"], "vocab.txt"), vocabulary())
    with contextlib.redirect_stdout(io.StringIO()):
        write_data(place["data"], os.path.join(place["vocabulary"], "vocab.txt"))
    write_snapshot(place["snapshot"])
    os.makedirs(place["states"])
    write_states(place["states"])
    write_teacher(place["teacher"])
    write_run(place["run"], place["data"])
    write_hugging_face(place["hugging_face"])
    write_npz(place["mead"])
    write_corpora(place["corpora"])
    write_flags(place["flags"])
    write_inputs(place["inputs"])
    write_tables(place["tables"])
