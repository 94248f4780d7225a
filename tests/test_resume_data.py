"""--resume compares the flags before records are written, then the data of each split on its own: a change of one split is reported for
that split only."""

import pytest
import tiny

DATA = "data/sst-2"
LINE = (
    f"finetuning.py --task_name sst-2 --data_dir {DATA} --model_load_dir encoder --seq_length 24 --vocab_file vocab.txt --resave_ofrecord "
    "--num_epochs 1 --batch_size_per_device 4 --dev_every_step_num 5 --model_save_dir output/run"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run that was cut by --max_steps."""
    project = tiny.Project(tmp_path_factory.mktemp("resume") / "project")
    tiny.write_encoder(project.path("encoder"))
    tiny.write_single(project.path(*DATA.split("/")), train=6, dev=(3, 3), test=(3, 4))
    project.run(LINE + " --max_steps 1")
    return project


def test_flags_are_compared_before_records_are_written(project):
    before = tiny.tree(project.path("data"))
    process = project.start(f"{LINE} --resume --seq_length 20")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--seq_length was 24, is 20" in errors
    assert tiny.tree(project.path("data")) == before


@pytest.mark.parametrize("split", ["test", "dev", "train"])
def test_the_split_that_changed_is_named(project, split):
    path = project.path(*DATA.split("/"), split + ".csv")
    before = tiny.read_bytes(path)
    try:
        with open(path, "ab") as file:
            file.write(b"maybe cats\tSST-2\t1\n")  # word pieces that no other row has
        process = project.start(LINE + " --resume")
        _, errors = process.communicate(timeout=300)
    finally:
        with open(path, "wb") as file:
            file.write(before)
    assert process.returncode == 2
    assert errors.count("\n") == 1
    name = "training" if split == "train" else split
    assert errors.count("digest") == 1
    assert f"{name} data's digest was " in errors
    assert "word_embeddings" not in errors


def test_the_run_goes_on_with_the_same_data(project):
    assert "after step 1 of 3" in project.call_well(LINE + " --resume")
