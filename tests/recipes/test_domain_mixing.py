"""recipes/domain_mixing.py: a script of another method finds the root, trains in its run folder, resumes, and starts its ranks."""

import os

import pytest
import tiny

pytestmark = pytest.mark.slow

SCRIPT = os.path.join(tiny.ROOT, "recipes", "domain_mixing.py")
LINE = (
    f"{SCRIPT} --task_name g1 --data_dir data --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --num_epochs 2 --seed 3 "
    "--batch_size_per_device 4 --dev_batch_size_per_device 3 --dev_every_step_num 4 --learning_rate 1e-3 --device cpu --resave_ofrecord"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = tiny.Project(tmp_path_factory.mktemp("recipes") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_g1(project.path("data"), train=4, dev=2)
    return project


@pytest.fixture(scope="module")
def mixed(project):
    return project.run_of(project.run(LINE + " --model_save_dir output/mixed"))


def test_a_run_from_another_folder(project, mixed):
    """The project's folder has no modeling/: the script finds it by its own path."""
    assert not os.path.exists(project.path("modeling"))
    assert mixed.best().startswith("snapshot_best_mixing_model_g1_dev_")
    assert mixed.flags["script"] == "domain_mixing"
    assert set(mixed.rows("dev")[-1]["by_domain"]) == {"SST-2", "mr", "cr"}
    assert mixed.rows("train")[-1]["loss"] < mixed.rows("train")[0]["loss"] * 1.2
    for name in ("report.html", "curves.png", "run.flags", "predictions_dev.tsv"):
        assert os.path.getsize(mixed.path(name)) > 0
    with open(mixed.path(mixed.best(), "README.md"), encoding="utf-8") as file:
        assert "the baseline of Meta Fine-tuning" in file.read()


def test_a_run_goes_on_where_it_stopped(project, mixed):
    line = LINE + " --model_save_dir output/cut"
    project.run(line + " --max_steps 5")
    project.run(line + " --resume output/cut")
    resumed = tiny.Run(project.path("output", "cut"))
    assert tiny.without_times(resumed.rows("train")[-1:]) == tiny.without_times(mixed.rows("train")[-1:])
    assert tiny.tree(resumed.path(resumed.best())) == tiny.tree(mixed.path(mixed.best()))


def test_two_ranks(project, mixed):
    """Two processes with half of the batch each give the losses of one."""
    line = LINE.replace("--batch_size_per_device 4", "--batch_size_per_device 2") + " --gpu_num_per_node 2 --cpu_lanes 1 --texts_per_row 1"
    run = project.run_of(project.run(line + " --model_save_dir output/ranks"))
    ours, theirs = (run.rows("train"), mixed.rows("train"))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for one, other in zip(ours, theirs):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-3)


def test_a_consistency_term(project):
    """The first pass has the masks of a run without the term, so the first cross-entropy is the same."""
    line = LINE + " --loss_print_every_n_iter 1"
    project.run(line + " --max_steps 1 --model_save_dir output/plain")
    project.run(line + " --max_steps 6 --consistency_weight 0.5 --model_save_dir output/consistent")
    plain, rows = (tiny.Run(project.path("output", name)).rows("train") for name in ("plain", "consistent"))
    assert rows[0]["label_loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)
    for row in rows:
        assert row["consistency_loss"] > 0
        assert row["loss"] == pytest.approx(row["label_loss"] + 0.5 * row["consistency_loss"], rel=1e-5)
    project.run(line + " --consistency_weight 0.5 --resume output/consistent")
    assert len(tiny.Run(project.path("output", "consistent")).rows("train")) == 12


ROWS = "--texts_per_row 1 --pad_to_max_length --loss_print_every_n_iter 1"  # one length, so one graph
ADVERSARIAL = f"--adversarial_factor 0.2 --adversarial_sigma 0.05 --adversarial_bound 0.06 {ROWS}"


def test_an_adversarial_term(project, mixed):
    """The first cross-entropy is that of a run without the term, and a continued run is the whole one bit for bit."""
    line = f"{LINE} {ADVERSARIAL} --num_epochs 1 --save_last_snapshot"
    whole = project.run_of(project.run(f"{line} --model_save_dir output/adversarial"))
    plain = project.run_of(project.run(f"{LINE} {ROWS} --max_steps 1 --num_epochs 1 --model_save_dir output/one-step"))
    rows = whole.rows("train")
    assert rows[0]["label_loss"] == pytest.approx(plain.rows("train")[0]["loss"], rel=1e-5)
    for row in rows:
        assert row["adversarial_loss"] > 1e-3
        assert row["loss"] == pytest.approx(row["label_loss"] + row["adversarial_loss"], rel=1e-5)
    project.run(f"{line} --max_steps 3 --model_save_dir output/adversarial-cut")
    project.run(f"{line} --resume output/adversarial-cut")
    resumed = tiny.Run(project.path("output", "adversarial-cut"))
    assert tiny.tree(resumed.path("snapshot_last")) == tiny.tree(whole.path("snapshot_last"))


def test_an_adversarial_term_in_two_ranks(project):
    """Texts keep their noise. Both halves of a batch are those of one process."""
    dry = "--hidden_dropout_prob 0 --attention_probs_dropout_prob 0 --cpu_lanes 1 --max_steps 3"
    one = project.run_of(project.run(f"{LINE} {ADVERSARIAL} {dry} --model_save_dir output/adversarial-one"))
    line = LINE.replace("--batch_size_per_device 4", "--batch_size_per_device 2") + " --gpu_num_per_node 2"
    two = project.run_of(project.run(f"{line} {ADVERSARIAL} {dry} --model_save_dir output/adversarial-two"))
    for first, second in zip(one.rows("train"), two.rows("train")):
        for name in ("label_loss", "adversarial_loss"):
            assert first[name] == pytest.approx(second[name], abs=1e-3), name
            assert first[name] > 1e-3


def test_finetuning_takes_the_snapshot(project, mixed):
    tiny.write_single(project.path("single"))
    output = project.run(
        f"finetuning.py --task_name sst-2 --data_dir single --model_load_dir {mixed.path(mixed.best())} --seq_length 24 --num_epochs 1 "
        "--batch_size_per_device 4 --dev_every_step_num 2 --device cpu --resave_ofrecord --model_save_dir output/single"
    )
    assert "initialised" not in output  # the classifier is that of the snapshot


def test_held_out_domains(project):
    """Their rows neither train nor select a snapshot. They are measured once, apart from the others."""
    more = "--held_out_domains mr,sst-2 --max_steps 3"
    tiny.write_rows(project.path("data"), "test", [row for name in ("cr", "MR") for row in tiny.opinions(name, (3, 2), "test")])
    run = project.run_of(project.run(f"{LINE} {more} --model_save_dir output/held-out"))
    assert "train: --held_out_domains: 15 samples are left out (SST-2 8, mr 7), 8 are used" in run.log
    assert {name: set(run.rows(name)[-1]["by_domain"]) for name in ("dev", "dev_held_out", "test", "test_held_out")} == {
        "dev": {"cr"}, "dev_held_out": {"SST-2", "mr"}, "test": {"cr"}, "test_held_out": {"mr"}
    }  # fmt: skip
    assert [len(run.rows(name)) for name in ("dev_held_out", "test", "test_held_out")] == [1, 1, 1]
    assert run.rows("dev_held_out")[0]["total"] == 7
    assert run.flags["data"]["train"]["rows"] == 8
    assert "test, held-out domains accuracy" in run.log
    with open(run.path("report.html"), encoding="utf-8") as file:
        assert "test, held-out domains" in file.read()
    with open(run.path("predictions_test_held_out.tsv"), encoding="utf-8") as file:
        assert [line.split("\t")[0] for line in file][1:] == ["5", "6", "7", "8", "9"]
    with open(run.path("predictions_test_held_out.tsv"), encoding="utf-8") as file:
        assert file.readline().rstrip("\n").endswith("text")
    for other in ("mr", None):
        process = project.start(f"{LINE} --resume output/held-out" + (f" --held_out_domains {other}" if other else ""))
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 2
        assert "--held_out_domains was ['mr', 'sst-2'], is " in errors
    os.remove(project.path("data", "test.csv"))


def test_refused_held_out_domains(project):
    for names, said in (("films", "'films' is none of the domains"), ("mr,cr,SST-2", "no domain is left for training")):
        process = project.start(f"{LINE} --held_out_domains {names} --model_save_dir output/refused")
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 2
        assert said in errors
        assert len(errors.splitlines()) == 1
        assert not os.path.exists(project.path("output", "refused"))
