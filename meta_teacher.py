"""Step 2 of Meta-KD: trains the meta-teacher on all domains and keeps its best snapshot.

    python3 meta_teacher.py --task_name senti --model_load_dir uncased_L-12_H-768_A-12_oneflow \\
        --data_dir data/SENTI/ --num_epochs 63 --seed 42 --seq_length=128 --train_example_num 6480 \\
        --eval_example_num 720 --batch_size_per_device 24 --eval_batch_size_per_device 48 \\
        --eval_every_step_num 100 --learning_rate 5e-5 --resave_ofrecord --do_train --do_eval \\
        --vocab_file uncased_L-12_H-768_A-12/vocab.txt

Minimises the classification loss, weighted by the prototypical scores of preprocess.py, plus lambda times the
corrupted-domain loss. After training, the script loads the best snapshot (on dev) and evaluates it on the test split, if there
is one. The flags eval_* refer to dev. Writes MODEL_SAVE_DIR/snapshot_best_mft_model_{task}_dev_{accuracy}, metrics.jsonl,
run.log, flags.json, curves.png and report.html.
"""

from modeling.cli.errors import run
from modeling.cli.flags import META_TEACHER, check_modes, parse_flags
from modeling.report.write import write_report
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.meta_learner import run_meta_learner
from modeling.run.model_loading import check_classifier


def main():
    flags = parse_flags(META_TEACHER, __doc__)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_classifier(context)
    train = context.splits.weighted_records() if do_train else None
    dev = context.splits.records("dev", name="eval")
    test = context.splits.test_records() if do_eval else None
    best = run_meta_learner(context, train, dev, test, flags.eval_batch_size_per_device)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
