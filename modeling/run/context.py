"""What every script does before its algorithm: device, task, vocabulary, snapshot, sizes, records; and where a run writes."""

import dataclasses
import json
import math
import os
import platform

import numpy as np

from modeling.bert.freezing import plan_freezing
from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD
from modeling.bert.variables import Variables, load_values
from modeling.bert.vocabulary import ActiveVocabulary
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, Snapshot, write_variables
from modeling.cli.errors import UserError
from modeling.cli.flags import (
    FINETUNING,
    META_TEACHER_EVAL,
    PREPROCESS,
    run_folder_name,
    warn_without_effect,
)
from modeling.cli.flags_file import write_flags_file
from modeling.engine import parallel
from modeling.engine.kernels import select_kernels
from modeling.engine.lanes import plan as lanes
from modeling.engine.runtime import flow, loaded_blas, select_device
from modeling.objectives.prototypes import score_statistics
from modeling.report.card import write_cards
from modeling.report.facts import read_run
from modeling.report.page import write_page
from modeling.run.bucketing import GraphPlan, evaluation_batch_size
from modeling.run.metrics import CURVES_FILE, LOG_FILE, Log, Metrics, write_flags
from modeling.run.model_size import resolve_config
from modeling.run.predictions import predictions_path, write_predictions
from modeling.run.resources import available_memory, check_space, memory_estimate, size_text
from modeling.run.resume import KEPT, find_run, newest_state
from ofrecord_util.batches import train_order
from ofrecord_util.dataset import prepare_split
from ofrecord_util.scores import load_scores
from ofrecord_util.tasks import Task, numbers_for_words, resolve_task
from ofrecord_util.text import find_text, split_texts
from ofrecord_util.tokenization import Tokenizer
from ofrecord_util.writer import part_paths


def _unique_folder(path):
    """Makes the folder of a run; one that is there already gets a number behind it, so that two runs never share a folder."""
    for number in range(1000):
        candidate = path if number == 0 else f"{path}-{number}"
        try:
            os.makedirs(candidate)
            return candidate
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"--model_save_dir {path}: cannot be made ({error.strerror})") from error
    raise UserError(f"--model_save_dir {path}: a thousand folders of that name are there already")


# What a script's step computes at once, by the first of these flags that it has
_STEP_SIZES = ("batch_size_per_device", "preprocess_batch_size_per_device", "eval_batch_size_per_device")


