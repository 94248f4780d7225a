"""benchmarks/learners.py without training: data, order of the jobs, choice of the rates, tables, command lines."""

import json
import os
import random

import pytest

from benchmarks import learners, learners_arms, learners_data, learners_distilled, learners_jobs, learners_unseen, runs
from modeling.cli.flags import build_parser
from ofrecord_util.errors import UserError
from tools.kshot_corpora import make_row
from tools.kshot_leaks import find_leaks

WORDS = ("good", "bad", "film", "plot", "phone", "screen", "story", "actor", "very", "quite", "never", "often", "small", "large", "dull")


def sentences(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(9, 14))) for _ in range(count)]


@pytest.fixture
def raw(tmp_path):
    """A folder of the form of DATA_DIR with tiny corpora. Half of MR's test rows occur in the training text of MR and of SST-2."""
    folder = tmp_path / "raw-data"
    tests = {domain: sentences(6, domain) for domain in learners_data.FEW_SHOT}
    for domain, texts in tests.items():
        place = folder / "k-shot-single" / domain / "16-42"
        place.mkdir(parents=True)
        (place / "test.csv").write_text("".join(f"{text}\t{domain}\t{row % 2}\n" for row, text in enumerate(texts)), encoding="utf-8")
    cross = folder / "k-shot-cross" / "g1" / "16-42"
    cross.mkdir(parents=True)
    for split in ("train", "dev"):
        rows = [(text, domain) for domain in learners_data.FEW_SHOT for text in sentences(4, f"{domain} {split}")]
        (cross / f"{split}.csv").write_text("".join(f"{text}\t{domain}\t{row % 2}\n" for row, (text, domain) in enumerate(rows)))
    leaked = tests["MR"][:3]
    for place, name, classes in (("CR", "custrev", ("pos", "neg")), ("MR", "rt-polarity", ("pos", "neg"))):
        (folder / "raw" / place).mkdir(parents=True)
        for kind in classes:
            texts = sentences(40, f"{place} {kind}") + (leaked if kind == "pos" and place == "MR" else [])
            (folder / "raw" / place / f"{name}.{kind}").write_text("".join(text + "\n" for text in texts))
    whole = sentences(80, "sst")
    phrases = [text.rsplit(" ", 3)[0] for text in whole[:20]] + [text + " indeed" for text in leaked]
    lines = [f"{text} \t{row % 2}" for row, text in enumerate(whole + phrases)]
    (folder / "raw" / "SST-2").mkdir()
    (folder / "raw" / "SST-2" / "train.tsv").write_text("sentence\tlabel\n" + "".join(line + "\n" for line in lines))
    (folder / "fdu-mtl").mkdir()
    for number in range(12):
        for split, count in (("train", 214), ("test", 6)):
            texts = sentences(count, f"{number} {split}")
            lines = [f"{row % 2}\t{text}\n" for row, text in enumerate(texts)]
            (folder / "fdu-mtl" / f"d{number:02}.task.{split}").write_text("".join(lines))
    (folder / "SENTI").mkdir()
    for split in ("train", "dev", "test"):
        rows = [(text, domain) for domain in ("books", "dvd", "electronics", "kitchen") for text in sentences(9, f"{domain} {split}")]
        (folder / "SENTI" / f"{split}.csv").write_text("".join(f"{text}\t{name}\t{row % 2}\n" for row, (text, name) in enumerate(rows)))
    return str(folder)


