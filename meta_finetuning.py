"""Step 2 of Meta Fine-tuning: trains the meta learner on all domains of a group and keeps its best snapshot.

    python3 meta_finetuning.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --num_epochs 63 --seed 42 \\
        --seq_length=128 --train_example_num 96 --dev_example_num 96 --batch_size_per_device 4 \\
        --dev_batch_size_per_device 2 --dev_every_step_num 100 --learning_rate 5e-5 \\
        --resave_ofrecord

Minimises the classification loss, weighted by the prototypical scores of step 1, plus lambda times the corrupted-domain
loss. If the data has a test split, the script evaluates the best snapshot (on dev) on it. Writes
MODEL_SAVE_DIR/snapshot_best_mft_model_{task}_dev_{accuracy}, metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

from modeling.cli.errors import run
from modeling.cli.flags import META_FINETUNING, check_modes, parse_flags
from modeling.report.write import write_report
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.meta_learner import run_meta_learner
from modeling.run.model_loading import check_classifier


def main():
    flags = parse_flags(META_FINETUNING, __doc__)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_classifier(context)
    train = context.splits.weighted_records() if do_train else None
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    best = run_meta_learner(context, train, dev, test, batch_sizes)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
