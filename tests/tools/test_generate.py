"""tools/generate.py: limits of its flags. tests/recipes/test_generation.py generates texts with it."""

import sys

import pytest

from modeling.cli.flags import GENERATION, parse_flags
from modeling.palm.beam_search import Search
from tools.generate import main


@pytest.mark.parametrize(("flag", "most"), [("--beam_size", "1024"), ("--length_penalty", "10")])
def test_a_search_has_the_limits_of_the_recipe(flag, most, monkeypatch, capsys):
    """Both refuse the same values before a model is read."""

    def said(value, command):
        with pytest.raises(SystemExit) as end:
            command(flag, value)
        assert end.value.code == 2
        return capsys.readouterr().err.split(" (")[0]

    def tool(*flags):
        monkeypatch.setattr(sys, "argv", ["generate.py", "--model_load_dir", "absent", "a source", *flags])
        main()

    def recipe(*flags):
        parse_flags(GENERATION, argv=["--task_name", "t", "--data_dir", "d", *flags])

    recipe(flag, most)
    for value in (most + "1", "1" + 308 * "0"):
        assert said(value, tool) == said(value, recipe) == f"error: argument {flag}: {value} is more than {int(most):,}"


def test_the_greatest_length_penalty_overflows_no_score():
    longest = 65_536  # tokens, of the longest text of any model
    scores = [Search(alpha=10.0).score(total, longest) for total in (-1e-9, -100.0 * longest)]
    assert 0 > scores[0] > scores[1] > -1
