"""modeling/run/language_training.py and the evaluations of language modelling, without a graph."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import CONFIG

from modeling.bert.names import TOKEN_BIAS, TOKEN_HEAD, TOKEN_NORM
from modeling.bert.variant import Variant
from modeling.engine.lanes.plan import Lanes
from modeling.run.evaluation import Evaluation
from modeling.run.language_training import (
    LanguageEvaluator,
    LanguageTraining,
    _measures,
    check_token_head,
    language_shapes,
    per_row,
    plan_masking,
)
from modeling.run.resources import Graph, MemoryPlan, Model
from ofrecord_util.errors import UserError
from ofrecord_util.masking import Masking
from ofrecord_util.records import Records
from ofrecord_util.tasks import Task

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(CONFIG.vocab_size - 5))]


def test_measures_are_means_over_masked_tokens():
    """Not over rows: the second row has three of the four masked tokens."""
    values = _measures(np.array([[2.0, 1, 1], [3.0, 0, 3], [0, 0, 0]]))
    assert values == {"accuracy": 0.25, "correct": 1, "total": 4, "cross_entropy": 1.25, "perplexity": math.exp(1.25)}


def test_an_evaluation_with_a_perplexity():
    by_domain = {"a": {"perplexity": 2.0}, "b": {"perplexity": 3.5}}
    evaluation = Evaluation(3, 12, math.log(2.5), by_domain, {"perplexity": 2.5})
    assert evaluation.score == evaluation.perplexity == 2.5
    assert evaluation.to_dict()["perplexity"] == 2.5
    assert Evaluation.from_dict(evaluation.to_dict()) == evaluation
    assert str(evaluation) == "perplexity 2.5000, a 2.0000, b 3.5000, accuracy 0.2500 (3/12 masked tokens)"
    assert evaluation.more_text() == ""
    labelled = Evaluation(3, 12, 1.0, {})
    assert (labelled.score, labelled.perplexity) == (0.25, None)


def test_the_perplexity_of_a_line_of_metrics():
    assert LanguageTraining.further_metrics(None, {"loss": 1.5}) == {"perplexity": math.exp(1.5)}
    assert math.isfinite(LanguageTraining.further_metrics(None, {"loss": 1e5})["perplexity"])


def test_the_pooler_is_there_if_the_snapshot_has_it():
    with_pooler = language_shapes(CONFIG, SimpleNamespace(sizes={"bert-pooler-dense-weight": 400}))
    without = language_shapes(CONFIG, SimpleNamespace(sizes={"bert-embeddings-word_embeddings": 1}))
    assert set(with_pooler) - set(without) == {"bert-pooler-dense-weight", "bert-pooler-dense-bias"}
    assert language_shapes(CONFIG, None) == without
    assert set(TOKEN_HEAD) <= set(without)
    assert without["cls-predictions-output_bias"] == (CONFIG.vocab_size,)


def test_the_memory_of_the_head():
    """Scores of the vocabulary for each masked token of each row."""
    masking, model = Masking(TOKENS), Model(CONFIG, 1000, 1000)
    plans = [MemoryPlan(model, Lanes(1), math.inf, per_row=more) for more in (None, per_row(masking, CONFIG))]
    for graph, arrays in ((Graph(True, 7, 64), 5), (Graph(False, 7, 64), 3)):
        without, with_head = (plan.needed([graph]) for plan in plans)
        assert with_head - without == 4 * 7 * masking.places(64) * CONFIG.vocab_size * arrays


def test_what_is_refused():
    flags = SimpleNamespace(mask_probability=0.15, max_predictions_per_seq=80, whole_word_masking=True)
    tokenizer = SimpleNamespace(tokens=TOKENS, vocab_size=len(TOKENS) + 1, vocab_file="v.txt")
    with pytest.raises(UserError, match=r"v\.txt: has 100 tokens, but the model has 99"):
        plan_masking(SimpleNamespace(flags=flags, tokenizer=tokenizer, config=CONFIG))
    for snapshot, said in (
        (None, "--model_load_dir is needed"),
        (SimpleNamespace(path="s", sizes={}), "s has no head of language modelling"),
    ):
        with pytest.raises(UserError, match=said):
            check_token_head(SimpleNamespace(snapshot=snapshot, config=CONFIG))


def test_a_split_without_a_token_to_mask_is_refused_before_the_training():
    """Its words have more pieces than may be masked, or it has texts without tokens; of one part of a divided split too."""
    tokens = [*TOKENS[:-6], "a", *(f"##{number}" for number in range(5))]
    masking, word = Masking(tokens), list(range(len(tokens) - 6, len(tokens)))
    ids = np.zeros((3, 9), np.int32)
    for row, own in zip(ids, ([5], word, [])):
        row[: len(own) + 2] = [2, *own, 3]
    mask, domain = (ids > 0).astype(np.int32), np.array([0, 1, 1], np.int32)
    samples = Records(ids, mask, ids * 0, domain, domain * 0, np.arange(3, dtype=np.int32), np.ones(3, np.float32)).samples()
    for held_out, rows, said in (
        ([], [1, 2], r"dev\.csv: no token can be masked"),
        ([1], [0, 1, 2], r"dev\.csv: no token of the held-out domains b can be masked"),
        ([0], [0, 1, 2], r"dev\.csv: no token of the domains b can be masked"),
    ):
        splits = SimpleNamespace(held_out=held_out, source=lambda split: split + ".csv")
        context = SimpleNamespace(splits=splits, task=Task("t", ("a", "b"), ("0", "1")))
        with pytest.raises(UserError, match=said):
            LanguageEvaluator(context, None, {"dev": samples.select(np.array(rows)), "test": None}, {"dev": 2}, masking)


def test_which_head_a_run_without_training_needs():
    """A plain head has the bias alone; BERT's has four variables more."""
    plain = dataclasses.replace(CONFIG, variant=Variant(token_head="plain"))
    bias, whole = {TOKEN_BIAS: CONFIG.vocab_size}, dict.fromkeys(TOKEN_HEAD, 1)
    for config, sizes in ((plain, bias), (plain, whole), (CONFIG, whole)):
        check_token_head(SimpleNamespace(snapshot=SimpleNamespace(path="s", sizes=sizes), config=config))
    for config, sizes, named in ((plain, {}, TOKEN_BIAS), (CONFIG, {}, TOKEN_BIAS), (CONFIG, bias, TOKEN_NORM + "-beta")):
        with pytest.raises(UserError, match=rf"s has no head of language modelling \({named}\)"):
            check_token_head(SimpleNamespace(snapshot=SimpleNamespace(path="s", sizes=sizes), config=config))