class Scripts:
    """Stands for `run_script`: checks the command line with the script's own parser and writes the results of a run.

    Attributes:
        calls: (script, folder below the output folder) in their order.
        dev: function of a folder that returns (accuracy, cross-entropy) on dev.
        fails: part of the folder of a run that fails.
    """

    def __init__(self, output):
        self.output, self.calls, self.fails = str(output), [], None
        self.dev = lambda folder: (0.5, 0.7)

    def __call__(self, flags, folder, threads=1, flag="--model_save_dir", python=None):
        if os.path.exists(os.path.join(folder, runs.DONE)):
            return runs.rows_of(folder)
        name = os.path.relpath(folder, self.output)
        self.calls.append((os.path.basename(flags[0]), name))
        if self.fails and self.fails in name:
            raise SystemExit(f"{name}\nfailed")
        assert all(isinstance(word, str) for word in flags)
        script, rows, known = os.path.splitext(os.path.basename(flags[0]))[0], [], None
        if python is None and script != "convert_checkpoint":
            known = build_parser(script).parse_args([*flags[1:], flag, folder])
        os.makedirs(os.path.join(folder, "snapshot_best_model_dev_0.5"))
        if script == "meta_teacher_eval":
            os.makedirs(known.teacher_output_dir)
            with open(os.path.join(folder, "meta_teacher_eval.log"), "w") as file:
                file.write("train accuracy 0.9531 (61/64), cross-entropy 0.1\n")
        if script not in ("preprocess", "meta_teacher_eval", "convert_checkpoint"):
            accuracy, cross_entropy = self.dev(name)
            data = flags[flags.index("--data_dir") + 1]
            rows = [{"kind": "train", "step": 240}, {"kind": "dev", "accuracy": accuracy, "cross_entropy": cross_entropy}]
            if os.path.exists(os.path.join(data, "test.csv")):
                domains = sorted({row[1] for row in learners_data.read_rows(data, "test")})
                values = {domain: {"accuracy": 0.6 + 0.01 * (len(name) % 7)} for domain in domains}
                rows.append({"kind": "test", "accuracy": 0.6 + 0.01 * (len(name) % 7), "by_domain": values})
                rows.append(dict(rows[-1], kind="teacher_test"))
        with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        with open(os.path.join(folder, runs.DONE), "w") as file:
            json.dump({"seconds": 2.0, "command": " ".join(flags)}, file)
        return rows


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    found = Scripts(tmp_path / "out")
    for module in (learners_jobs, learners_distilled):
        monkeypatch.setattr(module, "run_script", found)
    monkeypatch.delenv(learners_jobs.PYTHON_VARIABLE, raising=False)
    return found


def measure(tmp_path, raw, part, *words):
    learners.main(
        ["--part", part, "--model_dir", str(tmp_path), "--data_dir", raw, "--output_dir", str(tmp_path / "out"), *map(str, words)]
    )


# Data


def test_draws_reveal_no_test_text(tmp_path, raw):
    draws = learners_data.FewShotDraws(raw, str(tmp_path / "data"))
    given = draws.splits("16-42")
    for draw in ("1", "2"):
        folder = draws.folder(draw)
        splits = {split: learners_data.read_rows(folder, split) for split in learners_data.SPLITS}
        assert splits["test"] == given["test"]
        learned = splits["train"] + splits["dev"]
        assert (
            find_leaks([make_row(row[0], row[2]) for row in learned], [make_row(row[0], row[2]) for row in splits["test"]]) == [None] * 192
        )
        assert {row[1:] for row in learned} == {(domain, label) for domain in learners_data.FEW_SHOT for label in "01"}
        single = draws.domain_folder(draw, "CR")
        assert learners_data.read_rows(single, "train") == [row for row in splits["train"] if row[1] == "CR"]
    assert learners_data.read_rows(draws.folder("1"), "train") != learners_data.read_rows(draws.folder("2"), "train")


def test_whole_sentences():
    assert learners_data.whole_sentences(["a good film", "good film", "a good film", "no plot", "film with no plot at all"]) == [
        "a good film",
        "film with no plot at all",
    ]


def test_every_domain_is_unseen_once():
    domains = tuple(f"d{number}" for number in range(12))
    rotations = [learners_unseen.rotation_of(domains, number) for number in range(6)]
    assert [domain for one in rotations for domain in one.unseen] == list(domains)
    for one in rotations:
        assert sorted(one.unseen + one.validation + one.training) == sorted(domains)
        assert len(one.training) == 8


