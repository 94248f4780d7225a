"""The one training loop: batches through a train function, evaluation at a period and at the end, metrics, snapshots."""

import math
import time

from tqdm import tqdm

from modeling.errors import UserError
from modeling.evaluation import to_tensors
from modeling.metrics import draw_curves, mean_rows


def train(phase, job, batches, metric_names, schedule, num_samples, evaluate, evaluate_every, best):
    """Runs every batch once and leaves the best snapshot on disk.

    Args:
        phase: `Phase` (log, metrics, flags, device).
        job: train `GlobalFunction` that takes the arrays of a batch by name and returns (loss, metrics [M]).
        batches: iterable of dict name -> array.
        metric_names: names of the M metrics.
        schedule: `Schedule` of the run.
        num_samples: samples of the training split.
        evaluate: function without arguments -> `Evaluation` on dev.
        evaluate_every: steps between evaluations.
        best: `BestSnapshot`; periodic snapshots save its variables too.
    """
    flags, log, metrics = phase.flags, phase.log, phase.metrics
    pending, samples_since, since = [], 0, time.perf_counter()
    names, total_steps = None, schedule.total_steps
    bar = tqdm(total=total_steps, desc=flags.script, unit="step", disable=None, dynamic_ncols=True)
    log.progress = None if bar.disable else bar

    def decay(step):
        return schedule.decay_factor(step, flags.weight_decay_rate)

    def run_evaluation(step):
        nonlocal since
        started = time.perf_counter()
        evaluation = evaluate()
        if not math.isfinite(evaluation.cross_entropy):
            raise UserError(
                f"step {step}: the dev cross-entropy is {evaluation.cross_entropy}, training has diverged: give a lower "
                "--learning_rate, or check the snapshot of --model_load_dir"
            )
        improved = best.offer(evaluation, decay(step))
        metrics.add(
            "dev", step=step, seconds=round(time.perf_counter() - started, 3), best=improved, **evaluation.to_dict()
        )
        log("step {}: dev {}{}".format(step, evaluation, ", saved" if improved else ""))
        since += time.perf_counter() - started  # samples per second speak of training alone

    for step, batch in enumerate(batches, start=1):
        names = names or tuple(name for name in batch if name != "idxs")
        pending.append(job(**to_tensors(batch, names, phase.device))[1])
        samples_since += int(batch["valid"].sum())
        bar.update()
        if step % flags.loss_print_every_n_iter == 0 or step == total_steps:
            values = mean_rows([value.numpy() for value in pending])
            seconds = time.perf_counter() - since
            row = dict(zip(metric_names, (float(value) for value in values)))
            metrics.add(
                "train",
                step=step,
                epoch=round(min(step * flags.batch_size_per_device, num_samples * flags.num_epochs) / num_samples, 4),
                learning_rate=schedule.rate(step - 1),
                samples_per_second=round(samples_since / seconds, 2),
                **row,
            )
            log(
                "step {}/{}: {}, {:.1f} samples/s".format(
                    step,
                    total_steps,
                    ", ".join("{} {:.4f}".format(n.replace("_", " "), v) for n, v in row.items()),
                    samples_since / seconds,
                )
            )
            pending, samples_since, since = [], 0, time.perf_counter()
        if step % evaluate_every == 0 or step == total_steps:
            run_evaluation(step)
        if step % flags.model_save_every_n_iter == 0 and step < total_steps:
            log("saved " + phase.write_snapshot(f"snapshot_step_{step}", best.variables, best.config, decay(step)))
    bar.close()
    log.progress = None
    if flags.save_last_snapshot:
        log("saved " + phase.write_snapshot("snapshot_last", best.variables, best.config, decay(step)))
    draw_curves(metrics, f"{flags.script} {phase.task.name}", phase.task.num_domains)
