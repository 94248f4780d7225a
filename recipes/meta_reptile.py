"""Meta-learning: learns initial weights that adapt to a domain within a few steps on a few of its rows (Reptile or FOMAML).

    python3 recipes/meta_reptile.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --seed 42 --seq_length=128 \\
        --train_example_num 96 --dev_example_num 96 --dev_batch_size_per_device 2 \\
        --support_num 16 --query_num 8 --tasks_per_step 5 --inner_steps 10 --inner_batch_size 4 \\
        --meta_steps 24 --dev_every_step_num 6 --resave_ofrecord

In each outer step, the inner loop fine-tunes a copy of the weights on each of some tasks, which are rows of one domain. Reptile then moves
the weights towards the mean of the adapted ones; FOMAML (first-order MAML) takes the mean gradient of further rows at the adapted weights.
Dev and test are measured per domain, after adapting to --support_num training rows of this domain. Writes
MODEL_SAVE_DIR/snapshot_best_{reptile,fomaml}_model_{task}_dev_{accuracy}, not adapted, which finetuning.py takes as --model_load_dir, and
metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

import numpy as np

from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.cli.choices import FOMAML
from modeling.cli.errors import run
from modeling.cli.flags import META_REPTILE, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.mft import finetuning_metrics, finetuning_objective, predict_logits
from modeling.report.write import write_report
from modeling.run.adapted_evaluation import AdaptedEvaluator, predictor_of
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.label_loss import choose_label_loss
from modeling.run.meta_training import META_LEARNING_METRICS, Adaptation, MetaJob, MetaTraining, inner_loop, outer_rule
from modeling.run.model_loading import check_classifier, load_model
from modeling.run.start import start_evaluation


def main():
    flags = parse_flags(META_REPTILE, __doc__)
    do_train, do_eval = check_modes(flags)
    if do_train:
        inner_loop(flags)  # refuses flags that contradict each other before records are written
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

    best = None
    if do_train:
        logits_of = predictor_of(context, predict_job, (train, dev, test), flags.dev_batch_size_per_device)
        training = MetaTraining(context, variables, train)
        label_loss = choose_label_loss(context, train.label[np.isin(train.domain, training.domains)])
        smoothness = training.smoothness

        def objective(variables, domain, sample_weights, **batch):  # noqa: ARG001  all samples have equal weight
            dropout = training.dropout.take(batch)
            return finetuning_objective(variables, config, kernels, dropout, **batch, label_loss=label_loss, smoothness=smoothness)

        def query_objective(variables, domain, sample_weights, **batch):  # noqa: ARG001
            dropout = training.dropout.take(batch) if flags.query_dropout else None
            return finetuning_objective(variables, config, kernels, dropout, **batch, label_loss=label_loss)

        adaptation = Adaptation(training, variables, global_function(**training.settings)(objective), finetuning_metrics(smoothness))
        gradient_job = None
        if flags.meta_method == FOMAML:
            gradient_job = global_function(**training.gradient_settings)(query_objective)
        evaluator = AdaptedEvaluator(context, training, adaptation, logits_of, {"dev": dev, "test": test})
        meta_job = MetaJob(training, adaptation, logits_of, gradient_job, outer_rule(flags))
        best = BestSnapshot(context, flags.meta_method, variables)
        training.run(meta_job, training.batches(), META_LEARNING_METRICS, evaluator, best)
    else:
        batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
        evaluator = SplitEvaluator(context, predict_job, {"dev": dev, "test": test}, batch_sizes)
        start_evaluation(context, variables)
        context.log("without training the snapshot is measured as it is, not adapted")
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
