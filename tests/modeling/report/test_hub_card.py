"""modeling/report/hub_card.py: metadata that a parser of YAML reads back, results by domain, and names that do nothing."""

import json
import os

import pytest
from run_folder import TASK, write_run

from modeling.bert.config import BertConfig
from modeling.report.facts import read_results
from modeling.report.hub_card import hub_card
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_yaml
from ofrecord_util.tasks import Task

CONFIG = {"num_hidden_layers": 2, "hidden_size": 20, "num_attention_heads": 4, "vocab_size": 7}


@pytest.fixture
def folder(tmp_path):
    return write_run(str(tmp_path / "run"), str(tmp_path / "data"))


def card_of(folder, task=TASK, name="my model", **settings):
    (snapshot,) = [name for name in os.listdir(folder) if name.startswith("snapshot_best_")]
    return hub_card(name, task, CONFIG, 128, True, read_results(folder), snapshot, **settings)


def metadata(text):
    """{key: value} of the metadata, and a list of (dataset, accuracy). Strings in double quotes have the escapes of JSON here."""
    lines = text.split("\n")
    assert lines[0] == "---"
    end = lines.index("---", 1)
    values = [line.strip().lstrip("- ").partition(": ")[::2] for line in lines[1:end]]
    plain = {key: json.loads(value) if value.startswith('"') else value for key, value in values[::-1] if value}
    names = [json.loads(value) for key, value in values if key == "name"]
    accuracies = [float(value) for key, value in values if key == "value"]
    return plain, list(zip(names[1:], accuracies))


def test_metadata_and_results(folder):
    text, run = card_of(folder, license="apache-2.0"), read_results(folder)
    plain, results = metadata(text)
    assert (plain["license"], plain["library_name"], plain["pipeline_tag"]) == ("apache-2.0", "transformers", "text-classification")
    by_domain = run.result("test")["by_domain"]
    assert dict(results) == {f"{TASK.name}, {name}": round(values["accuracy"], 4) for name, values in by_domain.items()}
    assert len(results) > 1
    for part in ("## Intended use", "## Results by domain", "## Limits", "## Licence", "truncation=True", "test:", "no, yes"):
        assert part in text, part
    assert 'pipeline("text-classification", model="my model", truncation=True)' in text


def test_nothing_is_made_up(tmp_path):
    text = hub_card("m", TASK, CONFIG, 128, False)
    plain, results = metadata(text)
    assert (plain["license"], results) == ("unknown", [])
    assert "No results are known" in text
    assert "Not stated" in text
    for head, said in (("token-classification", "gives each word"), ("question-answering", "context=")):
        other = hub_card("m", None, CONFIG, 128, False, head=head)
        assert f"pipeline_tag: {head}" in other
        assert f'pipeline("{head}", model=' in other
        assert said in other
    encoder = hub_card("m", None, CONFIG, 128, False)
    assert metadata(encoder)[0]["pipeline_tag"] == "feature-extraction"
    assert "labels" not in encoder.split("## Limits")[0].replace("predicts no labels", "")


def test_pairs_with_an_odd_room():
    pair = Task("p", ("d",), ("no", "yes"), True)
    assert "one token less" in hub_card("m", pair, CONFIG, 128, False)
    assert "one token less" not in hub_card("m", pair, CONFIG, 127, False)
    assert '"text_pair": "its partner"' in hub_card("m", pair, CONFIG, 127, False)


def test_names_do_nothing(folder):
    bad = 'x": y <script> `a` # [b](c) | \u202e'
    task = Task("t", (bad, *TASK.domains), (bad, "yes"), False)
    text = card_of(folder, task, name=bad)
    assert "\u202e" not in text
    assert "<script>" not in text.replace("\\<script>", "").replace(for_yaml(bad), "")
    assert metadata(text.replace("\\u202e", " "))[1]  # still one value per line


@pytest.mark.parametrize("identifier", ["", "MIT", "a b", 'x"', "apache-2.0\n"])
def test_identifiers_of_licences(identifier):
    with pytest.raises(UserError, match="--license"):
        hub_card("m", TASK, CONFIG, 128, False, license=identifier)


def test_the_sizes_are_those_of_a_config():
    assert "12 layers x 768, 12 heads, 30,522 word pieces" in hub_card("m", TASK, vars(BertConfig()), 128, False)
