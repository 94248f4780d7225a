"""tools/inspect.py: what it says of snapshots and records."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny

from modeling.checkpoints.snapshot import Snapshot
from ofrecord_util.dataset import Dataset
from ofrecord_util.errors import UserError
from ofrecord_util.reader import read_split
from ofrecord_util.tagged_text import TaggedFolder
from ofrecord_util.tagging import TagForm
from ofrecord_util.tasks import resolve_task
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.writer import write_split
from tools.inspect import describe_records, describe_snapshot, find_parts, record_lines

COUNT, LENGTH = 11, 17
TASK = {"name": "t", "domains": ["books", "dvd", "mr"], "labels": ["no", "yes"], "pair": False}
DOMAIN, LABEL = np.arange(COUNT, dtype=np.int32) % 3, (np.arange(COUNT, dtype=np.int32) > 6).astype(np.int32)


@pytest.fixture
def data_dir(tmp_path):
    """Records of 11 texts of 3 to 13 tokens in 3 parts, and a vocabulary."""
    vocabulary = tiny.write_vocabulary(str(tmp_path / "vocab.txt"))
    texts = [" ".join(tiny.COMMON[:1] * (count + 1)) for count in range(COUNT)]
    encoded = Tokenizer(vocabulary, True).encode(texts, None, LENGTH)
    arrays = {name: getattr(encoded, name) for name in ("input_ids", "input_mask", "segment_ids")}
    arrays.update(
        domain=DOMAIN, label=LABEL, idxs=np.arange(COUNT, dtype=np.int32), sample_weights=np.linspace(0, 1, COUNT, dtype=np.float32)
    )
    write_split(str(tmp_path), "train", None, 3, arrays, {"text_digest": "0" * 64, "task": TASK})
    return tmp_path


def tool(*arguments):
    command = [sys.executable, os.path.join("tools", "inspect.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=tiny.ROOT, capture_output=True, encoding="utf-8", timeout=300)


def test_records(data_dir):
    result = tool(data_dir / "ofrecord" / "train", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["records"], found["seq_length"], found["full"]) == (COUNT, LENGTH, 0)
    assert found["counts"] == {"books": {"no": 3, "yes": 1}, "dvd": {"no": 2, "yes": 2}, "mr": {"no": 2, "yes": 1}}
    assert found["tokens"] == {"mean": 8.0, "min": 3, "max": 13}
    assert sum(found["tokens_histogram"].values()) == COUNT
    assert found["weights"] == {"mean": pytest.approx(0.5), "min": 0.0, "max": 1.0}
    assert [part["records"] for part in found["manifest"]["parts"]] == [3, 4, 4]
    assert found["manifest_check"] == "fits the files"


def test_records_without_labels(data_dir):
    records = read_split(str(data_dir), "train", None, 3)
    unlabelled = dataclasses.replace(records, manifest=dict(records.manifest, split="unlabelled"))
    assert describe_records(unlabelled, TASK)["counts"] == {"books": {"unlabelled": 4}, "dvd": {"unlabelled": 4}, "mr": {"unlabelled": 3}}


def test_lines_of_records(data_dir):
    part = data_dir / "ofrecord" / "train" / "train.of_record-1"
    result = tool(part, "--records", "2", "--vocab_file", data_dir / "vocab.txt")
    assert result.returncode == 0, result.stderr
    first, second = (json.loads(line) for line in result.stdout.splitlines() if line.startswith("{"))
    assert first == {"idxs": 0, "domain": 0, "label": 0, "weight": 0.0, "tokens": ["[CLS]", "the", "[SEP]"]}
    assert second["tokens"] == ["[CLS]", "the", "the", "[SEP]"]
    assert second["domain"] == 1
    assert "manifest_check" in result.stdout
    assert "fits the files" in result.stdout


def test_older_records_without_names(data_dir):
    os.remove(str(data_dir / "ofrecord" / "train" / "manifest.json"))
    found = json.loads(tool(data_dir / "ofrecord" / "train", "--json").stdout)
    assert set(found["counts"]) == {"0", "1", "2"}
    assert found["manifest"] is None
    assert "no manifest.json" in found["manifest_check"]


def test_damaged_records(data_dir):
    part = data_dir / "ofrecord" / "train" / "train.of_record-2"
    part.write_bytes(part.read_bytes()[:-3])
    result = tool(data_dir / "ofrecord" / "train")
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "train.of_record-2" in result.stderr


def test_names_that_the_task_does_not_have(data_dir):
    from ofrecord_util.reader import read_split

    records = read_split(*find_parts(str(data_dir / "ofrecord" / "train")))
    assert set(describe_records(records, {"domains": ["one"], "labels": ["a"]})["counts"]) == {"one", "1", "2"}


def test_snapshot(tmp_path):
    path = tiny.write_encoder(str(tmp_path / "run" / "snapshot_best_ft_model_t_dev_0.75"))
    found = describe_snapshot(path)
    assert found["digest"] == Snapshot(path).digest()
    assert found["complete"]
    assert found["task"] is None
    assert found["config"]["hidden_size"] == 20
    assert found["variables"]["bert-pooler-dense-weight"] == [20, 20]
    assert found["parameters"] == sum(int(np.prod(shape)) for shape in found["variables"].values()) == found["bytes"] // 4
    assert "trained" not in found

    (tmp_path / "run" / "flags.json").write_text(json.dumps({"script": "finetuning", "command": ["finetuning.py", "--seed", "1"]}))
    rows = [
        {"kind": "dev", "step": 3, "accuracy": 0.5, "best": True},
        {"kind": "dev", "step": 6, "accuracy": 0.75, "best": True, "total": 8},
        {"kind": "test", "accuracy": 0.625, "total": 16},
    ]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = describe_snapshot(path)["trained"]
    assert trained["dev"] == {"step": 6, "accuracy": 0.75, "total": 8}
    assert trained["test"] == {"accuracy": 0.625, "total": 16}
    assert trained["script"] == "finetuning"
    result = tool(path)
    assert result.returncode == 0
    assert "bert-pooler-dense-weight" in result.stdout
    assert found["digest"] in result.stdout


def test_records_of_tags(tmp_path):
    """They have no label, and a number and a tag for the tokens of words."""
    tiny.write_tagged(str(tmp_path), counts=(3, 1, 1))
    tokenizer, text = Tokenizer(tiny.write_vocabulary(str(tmp_path / "vocab.txt"))), TaggedFolder(str(tmp_path))
    task = resolve_task("t", str(tmp_path), folder=text)
    Dataset(str(tmp_path), task, tokenizer, 13, text=text, form=TagForm(), log=lambda _: None).records("train")
    records = read_split(*find_parts(str(tmp_path / "ofrecord" / "train")))
    described = describe_records(records, records.manifest["task"])
    assert described["counts"] == {"mr": {"records": 3}, "cr": {"records": 3}}
    assert described["manifest"]["form"] == "tags"
    line = json.loads(next(record_lines(records, 1)))
    assert len(line["words"]) == len(line["tags"]) == len(line["tokens"]) == records.lengths[0]
    assert line["words"][:2] == [0, 1]
    assert task.labels[line["tags"][1] - 1] == text.sentences("train")[0].tags[0]


def test_text(tmp_path):
    (tmp_path / "reviews.csv").write_text('id,review,stars\n1,"good, very",5\n2,bad,1\n3,"so\nso",1\n', encoding="utf-8")
    found = json.loads(tool(tmp_path / "reviews.csv", "--json").stdout)
    assert found["rows"] == 3
    assert found["counts"] == {"reviews": {"5": 1, "1": 2}}
    assert "comma-separated, header; columns: text 'review', label 'stars', no column of domains" in found["text"]
    assert "not used: 'id'" in found["text"]
    result = tool(tmp_path / "reviews.csv", "--records", "1", "--domain_column", "id")
    last = json.loads(result.stdout.splitlines()[-1])
    assert last == {"row": "row 2 (comma-separated)", "text": "good, very", "domain": "1", "label": "5"}


def test_text_without_labels(tmp_path):
    (tmp_path / "unlabelled.csv").write_text("good film\tdvd\nbad\tbooks\nso so so\tdvd\n", encoding="utf-8")
    found = json.loads(tool(tmp_path / "unlabelled.csv", "--json").stdout)
    assert found["counts"] == {"dvd": {"unlabelled": 2}, "books": {"unlabelled": 1}}
    assert found["words"] == {"median": 2, "min": 1, "max": 3}
    assert found["text"].endswith("tab-separated without a header; columns: text, domain")
    (tmp_path / "unlabelled.csv").write_text("good film\n", encoding="utf-8")
    assert "without labels and without a header, a row has 2: text, domain" in tool(tmp_path / "unlabelled.csv").stderr


def test_the_folder_of_several_splits(data_dir):
    for folder in (data_dir, data_dir / "ofrecord"):
        result = tool(folder)
        assert result.returncode == 2
        assert f"is the folder of several splits; give {data_dir}/ofrecord/train" in result.stderr


def test_results_come_first_and_variables_last(tmp_path):
    path = tiny.write_encoder(str(tmp_path / "run" / "snapshot_best_ft_model_t_dev_0.75"))
    (tmp_path / "run" / "flags.json").write_text(json.dumps({"script": "finetuning", "command": ["finetuning.py"]}))
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"kind": "dev", "step": 6, "accuracy": 0.75, "best": True}) + "\n")
    lines = [line.strip().split(" ")[0] for line in tool(path).stdout.splitlines()]
    assert lines.index("accuracy") < lines.index("script") < lines.index("config") < lines.index("digest") < lines.index("variables")
    assert lines[lines.index("variables") + 1 :] == list(describe_snapshot(path)["variables"])


def test_refusals(tmp_path):
    for path, message in ((tmp_path / "none", "no such file or folder"), (tmp_path, "contains no variables")):
        result = tool(path)
        assert result.returncode == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    os.makedirs(str(tmp_path / "ofrecord" / "dev"))
    with pytest.raises(UserError, match="neither a snapshot nor records"):
        find_parts(str(tmp_path / "ofrecord" / "dev"))
