"""The run of a training: its identity and state, and the loop with its evaluations, metrics, snapshots and states.

modeling/run/training.py trains in epochs, modeling/run/meta_training.py on tasks.
"""

import math
import time

import numpy as np
from tqdm import tqdm

from modeling.bert.dropout import with_dropout
from modeling.cli import interruption
from modeling.cli.flags import evaluation_period, learning_rates
from modeling.cli.flags_file import resume_command
from modeling.engine import parallel
from modeling.objectives.smoothness import smoothness_of, with_noise
from modeling.run.auto_settings import weak_training_warning
from modeling.run.bucketing import TrainingBatches
from modeling.run.child_tuning import MASK_NAME
from modeling.run.log import READY
from modeling.run.measures import FURTHER, TEXT_SCORES, TITLES
from modeling.run.metrics import mean_rows
from modeling.run.resources import CONTINUED, check_memory, plan_memory, settings_that_fit
from modeling.run.resume import check_identity, check_max_steps, facts_without_records, remove_state, run_identity, write_state
from modeling.run.start import start_run
from ofrecord_util.errors import UserError
from ofrecord_util.on_demand import OnDemand


class TrainingRun:
    """What the trainings share.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        schedule: object with the attributes `total_steps`, `warmup_steps` and the methods `rate`, `decay_factor` of `Schedule`.
        num_samples, batch_size: samples in the training split, and per step.
        facts: other values that must be the same when the run is continued, by name (a teacher's digest).
    Attributes:
        schedule, num_samples, batch_size: the arguments.
        start_step: number of completed steps: 0, or the step of the state from which --resume continues.
        smoothness: `Smoothness`, from the flags.
        mean_weight: mean sample weight; None if the log does not judge the loss.
        child_tuning: `ChildTuning`, which a subclass creates.
    Raises:
        UserError: the run that --resume continues had other flags or data.
    """

    mean_weight = child_tuning = None

    def __init__(self, context, variables, schedule, num_samples, batch_size, facts):
        flags = context.flags
        self._context, self._variables, self.schedule = context, variables, schedule
        self.num_samples, self.batch_size, self.smoothness = num_samples, batch_size, smoothness_of(flags)
        self._identity = run_identity(flags, **facts_without_records(context), **context.splits.digests, **facts)
        self._state = context.folder.state
        if self._state is not None:
            check_identity(self._state, self._identity)
            check_max_steps(self._state, flags.max_steps)
        self.start_step = self._state.step if self._state else 0

    def _with_random_numbers(self, batches, dropout, first_step):
        """Adds the dropout masks of a `DropoutPlan` to batches, and the noise of the adversarial term."""
        flags, width = self._context.flags, self._context.config.hidden_size
        return with_noise(with_dropout(batches, dropout, first_step), self.smoothness, width, flags.seed, first_step)

    def _choose_layout(
        self, samples, batch_size, may_share_rows=False, others=(), compared=None, further=0, per_row=None, word_uses=1, **grouped
    ):
        """The `TrainingBatches` of a run. Sets the estimated memory.

        Args:
            samples: `Samples` of the training split.
            batch_size: samples of a batch of the train function.
            may_share_rows, others, compared: as for `Training`.
            further, per_row, word_uses: as for `plan_memory`.
            grouped: `together` and `needed` of `Bucketing.training`.
        Raises:
            UserError: the run does not fit into memory.
        """
        context = self._context
        planned = self._state and TrainingBatches.from_list(self._state.values["layout"])
        memory = plan_memory(context, self._variables, others, compared=compared, further=further, per_row=per_row, word_uses=word_uses)
        evaluations = list(context.bucketing.graphs)
        layout = context.bucketing.training(samples, batch_size, may_share_rows, planned, memory, **grouped)
        self._memory_bytes = memory and memory.needed(context.bucketing.graphs, layout.parts)
        if memory:
            rows = grouped.get("together", 1)
            remedies = settings_that_fit(memory, evaluations, context.flags.seq_length, rows) if planned is None else CONTINUED
            check_memory(self._memory_bytes, memory.limit, remedies)
        return layout

    @property
    def fisher_step(self):
        """The first step (from 0) after the run, whose random numbers no step of the run uses."""
        return self.schedule.total_steps

    def fisher_batches(self):
        """The batches from which Child-Tuning-D estimates the Fisher information before the first step: as many samples as the training
        split has. Their random numbers are those of steps from `fisher_step` on."""
        raise NotImplementedError

    def before_step(self, step):
        """Prepares a step (from 0)."""
        self.child_tuning.before_step(step)

    def before_snapshot(self):
        """Prepares the variables for a snapshot that no evaluation has just preceded."""

    def further_metrics(self, row):  # noqa: ARG002
        """Further values for a line of metrics that follow from its means, dict of name -> number.

        Args:
            row: dict of name -> mean.
        """
        return {}

    def samples_in(self, step):  # noqa: ARG002
        """Samples of a step (from 1)."""
        return self.batch_size

    def epochs_until(self, step):
        """Passes over the training split until the end of a step (from 1)."""
        return step * self.batch_size / self.num_samples

    def run(self, job, batches, metric_names, evaluate, best, fisher=None, **facts):
        """Trains the model. The best snapshot is then on disk.

        Args:
            job: train `GlobalFunction` that takes the arrays of a batch by name and returns (loss, metrics [M]).
            batches: `batches()`, possibly with further arrays.
            metric_names: names of the M metrics, the loss first.
            evaluate: function without arguments that returns the `Evaluation` on dev.
            best: `BestSnapshot`. Periodic snapshots save its variables too.
            fisher: batches for Child-Tuning-D with the same further arrays as `batches`; None if there are none.
            facts: values for flags.json.
        Raises:
            Interrupted: a signal arrived. The state of the last step has been written.
            UserError: the loss or the dev cross-entropy is not finite. The message names the step and, for the loss, its samples.
        """
        context, variables = self._context, self._variables
        if self._state is None:
            start_run(context, variables, self.schedule, self.batch_size, self._memory_bytes, **self.layout.to_dict(), **facts)
            self.child_tuning.estimate(job, self.fisher_batches() if fisher is None else fisher)
        else:
            self._restore(job, best)
        _Loop(self, context, job, metric_names, evaluate, best).run(batches, self._state)

    def _restore(self, job, best):
        state, context = self._state, self._context
        names = self._variables.trained()
        for name, parameter in names.items():
            value = state.arrays.get(name)
            if value is None or value.shape != tuple(parameter.shape):
                raise UserError(f"{state.path}: {name} is missing or has another shape than the model's {list(parameter.shape)}")
            self._variables.assign(name, value)
        self.child_tuning.restore(state)
        moments = [name for name in state.arrays if name not in names and name != MASK_NAME]
        counters = {name: np.array(value["values"], value["dtype"]) for name, value in state.values["counters"].items()}
        job.restore(OnDemand((*moments, *counters), lambda name: counters[name] if name in counters else state.arrays[name]))
        best.restore(state.values["best"], state.values["stale"])
        missing = context.folder.metrics.continue_from(state.step)
        if missing:
            context.log(missing)
        context.log(f"continuing {context.folder.path} after step {state.step} of {self.schedule.total_steps}; {READY}")

    def save_state(self, job, step, window, best):
        """Writes the state of a step that is trained but not yet reported. Returns its path.

        Args:
            job: the train `GlobalFunction`.
            step: number of the step.
            window: steps since the last line of metrics, see `_Loop`.
            best: `BestSnapshot.to_dict` before the evaluation that follows the step.
        """
        trained, state = self._variables.trained(), job.optimizer_state()
        names, counters = list(trained), {}
        for name, value in state.items():
            if value.dtype == np.float32 and value.ndim:
                names.append(name)
            else:
                counters[name] = {"dtype": str(value.dtype), "values": value.tolist()}
        further = self.child_tuning.arrays()  # dict of name -> float32 array

        def array(name):
            if name in further:
                return further[name]
            return parallel.to_numpy(trained[name]) if name in trained else state[name]

        arrays = OnDemand((*names, *further), array)
        values = dict(step=step, identity=self._identity, layout=self.layout, counters=counters, window=window, **best)
        return write_state(self._context.folder.path, arrays, values) if parallel.is_main() else None