class Phase:
    """The surroundings of one script's run.

    Attributes:
        flags, device ("cpu" or "cuda"), kernels, log, task, tokenizer, snapshot (or None), config, freezing, plan (the `GraphPlan`).
        folder, metrics: of a training script; None otherwise.
        state: the `State` that --resume continues from, or None.

    Args:
        flags: from `parse_flags`.
        load_dir: snapshot folder to start from, None to start from initial values.
        trains: whether the script writes a run folder.
    """

    def __init__(self, flags, load_dir, trains=True):
        self.flags = flags
        self.device = select_device(flags.device)
        if trains:
            parallel.relaunch(flags, self.device)
        if flags.use_fp16 and self.device == "cpu":
            raise UserError("--use_fp16: mixed precision exists on CUDA only, this run is on the CPU")
        self.kernels = select_kernels(self.device)
        if not os.path.isdir(flags.data_dir):
            raise UserError(f"--data_dir {flags.data_dir}: no such folder")
        self.task = resolve_task(flags.task_name, flags.data_dir, flags.domains, flags.label_list)
        if os.path.basename(self.task.name) != self.task.name or self.task.name.startswith("."):
            raise UserError(f"--task_name {flags.task_name}: becomes part of a folder's name, so it holds no / and begins with no dot")
        self.snapshot = Snapshot(load_dir) if load_dir else None
        self.use_config(resolve_config(flags, self.snapshot))
        if self.freezing.embeddings and self.snapshot is None:
            raise UserError("--freeze_encoder, --freeze_layers: no snapshot is loaded, and initial values are not worth keeping")
        if flags.seq_length > self.config.max_position_embeddings:
            raise UserError(f"--seq_length {flags.seq_length}: the model has {self.config.max_position_embeddings} positions")
        self.vocab_file = flags.vocab_file or (self.snapshot and self.snapshot.vocab_file())
        if not self.vocab_file:
            raise UserError("--vocab_file is needed: {} holds no {}".format(load_dir or "no snapshot is loaded, which", VOCAB_FILE))
        self.tokenizer = Tokenizer(self.vocab_file, flags.do_lower_case)
        if self.tokenizer.vocab_size != self.config.vocab_size:
            raise UserError(
                "{} holds {} pieces, the model's word embeddings {}: give the model's own --vocab_file{}".format(
                    self.vocab_file,
                    self.tokenizer.vocab_size,
                    self.config.vocab_size,
                    "" if self.snapshot else f", or --vocab_size {self.tokenizer.vocab_size}",
                )
            )
        self._data = {}  # split -> what flags.json says of it
        self.folder = self.metrics = self.state = None
        if trains:
            resumed = flags.resume is not None
            if parallel.is_main():
                self.folder = find_run(flags) if resumed else _unique_folder(run_folder_name(flags.model_save_dir))
                self.log = Log(os.path.join(self.folder, LOG_FILE), exclusive=True)
            else:
                self.log = Log(silent=True)
            self.folder = parallel.broadcast(self.folder)
            self.metrics = Metrics(self.folder, writes=parallel.is_main())
            self.state = newest_state(self.folder, self.log) if resumed else None
        else:
            self.log = _step_log(flags)
        warn_without_effect(flags, self.log)
        if flags.cpu_lanes > lanes.count() == 1:
            self.log("--cpu_lanes has no effect here: a card, several processes, accumulated parts or one sample a step leave one lane")
        if numbers_for_words(self.task):
            self.log("the labels are numbers in the training text and keep them as names: --label_list NAME_OF_0,NAME_OF_1,... names them")
        self.log(f"{flags.script} on {self.device}, OneFlow {flow.__version__}, {self._model_text()}")

    def use_config(self, config):
        """Sets the size of the trained model, and what follows from it; before the first records and variables."""
        self.config, self.freezing, self.plan = config, plan_freezing(self.flags, config), GraphPlan(self.flags, config, self.device)
        flags = vars(self.flags)
        batch_size = next(flags[name] for name in _STEP_SIZES if name in flags)
        if "batch_size_per_device" not in flags:
            batch_size = evaluation_batch_size(batch_size, self.flags.seq_length, self.device)
        accumulates = flags.get("gradient_accumulation_steps", 1) > 1  # which cuts a batch into parts of its own
        lanes.plan_lanes(config, batch_size, self.flags.seq_length, self.device, 1 if accumulates else self.flags.cpu_lanes)

    def _model_text(self):
        c = self.config
        return "BERT of {} layers x {}, {} heads, {} pieces{}".format(
            c.num_hidden_layers,
            c.hidden_size,
            c.num_attention_heads,
            c.vocab_size,
            " from " + self.snapshot.path if self.snapshot else ", initial values",
        )

    def records(self, split, name=None, example_num=None):
        """`Records` of a split, written again first with --resave_ofrecord.

        Args:
            split: "train", "dev" or "test".
            name: how the flags spell the split ("eval" for dev in Meta-KD and for test in finetuning.py); None:
                like the split.
        """
        flags, name = self.flags, name or split
        with parallel.main_first():
            records = prepare_split(
                flags.data_dir,
                split,
                self.task,
                self.tokenizer,
                flags.seq_length,
                flags.resave_ofrecord and parallel.is_main(),
                prefix=getattr(flags, name + "_data_prefix"),
                part_num=getattr(flags, name + "_data_part_num"),
                example_num=getattr(flags, name + "_example_num"),
                log=self.log,
                use_scores=flags.script != PREPROCESS,
                need_scores=flags.script not in (FINETUNING, META_TEACHER_EVAL),
            )
        if split == "train":
            records = self._portion(records)
        self._data[split] = self._describe(records)
        return records

    def _describe(self, records):
        """What flags.json, and with it the run's report, says of a split."""
        manifest, task = records.manifest or {}, self.task
        counts = np.zeros((task.num_domains, task.num_labels), int)
        np.add.at(counts, (records.domain, records.label), 1)
        return {
            "rows": len(records),
            "by_domain": {name: dict(zip(task.labels, row.tolist())) for name, row in zip(task.domains, counts)},
            "text_file": manifest.get("text_file"),
            "text_digest": records.text_digest,
            "truncated": manifest.get("truncated"),
        }

    def _portion(self, records):
        """The share of the training split that --data_portion asks for: the first samples of the seed's permutation, in
        the split's order, with their scores."""
        portion = getattr(self.flags, "data_portion", 1.0)
        if portion == 1:
            return records
        count = math.ceil(portion * len(records))
        if count == 0:
            raise UserError("--data_portion 0 leaves no training samples")
        self.log(f"train: --data_portion {portion}: {count} of {len(records)} samples are used")
        return records.select(np.sort(train_order(len(records), 0, self.flags.seed)[:count]))

    def test_records(self):
        """`Records` of the test split in Meta-KD, where it is optional; None where there is neither text nor records."""
        flags = self.flags
        first = part_paths(flags.data_dir, "test", flags.test_data_prefix, flags.test_data_part_num)[0]
        has_text = find_text(flags.data_dir, "test", required=False) is not None
        if not has_text and (flags.resave_ofrecord or not os.path.exists(first)):
            self.log("no test split: test.csv is not there")
            return None
        return self.records("test")

    def weighted_records(self):
        """The training records with the weights that --use_sample_weights asks for: prototypical scores, or 1.

        Raises:
            UserError: scores are asked for and preprocess.py has not made any.
        """
        records = self.records("train")
        if not self.flags.use_sample_weights:
            self.log("--use_sample_weights false: every sample weighs 1")
            return dataclasses.replace(records, sample_weights=np.ones(len(records), np.float32))
        if load_scores(self.flags.data_dir, records.text_digest, len(records)) is None:
            raise UserError(
                f"{self.flags.data_dir}: no prototypical scores (ofrecord/train/weight.npy): run preprocess.py "
                "first, or give --use_sample_weights "
                "false"
            )
        if self.flags.normalize_sample_weights:
            if records.sample_weights.mean() <= 0:
                raise UserError(
                    f"--normalize_sample_weights: the scores' mean is {records.sample_weights.mean():.4f}, which cannot be scaled to 1"
                )
            records = dataclasses.replace(records, sample_weights=records.sample_weights / records.sample_weights.mean())
        for name, values in score_statistics(records.sample_weights, records.domain, self.task.domains).items():
            self.log("weights of {}: {count} samples, mean {mean:.4f}, std {std:.4f}, min {min:.4f}, max {max:.4f}".format(name, **values))
        return records

    def domain_loss_weight(self):
        """lambda of the corrupted-domain loss: 0 with --use_domain_loss false, and where there is no other domain to corrupt to."""
        if not self.flags.use_domain_loss:
            return 0.0
        if self.task.num_domains < 2:
            self.log("one domain only: no other to draw corrupted domains from, the domain loss is off")
            return 0.0
        return self.flags.domain_loss_weight

    def variables(self, shapes, *records):
        """The phase's `Variables` for dict name -> shape: the snapshot's values, heads for other labels or domains
        started anew.

        Args:
            shapes: dict of documented name -> shape.
            records: `Records` (or None) of the splits that the graphs will see; the variables then hold the word
                embeddings in use.
        Returns:
            the `Variables`, followed by the records with their ids mapped to the rows in use; without records the
            `Variables` alone.
        """
        vocabulary = ActiveVocabulary(records) if records else None
        variables = self.load_variables(shapes, self.snapshot, vocabulary)
        return (variables, *map(vocabulary.samples, records)) if records else variables

    def load_variables(self, shapes, snapshot, vocabulary=None, trainable=True, given=None):
        """`Variables` from a snapshot, heads for other labels or domains started anew.

        Args:
            shapes: dict of documented name -> shape.
            snapshot: a `Snapshot`, or None for initial values.
            vocabulary: `ActiveVocabulary` whose word embeddings they hold, or None for all.
            trainable: False for a model all of which is frozen (a teacher); else the flags say what is, and what starts anew never is.
            given: dict of name -> array, values that do not come from the snapshot.
        """
        restart, given = [], given or {}
        if snapshot is not None:
            stored = self.stored_task(snapshot)
            if stored is None or stored.labels != self.task.labels:
                restart += CLASSIFIER
            if stored is None or stored.domains != self.task.domains:
                restart += DOMAIN_HEAD
        wanted = {name: shape for name, shape in shapes.items() if name not in given}
        values = load_values(wanted, snapshot, self.flags.seed, self.config.initializer_range, restart, self.log)
        frozen = [name for name in shapes if snapshot is not None and name in snapshot.sizes and self.freezing.holds(name)]
        ids = vocabulary and vocabulary.ids
        variables = Variables({**values, **given}, self.device, ids, frozen if trainable else tuple(shapes))
        self.log(f"{variables.count() / 1e6:.1f} million parameters")
        return variables

    def stored_task(self, snapshot):
        """The `Task` that a snapshot was trained for, or None."""
        values = snapshot.task()
        try:
            return None if values is None else Task.from_dict(values)
        except UserError as error:
            raise UserError(f"{os.path.join(snapshot.path, TASK_FILE)}: {error}") from error

    def check_classifier(self):
        """Before an evaluation without training: raises a UserError where no snapshot brings a classifier for the
        task's labels."""
        if self.snapshot is None:
            raise UserError("--do_train false: --model_load_dir is needed, there is nothing else to evaluate")
        stored = self.stored_task(self.snapshot)
        if stored is None or stored.labels != self.task.labels or not set(CLASSIFIER) <= set(self.snapshot.sizes):
            raise UserError(
                "--do_train false: {} has {}, so there is no classifier to evaluate for the labels {}".format(
                    self.snapshot.path,
                    "been trained for the labels " + ",".join(stored.labels) if stored else f"no {TASK_FILE}",
                    ",".join(self.task.labels),
                )
            )

    def write_snapshot(self, name, variables, config=None, decay=1.0):
        """Writes the variables as `FOLDER/name` with sizes, vocabulary and task beside them; returns the path."""
        path = os.path.join(self.folder, name)
        if not parallel.is_main():
            return path
        with open(self.vocab_file, "rb") as f:
            vocabulary = f.read()
        task = dict(
            self.task.to_dict(),
            script=self.flags.script,
            seq_length=self.flags.seq_length,
            do_lower_case=self.flags.do_lower_case,
        )
        write_variables(
            path,
            variables.arrays(decay),
            {
                CONFIG_FILE: (config or self.config).to_json(),
                VOCAB_FILE: vocabulary,
                TASK_FILE: json.dumps(task, indent=2, sort_keys=True) + "\n",
            },
        )
        return path

    def report(self, split, evaluation):
        """Logs and records the evaluation of a split, and writes down what was said of each sample.

        Args:
            split: "dev" or "test", behind "teacher_" where another model was measured.
            evaluation: with its predictions.
        """
        self.metrics.add(split, **evaluation.to_dict())
        self.log(f"{split} {evaluation}")
        self._write_predictions(split, evaluation.predictions)

    def _write_predictions(self, name, predictions):
        if not parallel.is_main():
            return
        split = name.split("_")[-1]
        # a teacher is shown beside the student, whose file has the text
        texts = split_texts(self.flags.data_dir, split, self.task, predictions.text_digest) if name == split else None
        write_predictions(predictions_path(self.folder, name), self.task, predictions, texts)

    def start(self, variables, schedule, batch_size, **facts):
        """Writes the run's flags, the initial snapshot where no model was loaded, and says what is about to run."""
        steps = {"total_steps": schedule.total_steps, "warmup_steps": schedule.warmup_steps, "samples_per_step": batch_size}
        self.write_flags(parameters=variables.count(), **steps, **facts)
        if parallel.is_main():
            self._check_resources(variables, schedule)
        if variables.count(frozen=True):
            self.log(f"{variables.count(frozen=False):,} parameters are trained, {variables.count(frozen=True):,} frozen")
        if self.snapshot is None:
            self.log("saved " + self.write_snapshot("snapshot_initial_model", variables))
        self.log(
            "{} steps of {} samples, {} of them warm-up, {} padded to {} tokens; compiling the graphs".format(
                schedule.total_steps,
                batch_size,
                schedule.warmup_steps,
                "texts" if facts["texts_per_row"] == 1 else f"rows of {facts['texts_per_row']} texts",
                "/".join(map(str, facts["lengths"])),
            )
        )

    def _check_resources(self, variables, schedule):
        """Says what the run will take of disk and memory, and compares it with what there is.

        Raises:
            UserError: too little space for its snapshots and states.
        """
        flags = self.flags
        steps = schedule.total_steps
        trained = sum(parameter.numel() for parameter in variables.trained().values())
        kept = (self.snapshot is None) + flags.save_last_snapshot + (steps - 1) // flags.model_save_every_n_iter
        states = min(KEPT, (steps - 1) // flags.state_save_every_n_iter) + 1  # and one when a signal comes
        # the best one and, beside it, the one that is to replace it; the states' best ones
        disk = 4 * ((kept + 1 + states) * variables.count() + 3 * states * trained)
        check_space(
            os.path.join(self.folder, "snapshot"),
            disk,
            "the run's snapshots and states need up to",
            "free some, or give a --model_save_dir on another disk",
        )
        line = f"needs up to {size_text(disk)} of disk"
        if self.device == "cpu":
            held = sum(parameter.numel() for parameter in variables.parameters())
            memory = memory_estimate(self.config, held, trained, self.plan.graphs, self.freezing.layers)
            available = available_memory()
            line += f" and about {size_text(memory)} of memory"
            if available is not None and memory > available:
                line += (
                    f", more than the {size_text(available)} that are free: give smaller batches, --gradient_accumulation_steps for "
                    "those of training"
                )
        self.log(line)

    def finish(self, best, evaluate):
        """Writes down what the best snapshot said of dev, and says where it and the curves are.

        Args:
            best: `BestSnapshot`.
            evaluate: function without arguments -> `Evaluation` on dev; called where the best evaluation was before the
                step that --resume continued from, and its predictions went with that process.
        """
        predictions = best.evaluation.predictions
        if predictions is None:
            best.variables.load(Snapshot(best.path))
            predictions = evaluate().predictions
        self._write_predictions("dev", predictions)
        self.log(f"best dev {best.evaluation}")
        self.log(f"snapshot {best.path}")
        self.log(f"curves {os.path.join(self.folder, CURVES_FILE)}")

    def write_report(self):
        """Writes report.html, and a model card into each best snapshot, from what the run's folder and the data hold."""
        if not parallel.is_main():
            return
        run = read_run(self.folder)
        write_cards(run)
        self.log(f"report {write_page(run)}")

    def write_flags(self, **facts):
        """Writes flags.json and run.flags into the run's folder."""
        if not parallel.is_main():
            return
        write_flags_file(self.folder, self.flags)
        write_flags(
            self.folder,
            self.flags,
            dict(
                facts,
                device=self.device,
                task=self.task.to_dict(),
                config=dataclasses.asdict(self.config),
                data=self._data,
                vocab_digest=self.tokenizer.digest,
                snapshot_digest=self.snapshot.digest() if self.snapshot else None,
                versions={
                    "oneflow": flow.__version__,
                    "python": platform.python_version(),
                    "blas": loaded_blas.name if loaded_blas else "OneFlow's own",
                },
            ),
        )


def _step_log(flags):
    try:
        os.makedirs(flags.log_dir, exist_ok=True)
        return Log(os.path.join(flags.log_dir, flags.script + ".log"))
    except OSError as error:
        raise UserError(f"--log_dir {flags.log_dir}: cannot be written ({error.strerror})") from error