def test_adaptations_are_nested_and_never_trained_before(tmp_path, raw):
    draws = learners_unseen.UnseenDraws(raw, str(tmp_path / "data"), 20, ["1", "2"])
    trained = learners_data.read_rows(draws.folder("rotation-0"), "train")
    assert {row[1] for row in trained} == {f"d{number:02}" for number in range(4, 12)}
    few, more = (learners_data.read_rows(draws.adaptation("d01", shots, "2"), "train") for shots in (4, 8))
    assert (len(few), len(more)) == (8, 16)
    assert set(few) < set(more)
    dev, test = (learners_data.read_rows(draws.adaptation("d01", 8, "2"), split) for split in ("dev", "test"))
    assert not {row[0] for row in dev} & {row[0] for row in more}
    assert not {row[0] for row in test} & {row[0] for row in dev + more}


def test_noise_changes_a_share_of_the_labels():
    rows = [(f"text {number}", "books", str(number % 2)) for number in range(50)]
    noisy = learners_distilled.with_noise(rows, 0.1)
    assert sum(one != two for one, two in zip(rows, noisy)) == 5
    assert [row[:2] for row in noisy] == [row[:2] for row in rows]
    assert learners_distilled.with_noise(rows, 0.1) == noisy


def tables_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]


# Whole measurements with stand-ins for the scripts


def test_a_measurement_runs_once_cell_after_cell(tmp_path, raw, scripts, capsys):
    """All arms of one draw and seed come first; the rate is chosen before the first measured run; a second call runs nothing."""
    scripts.dev = lambda folder: (0.9, 0.3) if "5e-5" in folder else (0.5, 0.7)
    words = ("--draws", "16-42", 1, "--seeds", 42, 43, "--arms", "mixing", "contrastive, then MFT")
    measure(tmp_path, raw, "A", *words)
    measured = [os.path.join(*name.split(os.sep)[1:3]) for _, name in scripts.calls if name.startswith("runs")]
    assert list(dict.fromkeys(measured)) == ["16-42/42", "1/42", "16-42/43", "1/43"]
    assert measured == sorted(measured, key=list(dict.fromkeys(measured)).index)
    assert [name for _, name in scripts.calls[:4]] == [*(f"choice/mixing/{rate}" for rate in learners_arms.RATES), "runs/16-42/42/mixing"]
    assert sum(name.startswith("choice") for _, name in scripts.calls) == 9
    kept = json.loads((tmp_path / "out" / "rates.json").read_text(encoding="utf-8"))
    assert {name: chosen["value"] for name, chosen in kept.items()} == dict.fromkeys(
        ("mixing", "contrastive", "contrastive+scores+mft"), "5e-5"
    )
    assert not list((tmp_path / "out" / "choice").glob("**/snapshot_*"))
    assert {path.parent.name for path in (tmp_path / "out" / "runs").glob("**/snapshot_*")} == {"contrastive", "contrastive+scores"}
    count, first = len(scripts.calls), tables_of(capsys)
    assert any(line.startswith("| contrastive, then MFT |") for line in first)
    measure(tmp_path, raw, "A", *words)
    assert tables_of(capsys) == first
    measure(tmp_path, raw, "A", *words, "--report_only")
    assert tables_of(capsys) == first
    assert len(scripts.calls) == count
    assert (tmp_path / "out" / "learners.html").is_file()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("A", ("--draws", "16-42", "--seeds", 42, "--workers", 2)),
        ("B", ("--draws", "20-42", "all", "--seeds", 42)),
        ("C", ("--rotations", 0, 3, "--seeds", 42, "--draws", 1, 2, "--shots", 0, 4, "--train_rows", 20)),
        ("D", ("--seeds", 42, 43)),
    ],
)
def test_command_lines_of_all_arms(part, words, tmp_path, raw, scripts, capsys, monkeypatch):
    """Each script's own parser takes them, and the tables have every arm."""
    monkeypatch.setenv(learners_jobs.PYTHON_VARIABLE, "python-with-setfit")
    monkeypatch.setattr(learners, "CHOICE_OF_REVIEWS", "20-42")
    measure(tmp_path, raw, part, *words)
    printed, count = capsys.readouterr().out, len(scripts.calls)
    together = [name for name in learners_arms.arms(learners_arms.FEW) if name not in learners_arms.FURTHER]
    arms = {
        "A": together,
        "B": together,
        "C": [name for name in learners_arms.unseen_arms(learners_arms.UNSEEN) if name not in learners_arms.FURTHER],
        "D": [f"{name}: {row}" for name in ("clean", "few", "noise-10", "noise-20", "held-out") for row in learners_distilled.ROWS],
    }
    for arm in arms[part]:
        assert f"\n| {arm} |" in printed, arm
    measure(tmp_path, raw, part, *words)
    assert len(scripts.calls) == count


