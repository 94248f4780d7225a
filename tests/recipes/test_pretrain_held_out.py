"""--held_out_domains of the recipes that train on a corpus: what is left out, what is measured apart, and records of other runs."""

import os

import pytest
import tiny

from modeling.cli.scripts import CORPUS_TRAINING, PRETRAIN_DISCRIMINATOR, PRETRAIN_MLM, PRETRAIN_PAIRS
from ofrecord_util.corpus import Corpus

pytestmark = pytest.mark.slow

COMMON = (
    "recipes.{}.py --task_name g1 --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --seed 3 --device cpu --data_dir data "
    "--evaluation_text leave_out --batch_size_per_device 5 --num_epochs 1 --dev_every_step_num 2 --max_steps 3 --resave_ofrecord"
)
TEXTS = ["the cats sleep and the dogs run", "the dogs sleep and it was boring", "this is a movie", "yes and no", "maybe the dogs", "a cat"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("held-out") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=8, dev=4)
    tiny.write_rows(project.path("data"), "test", [row for name in ("cr", "MR") for row in tiny.opinions(name, (3, 2), "test")])
    with open(project.path("more.txt"), "w", encoding="utf-8") as file:
        file.write("".join(text + "\n" for text in TEXTS))
    return project


@pytest.mark.parametrize("script", CORPUS_TRAINING)
def test_their_rows_train_nothing_and_are_measured_apart(project, script):
    output = project.call_well(f"{COMMON.format(script)} --held_out_domains mr,sst-2 --model_save_dir output/{script}")
    run = project.run_of(output)
    assert "train: --held_out_domains: 31 samples are left out (SST-2 16, mr 15), 16 are used" in run.log
    assert "has no effect" not in run.log
    parts = {"dev": {"cr"}, "dev_held_out": {"SST-2", "mr"}, "test": {"cr"}, "test_held_out": {"mr"}}
    assert {name: set(run.rows(name)[-1]["by_domain"]) for name in parts} == parts
    assert {len(run.rows(name)) for name in ("dev_held_out", "test", "test_held_out")} == {1}
    assert "test, held-out domains" in run.log
    assert "test, held-out domains" in tiny.read_bytes(run.path("report.html")).decode("utf-8")
    manifest = Corpus(project.path("data")).manifest
    assert manifest["texts"] + manifest["evaluation_texts"] == 16
    assert manifest["held_out_domains"] == ["SST-2", "mr"]


def test_records_and_states_of_other_runs(project):
    """A run needs the records, and the state, of the same held-out domains. The spelling of their names does not matter to records."""
    line = COMMON.format(PRETRAIN_MLM).replace(" --resave_ofrecord", " --model_save_dir output/records")
    project.call_well(f"{line}-first --resave_ofrecord --held_out_domains mr")
    script = os.path.join(tiny.ROOT, "recipes", PRETRAIN_MLM + ".py")
    project.run(f"{script} {line.split(maxsplit=1)[1]} --held_out_domains MR,mr")  # a process, which ends and frees its folder
    made = "the records are stale: --held_out_domains: they were made {}, this run is {}; write them again with --resave_ofrecord"
    refused = [
        ("", made.format("with --held_out_domains mr", "without it")),
        ("--held_out_domains cr", made.format("with --held_out_domains mr", "with --held_out_domains cr")),
        ("--resume output/records --held_out_domains cr --resave_ofrecord", "--held_out_domains was ['MR', 'mr'], is ['cr']"),
        ("--resume output/records --resave_ofrecord", "--held_out_domains was ['MR', 'mr'], is None"),
        ("", made.format("with --held_out_domains mr", "without it")),  # a refused --resume has written no records
        ("--held_out_domains films", "--held_out_domains films: 'films' is none of the domains SST-2, mr, cr"),
        ("--held_out_domains mr,cr,SST-2", "--held_out_domains mr,cr,SST-2: no domain is left for training"),
    ]
    for more, said in refused:
        code, _, errors = project.call(f"{line} {more}")
        assert code == 2
        assert said in errors
        assert len(errors.splitlines()) == 1


def test_without_the_text_of_the_task(project):
    """The lines of files have no domain: all of them train, the records are those without the flag, and dev is divided all the same."""
    line = f"{COMMON.format(PRETRAIN_MLM)} --corpus_file more.txt"
    run = project.run_of(project.call_well(f"{line} --held_out_domains mr --model_save_dir output/lines"))
    assert "--held_out_domains has no effect on the corpus without --use_task_text: a line of --corpus_file has no domain" in run.log
    assert "samples are left out" not in run.log
    assert set(run.rows("dev_held_out")[-1]["by_domain"]) == {"mr"}
    assert Corpus(project.path("data")).manifest["texts_by_file"] == [len(TEXTS)]
    project.call_well(f"{line.replace('--resave_ofrecord', '')} --model_save_dir output/lines-again")


def test_dev_must_select_a_snapshot(project):
    """It needs rows of other domains, and for the recall two in each part."""
    good, other = ("a good plot", "mr", "1"), ("the screen was bad", "cr", "0")
    tiny.write_rows(project.path("few"), "train", [good, other, ("the plot was bad", "mr", "0"), ("a good phone", "cr", "1")])
    for script, rows, said in (
        (PRETRAIN_MLM, [good], "the dev split has only rows of the held-out domains mr, which select no snapshot"),
        (PRETRAIN_DISCRIMINATOR, [good], "the dev split has only rows of the held-out domains mr, which select no snapshot"),
        (PRETRAIN_PAIRS, [good, good, other], "dev.csv: has one pair of the domains cr, so there is none to compare it with"),
        (PRETRAIN_PAIRS, [good, other, other], "dev.csv: has one pair of the held-out domains mr, so there is none to compare it with"),
    ):
        tiny.write_rows(project.path("few"), "dev", rows)
        more = "--data_dir few --domains mr,cr --evaluation_text keep --held_out_domains mr --model_save_dir output/few"
        code, _, errors = project.call(f"{COMMON.format(script)} {more}")
        assert code == 2
        assert said in errors
