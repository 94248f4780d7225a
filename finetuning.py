"""Step 3 of Meta Fine-tuning: fine-tunes the meta learner on one domain and measures it on that domain's whole test
split.

    python3 finetuning.py --task_name sst-2 --data_dir data/k-shot-single/SST-2/16-42 \\
        --model_load_dir output/model_save-…/snapshot_best_mft_model_g1_dev_… --num_epochs 64 \\
        --seed 42 --seq_length=128 --train_example_num 32 --dev_example_num 32 \\
        --eval_example_num 872 --batch_size_per_device 2 --dev_batch_size_per_device 2 \\
        --eval_batch_size_per_device 2 --dev_every_step_num 50 --learning_rate 1e-5 \\
        --resave_ofrecord

Plain cross-entropy; the snapshot that is best on dev is loaded again and counts every row of the test split once.
Writes MODEL_SAVE_DIR/snapshot_best_ft_model_{task}_dev_{accuracy}, metrics.jsonl, run.log, flags.json, curves.png and
report.html.
"""

from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import run
from modeling.cli.flags import FINETUNING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.mft import FINETUNING_METRICS, finetuning_objective, predict_logits
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import Phase
from modeling.run.evaluation import evaluate
from modeling.run.training import Training


def main():
    flags = parse_flags(FINETUNING, __doc__)
    do_train, do_eval = check_modes(flags)
    phase = Phase(flags, flags.model_load_dir)
    if not do_train:
        phase.check_classifier()
    task, config, kernels = phase.task, phase.config, phase.kernels

    train_records = phase.records("train") if do_train else None
    dev_records = phase.records("dev")
    test_records = phase.records("test", name="eval") if do_eval else None
    shapes = {**encoder_shapes(config), **classifier_shapes(config, task.num_labels)}
    variables, train_records, dev_records, test_records = phase.variables(shapes, train_records, dev_records, test_records)

    def split_evaluation(records, batch_size, train_records=None):
        """A function that measures the model on a split with a static graph of the split's own shape."""
        batches = phase.plan.evaluation(records, batch_size, train_records)

        @global_function(type="predict", variables=variables)
        def predict_job(variables, word_rows, input_mask, segment_ids):
            return predict_logits(variables, config, kernels, word_rows, input_mask, segment_ids)

        return lambda: evaluate(predict_job, records, batches, task, phase.device)

    evaluate_dev = split_evaluation(dev_records, flags.dev_batch_size_per_device, train_records)
    if do_train:
        training = Training(phase, variables, train_records, may_share_rows=True)

        @global_function(**training.settings)
        def train_job(variables, domain, sample_weights, **batch):  # neither of which plain fine-tuning knows
            dropout = training.dropout.take(batch)
            return finetuning_objective(variables, config, kernels, dropout, **batch)

        best = BestSnapshot(phase, "ft", variables)
        training.run(train_job, training.batches(), FINETUNING_METRICS, evaluate_dev, best)
        variables.load(Snapshot(best.path))  # the test counts for the best snapshot, not for the last step
        phase.finish(best, evaluate_dev)
    else:
        phase.write_flags()
        phase.report("dev", evaluate_dev())
    if do_eval:
        phase.report("test", split_evaluation(test_records, flags.eval_batch_size_per_device)())
    phase.write_report()


if __name__ == "__main__":
    run(main)