@pytest.mark.parametrize(
    ("part", "arms"),
    [
        ("A", [name for name in learners_arms.FURTHER if name not in learners_arms.FURTHER_UNSEEN]),
        ("C", list(learners_arms.FURTHER_UNSEEN)),
    ],
)
def test_command_lines_of_further_arms(part, arms, tmp_path, raw, scripts, capsys, monkeypatch):
    monkeypatch.setenv(learners_jobs.PYTHON_VARIABLE, "python-with-setfit")
    words = ("--draws", "16-42") if part == "A" else ("--draws", 1, "--rotations", 0, "--shots", 4, "--train_rows", 20)
    measure(tmp_path, raw, part, "--seeds", 42, *words, "--arms", *arms)
    printed = capsys.readouterr().out
    for arm in arms:
        assert f"\n| {arm} |" in printed, arm
    if part == "A":
        command = json.loads((tmp_path / "out/runs/16-42/42/setfit-1e-4" / runs.DONE).read_text(encoding="utf-8"))["command"]
        assert "--learning_rate 1e-4" in command


def test_figures_from_elsewhere_stand_where_setfit_does_not_run(tmp_path, raw, scripts, capsys, monkeypatch):
    """They are a row of the accuracies of part A, and no row of the differences."""
    words = ("--draws", "16-42", "--seeds", 42, "--arms", "mixing", "single")
    measure(tmp_path, raw, "A", *words)
    (row,) = [line for line in tables_of(capsys) if "SetFit" in line]
    assert row == "| *SetFit, measured elsewhere: draw 16-42, seed 42* | 78.8 | 72.7 | 82.3 | 77.9 | 1 | 7,680 | – |"
    measure(tmp_path, raw, "B", "--draws", "20-42", "--seeds", 42, "--arms", "mixing", "--output_dir", str(tmp_path / "B"))
    assert "SetFit" not in capsys.readouterr().out
    monkeypatch.setenv(learners_jobs.PYTHON_VARIABLE, "python-with-setfit")
    measure(tmp_path, raw, "A", *words)
    assert "SetFit" not in capsys.readouterr().out


def test_arms_of_unseen_domains_share_what_comes_before_the_adaptation(tmp_path, raw, scripts, capsys):
    """Without rows there is no nearest mean; fine-tuning of other lengths has folders of its own, and the chosen rate."""
    words = ("--rotations", 0, "--seeds", 42, "--draws", 1, "--shots", 0, 4, "--train_rows", 20)
    arms = ("mixing", "mixing, nearest mean", "pairs on the K rows", "frozen vectors")
    measure(tmp_path, raw, "C", *words, "--arms", *arms)
    lines = {line.split(" | ")[0][2:]: line.split(" | ") for line in tables_of(capsys)}
    assert [lines[arm][1] == "–" for arm in arms] == [False, True, True, True]
    names = [name for _, name in scripts.calls]
    assert sum(name == "runs/rotation-0/42/mixing" for name in names) == 1
    assert {name for name in names if name.startswith("runs") and name.endswith("/4-1")} == {
        f"runs/rotation-0/42/{name}/{domain}/4-1"
        for name in ("mixing-adapted", "mixing-nearest-mean", "none-pairs", "none-frozen")
        for domain in ("d00", "d01")
    }
    chosen = json.loads((tmp_path / "out" / "rates.json").read_text(encoding="utf-8"))
    assert {name: one["flag"] for name, one in chosen.items()} == {
        "mixing": "--learning_rate",
        "mixing+adapted": "--learning_rate",
        "pairs": "--learning_rate",
        "frozen": "--logistic_c",
    }
    measure(tmp_path, raw, "C", *words, "--arms", *arms, "--adaptation_steps", 7)
    assert [name for _, name in scripts.calls[len(names) :]] == [
        f"runs/rotation-0/42/mixing-adapted-7-steps/{name}/4-1" for name in ("d00", "d01")
    ]
    measure(tmp_path, raw, "C", *words, "--arms", *arms)
    assert len(scripts.calls) == len(names) + 2


