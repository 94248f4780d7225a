"""modeling/cli/flags_file.py: what a run writes down of its flags is what it reads again; faults name file and line."""

import pytest

from modeling.cli.flags import SCRIPTS, build_parser, parse_flags, script_path
from modeling.cli.flags_file import RUN_FLAGS_FILE, write_flags_file
from ofrecord_util.errors import UserError

NEEDED = {"--task_name": "g1", "--data_dir": "data"}
SOME = {  # a value for flags that take no plain text or number
    "device": "cpu", "corruption": "all", "teacher_outputs": "online", "domains": "a b,c", "label_list": "yes, no", "node_ips": "a,b",
    "domain_layers": "0,2", "teacher_layers": "1", "data_portion": "0.25", "prototype_alpha": "0.25", "warmup_proportion": "0",
    "attention_probs_dropout_prob": "0", "hidden_dropout_prob": "0.3", "seq_length": "77", "freeze_layers": "1", "pooling": "max",
    "text_format": "csv", "metric_for_best": "cross_entropy", "label_smoothing": "0.1", "class_weights": "balanced",
    "child_tuning": "D", "reserve_p": "0.3", "meta_method": "fomaml", "inner_optimizer": "sgd", "inner_schedule": "linear",
    "inner_beta1": "0", "inner_state": "kept", "outer_optimizer": "adam", "outer_schedule": "constant", "inner_warmup_proportion": "0.5",
    "held_out_domains": "a,b", "validation_domains": "c", "objective": "prototypical", "head": "finetune",
    "evaluation_text": "keep", "packing": "packed", "mask_probability": "0.25", "pair_loss": "triplet",
    "document_end": "blank_line", "generator_size": "0.5", "score_units": "words",
}  # fmt: skip
SOME_OF = {"generation": {"objective": "pretraining"}}  # where a flag has other values than in other scripts


def parse(tmp_path, text, *more, script="meta_finetuning"):
    path = tmp_path / "some.flags"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return parse_flags(script, argv=[f"@{path}", *more])


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_comes_back(script, tmp_path):
    argv = []
    for action in build_parser(script)._actions:
        if action.nargs == 0 or action.dest == "resume":
            continue
        value = {**SOME, **SOME_OF.get(script, {})}.get(action.dest) or (
            "false" if action.nargs == "?" else "7" if action.type is not str else f"my {action.dest}"
        )
        if action.choices and value not in action.choices:  # a script may have fewer of them
            value = action.choices[-1]
        argv += [action.option_strings[-1], value]  # by its other name where it has one
    flags = parse_flags(script, argv=argv)
    write_flags_file(str(tmp_path), flags)
    assert parse_flags(script, argv=[f"@{tmp_path / RUN_FLAGS_FILE}"]) == flags
    lines = (tmp_path / RUN_FLAGS_FILE).read_text().splitlines()
    assert lines[0].startswith(f"# flags of {script_path(script)}; ")
    assert len(lines) == len(flags.given) + 1
    assert lines[1] == "--task_name my task_name"
    assert "--domains a b,c" in lines
    assert "--do_train false" in lines


def test_only_what_was_given_and_not_resume(tmp_path):
    words = "--data_dir d --task_name t --seed 1 --resave_ofrecord --resume old --seed 2"
    flags = parse_flags("finetuning", argv=words.split())
    write_flags_file(str(tmp_path), flags)
    lines = (tmp_path / RUN_FLAGS_FILE).read_text().splitlines()[1:]
    assert lines == ["--task_name t", "--data_dir d", "--resave_ofrecord true", "--seed 2"]


ODD = ("my data", " edge ", '"quoted"', "a=b", "--odd", "@at", "#no", "two\nlines", "tab\tin", "café", "\udcff")


