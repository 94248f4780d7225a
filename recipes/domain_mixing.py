"""Domain mixing: trains one model on all domains of a task with plain cross-entropy and evaluates it on each domain.

    python3 recipes/domain_mixing.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --num_epochs 63 --seed 42 \\
        --seq_length=128 --train_example_num 96 --dev_example_num 96 --batch_size_per_device 4 \\
        --dev_batch_size_per_device 2 --dev_every_step_num 100 --learning_rate 5e-5 \\
        --resave_ofrecord

This is the baseline of Meta Fine-tuning: the same data and steps as meta_finetuning.py, without prototypical scores and without
the corrupted-domain loss. Writes MODEL_SAVE_DIR/snapshot_best_mixing_model_{task}_dev_{accuracy}, which finetuning.py takes as
--model_load_dir, and metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.cli.errors import run
from modeling.cli.flags import DOMAIN_MIXING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.mft import finetuning_metrics, finetuning_objective, predict_logits
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.label_loss import choose_label_loss
from modeling.run.model_loading import check_classifier, load_model
from modeling.run.start import start_evaluation
from modeling.run.training import Training


def main():
    flags = parse_flags(DOMAIN_MIXING, __doc__)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_classifier(context)
    task, config, kernels = context.task, context.config, context.engine.kernels

    train = context.splits.records("train") if do_train else None
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    shapes = {**encoder_shapes(config), **classifier_shapes(config, task.num_labels)}
    variables, train, dev, test = load_model(context, shapes, train, dev, test)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **text):
        return predict_logits(variables, config, kernels, **text)

    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = SplitEvaluator(context, predict_job, {"dev": dev, "test": test}, batch_sizes, train), None
    if do_train:
        training = Training(context, variables, train, may_share_rows=True)
        label_loss, smoothness = choose_label_loss(context, train.label), training.smoothness

        @global_function(**training.settings)
        def train_job(variables, domain, sample_weights, **batch):  # noqa: ARG001 (all samples have equal weight)
            dropout = training.dropout.take(batch)
            return finetuning_objective(variables, config, kernels, dropout, **batch, label_loss=label_loss, smoothness=smoothness)

        best = BestSnapshot(context, "mixing", variables)
        training.run(train_job, training.batches(), finetuning_metrics(smoothness), evaluator, best)
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