def test_a_teacher_trains_once_for_all_of_its_students(tmp_path, raw, scripts, capsys):
    """The teacher of "held-out" is that of "clean", its students are measured apart from it; outputs of a teacher do not stay."""
    measure(tmp_path, raw, "D", "--conditions", "clean", "held-out", "few", "--seeds", 42, "--student_rows", 2)
    names = [name for _, name in scripts.calls]
    assert [name for name in names if "/teachers/" in name] == ["rows-2/teachers/clean/42", "rows-2/teachers/few/42"]
    assert sum("/students/" in name for name in names) == 9
    assert sum("/scores/" in name for name in names) == 3
    assert not list((tmp_path / "out").glob("*/teacher_outputs/*"))
    assert len(learners_data.read_rows(str(tmp_path / "out" / "rows-2" / "data" / "clean"), "train")) == 16
    assert any(line.startswith("| few: teacher | 95.3 | 50.0 |") for line in tables_of(capsys))


def test_a_student_starts_from_the_layers_that_its_name_says(tmp_path, raw, scripts):
    """The row "from teacher layers" starts from the teacher's snapshot, the others from the encoder."""
    measure(tmp_path, raw, "D", "--conditions", "clean", "--seeds", 42, "--student_rows", 2, "--arms", "distilled", "from teacher layers")
    starts = {}
    for row in ("distilled", "from-teacher-layers"):
        folder = tmp_path / "out" / "rows-2" / "students" / "clean" / "42" / row
        words = json.loads((folder / runs.DONE).read_text(encoding="utf-8"))["command"].split()
        starts[row] = words[words.index("--student_model") + 1]
        teacher = words[words.index("--teacher_model") + 1]
    assert starts == {"distilled": str(tmp_path), "from-teacher-layers": teacher}
    assert teacher != str(tmp_path)


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, raw, scripts, capsys):
    scripts.fails = "runs/16-42/42/prototypes"
    with pytest.raises(UserError, match="1 jobs failed: 16-42, seed 42: prototypes"):
        measure(tmp_path, raw, "A", "--draws", "16-42", "--seeds", 42, "--arms", "prototypes", "mixing")
    printed = capsys.readouterr()
    assert "| mixing |" in printed.out
    assert "prototypes failed: " in printed.err


def test_folders_and_numbers_are_checked_before_the_first_job(tmp_path, raw, scripts, capsys):
    for flag in ("--data_dir", "--model_dir"):
        with pytest.raises(UserError, match=f"{flag} nowhere: no such folder"):
            measure(tmp_path, raw, "D", flag, "nowhere")
    for flag in ("--seeds", "--student_rows", "--workers"):
        with pytest.raises(SystemExit):
            measure(tmp_path, raw, "D", flag, "-1")
        assert f"argument {flag}: -1 is not " in capsys.readouterr().err
    measure(tmp_path, raw, "D", "--report_only", "--data_dir", "nowhere")
    assert scripts.calls == []


@pytest.mark.parametrize(
    ("part", "words", "message"),
    [
        ("A", ("--arms", "magic"), "--arms 'magic': there are 'mixing'"),
        ("A", ("--arms", "SetFit"), "BENCH_SETFIT_PYTHON"),
        ("C", ("--draws", 2), "--draws 2: part C needs the draw 1"),
        ("A", ("--draws", "first"), "--draws 'first': is no draw of part A"),
        ("B", ("--draws", 50), "--draws '50': is no draw of part B"),
        ("C", ("--rotations", 6), "--rotations"),
        ("C", ("--shots", 17), "--shots"),
        ("D", ("--conditions", "rain"), "--conditions 'rain'"),
        ("D", ("--arms", "after unlabelled text"), "--arms 'after unlabelled text': there are 'plain'"),
    ],
)
def test_refused(part, words, message, tmp_path, raw, scripts):
    with pytest.raises(UserError, match=message):
        measure(tmp_path, raw, part, *words)
    assert scripts.calls == []