@pytest.mark.parametrize("name", ODD)
def test_values_of_any_kind(name, tmp_path):
    flags = parse_flags("finetuning", argv=["--task_name", "t", f"--data_dir={name}", f"--model={name}"])
    write_flags_file(str(tmp_path), flags)
    assert parse_flags("finetuning", argv=[f"@{tmp_path / RUN_FLAGS_FILE}"]) == flags


def test_what_a_person_writes(tmp_path):
    text = (
        "\ufeff# flags of meta_finetuning.py, by hand\r\n\r\n  # the task\n--task_name=g1\n\n  --data_dir   my data/g1  \n"
        '--learning_rate = 5e-5\n--model_load_dir "a b"\n--resave_ofrecord\n--max_seq_length\t31\n--weight_decay_rate 0\n'
    )
    flags = parse(tmp_path, text)
    assert (flags.task_name, flags.data_dir, flags.learning_rate, flags.model_load_dir) == ("g1", "my data/g1", 5e-5, "a b")
    assert flags.resave_ofrecord is True
    assert flags.seq_length == 31
    assert flags.weight_decay_rate == 0
    assert set(flags.given) == {
        *("task_name", "data_dir", "learning_rate", "model_load_dir", "resave_ofrecord", "seq_length", "weight_decay_rate")
    }


def test_what_stands_behind_a_file_overrides_it(tmp_path):
    text = "--task_name g1\n--data_dir d\n--seed 1\n--learning_rate 1\n"
    flags = parse(tmp_path, text, "--seed", "2", "--resume", "RUN")
    assert (flags.seed, flags.learning_rate, flags.resume, flags.task_name) == (2, 1, "RUN", "g1")
    (tmp_path / "more.flags").write_text("--learning_rate 3\n")
    assert parse(tmp_path, text, f"@{tmp_path / 'more.flags'}").learning_rate == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--task_name g1\n\n--learning_rte 1\n", ": line 3: unknown flag --learning_rte, did you mean --learning_rate?"),
        ("--seq_length 2\n", ": line 1: argument --seq_length/--max_seq_length: 2 is not 3 or more"),
        ("--device tpu\n", ": line 1: argument --device: invalid choice: 'tpu'"),
        ("--task_name\n", ": line 1: --task_name needs a value"),
        ("--do_train perhaps\n", ": line 1: argument --do_train: 'perhaps' is neither true nor false"),
        ("# notes\nlearning_rate 1\n", ": line 2: 'learning_rate' does not start with --"),
        ('--data_dir "a\n', ': line 1: "a is not a valid string in double quotes'),
        ("--seed 1 --learning_rate 2\n", ": line 1: argument --seed: '1 --learning_rate 2' is not an integer"),
        ("--help\n", ": line 1: unknown flag --help"),
        ("@other.flags\n", ": line 1: '@other.flags' does not start with --"),
        ('{\n  "command": []\n}\n', ": this is JSON, not a flags file; use run.flags in the same folder"),
        ("# flags of meta_teacher.py\n--seed 1\n--data_portion 0.3\n",
         ": line 1: the flags of meta_teacher.py, this is meta_finetuning.py: which has no --data_portion"),
        ("# flags of finetuning.py\n--seed 1\n",
         ": line 1: the flags of finetuning.py, this is meta_finetuning.py: remove that line to use them for both scripts"),
        (b"\x00\xff", ": line 1: "),
    ],
)  # fmt: skip
def test_faults_name_the_line(text, said, tmp_path):
    with pytest.raises(UserError) as error:
        parse(tmp_path, text, "--task_name", "g1", "--data_dir", "d")
    assert str(tmp_path / "some.flags") + said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["@", "@missing.flags", "@."])
def test_no_file(name):
    with pytest.raises(UserError, match=f"^{name}: cannot be read .*; @ names a flags file"):
        parse_flags("preprocess", argv=[name])


def test_what_is_missing_is_said_as_always(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(tmp_path, "--task_name g1\n")
    assert "required: --data_dir" in capsys.readouterr().err