class _Loop:
    """The training loop of a `Training`."""

    def __init__(self, training, context, job, metric_names, evaluate, best):
        self._training, self._context, self._job = training, context, job
        self._metric_names, self._evaluate, self._best = metric_names, evaluate, best
        self._window = []  # (step, sample numbers, metrics) of the steps since the last line of metrics
        self._sample_count, self._since = 0, time.perf_counter()
        self._last_row = {}  # means of the last line of metrics
        self._rates = " or ".join("--" + name for name in learning_rates(context.flags.script))

    def run(self, batches, state):
        training, context, flags = self._training, self._context, self._context.flags
        total = training.schedule.total_steps
        last = min(total, flags.max_steps or total)
        step = training.start_step
        shown = None if parallel.is_main() else True  # None: tqdm shows the bar only on a terminal
        bar = tqdm(total=last, initial=step, desc=flags.script, unit="step", disable=shown, dynamic_ncols=True)
        context.log.progress = None if bar.disable else bar
        if state is not None:
            self._window = [(number, rows, np.array(values, np.float32)) for number, rows, values in state.values["window"]]
        saved, stopped, window = step, False, list(self._window)
        try:
            if state is not None:
                parallel.check_interruption()
                stopped = self._after(step, last)
            if step < last and not stopped:
                for batch in batches:
                    self._step(step + 1, batch)
                    step += 1  # a step that an interruption ends is none
                    window = list(self._window)
                    bar.update()
                    if step % flags.state_save_every_n_iter == 0 or step == last:
                        self._save_state(step)
                        saved = step
                    parallel.check_interruption()
                    best = self._best.to_dict()
                    stopped = self._after(step, last)
                    if stopped and step > saved:
                        self._window = window
                        self._save_state(step, best)
                    if step >= last or stopped:
                        break
        except interruption.Interrupted:
            if step > saved:
                self._window = window  # an interrupted evaluation comes after the line of metrics
                self._save_state(step)
            context.log(
                f"interrupted after step {step} of {total}: continue with {resume_command(flags.script, context.folder.path)}"
                if step
                else "interrupted before the first step: there is nothing to resume"
            )
            raise
        finally:
            bar.close()
            context.log.progress = None
        if flags.save_last_snapshot:
            context.log("saved " + self._snapshot("snapshot_last", step))
        if step < total and not stopped:
            command = resume_command(flags.script, context.folder.path)
            context.log(f"stopped after step {step} of {total} (--max_steps): continue with {command} --max_steps {total}")
        self._warn_of_weak_training(total if not stopped else step)
        context.folder.trained = step == total or stopped  # `end_run` removes the states when the results are written
        parallel.barrier()  # from here on all ranks can read the best snapshot

    def _warn_of_weak_training(self, steps):
        """Says that a run without --auto_settings has hardly trained."""
        flags, row = self._context.flags, self._last_row
        if flags.auto_settings or self._training.mean_weight is None:
            return
        loss = row.get("label_loss") if "label_loss" in row else row.get("classification_loss")
        if loss is None and set(row) == {"loss", "accuracy"}:  # the loss is the cross-entropy
            loss = row["loss"]
        weight = self._training.mean_weight if "classification_loss" in row else 1.0
        warning = weak_training_warning(steps, loss / weight if loss is not None and weight > 0 else None, self._context.task.num_labels)
        if warning:
            self._context.log(warning)

    def _step(self, step, batch):
        self._training.before_step(step - 1)
        metrics = self._job({name: array for name, array in batch.items() if name != "idxs"})[1]
        self._window.append((step, batch["idxs"], metrics))
        self._sample_count += int((batch["loss_mask"] > 0).sum())
        # Stay at most one step ahead of the step that the engine runs: each step holds its inputs in memory, and the arrays of its
        # dropout masks are reused
        self._fetch_window(len(self._window) - 1)

    def _fetch_window(self, count=None):
        """Waits for the engine and converts the metrics of the window, or of its first `count` steps, to arrays [M].

        Raises:
            UserError: a metric is not finite. No snapshot, state or evaluation may use the weights of such a step.
        """
        for position, (step, rows, metrics) in enumerate(self._window[:count]):
            if not isinstance(metrics, np.ndarray):
                parts = parallel.to_numpy(metrics).reshape(-1, len(self._metric_names))  # parts of an accumulated batch
                metrics = parts.mean(axis=0)
                self._window[position] = (step, rows, metrics)
            wrong = np.flatnonzero(~np.isfinite(metrics))
            if wrong.size:
                name, samples = self._metric_names[wrong[0]].replace("_", " "), ", ".join(map(str, sorted(set(map(int, rows)))))
                raise UserError(
                    f"step {step}: the {name} is {metrics[wrong[0]]} on the training samples {samples}: training has diverged: give a "
                    f"lower {self._rates}, or check the samples and the snapshot of --model_load_dir"
                )

    def _save_state(self, step, best=None):
        self._fetch_window()
        window = [[number, np.asarray(rows).tolist(), metrics.tolist()] for number, rows, metrics in self._window]
        path = self._training.save_state(self._job, step, window, self._best.to_dict() if best is None else best)
        self._context.log(f"saved {path} (for --resume; removed when the run ends)")

    def _decay(self, step):
        return self._training.schedule.decay_factor(step, self._context.flags.weight_decay_rate)

    def _snapshot(self, name, step):
        self._training.before_snapshot()
        return self._context.folder.write_snapshot(name, self._best.variables, self._best.config, self._decay(step))

    def _after(self, step, last):
        """Reports, evaluates and saves a snapshot after a step where they are due. Returns whether to stop early."""
        flags, log = self._context.flags, self._context.log
        if step % flags.loss_print_every_n_iter == 0 or step == last:
            self._report(step)
        stop = False
        if step % evaluation_period(flags) == 0 or step == last:
            self._fetch_window()
            self._run_evaluation(step)
            stop = flags.early_stop_patience is not None and self._best.stale >= flags.early_stop_patience
            if stop and step < last:
                log(f"stopped after step {step}: {self._best.stale} evaluations without improvement (--early_stop_patience)")
        if step % flags.model_save_every_n_iter == 0 and step < last:
            self._fetch_window()
            log("saved " + self._snapshot(f"snapshot_step_{step}", step))
        return stop

    def _report(self, step):
        """Writes one line of metrics, the means over the samples of the window, and empties the window."""
        self._fetch_window()
        if not self._window:
            return
        training, context = self._training, self._context
        seconds = time.perf_counter() - self._since
        counts = [training.samples_in(number) for number, _, _ in self._window]
        row = dict(zip(self._metric_names, map(float, mean_rows([metrics for _, _, metrics in self._window], counts))))
        row.update(training.further_metrics(row))
        self._last_row = row
        epoch = training.epochs_until(step)
        speed = self._sample_count / seconds
        rate = training.schedule.rate(step - 1)
        context.folder.metrics.add("train", step=step, epoch=round(epoch, 4), learning_rate=rate, samples_per_second=round(speed, 2), **row)
        text = ", ".join("{} {:.4f}".format(name.replace("_", " "), value) for name, value in row.items())
        context.log(f"step {step}/{training.schedule.total_steps}: {text}, {speed:.1f} samples/s")
        self._window, self._sample_count, self._since = [], 0, time.perf_counter()

    def _run_evaluation(self, step):
        context, started = self._context, time.perf_counter()
        evaluation = self._evaluate()
        if not math.isfinite(evaluation.loss):
            if parallel.is_main():
                remove_state(context.folder.path, step)
            raise UserError(
                f"step {step}: the dev {evaluation.loss_title} is {evaluation.loss}, training has diverged: give a lower {self._rates}, or "
                "check the snapshot of --model_load_dir"
            )
        improved = self._best.offer(evaluation, self._decay(step))
        seconds = time.perf_counter() - started
        context.folder.metrics.add("dev", step=step, seconds=round(seconds, 3), best=improved, **evaluation.to_dict())
        metric = context.flags.metric_for_best
        chosen = f", {TITLES[metric]} {evaluation.value(metric):.4f}" if metric in (*FURTHER, *TEXT_SCORES) else ""
        context.log("step {}: dev {}{}{}".format(step, evaluation, chosen, ", saved" if improved else ""))
        self._since += seconds  # samples per second measure training only
