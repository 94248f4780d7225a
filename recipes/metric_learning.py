"""Metric learning: trains the encoder so that texts of equal labels have near vectors, and fits a classifier to the vectors.

    python3 recipes/metric_learning.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --seed 42 --seq_length=128 \\
        --train_example_num 96 --dev_example_num 96 --batch_size_per_device 16 \\
        --dev_batch_size_per_device 2 --num_steps 240 --dev_every_step_num 240 --resave_ofrecord

--objective contrastive trains on pairs of texts, as SetFit; prototypical trains on episodes, as prototypical networks. The classifier is a
logistic regression or the nearest mean of a label, fitted to the training split at each evaluation, or one that is then trained together
with the encoder (--head). Writes MODEL_SAVE_DIR/snapshot_best_metric_model_{task}_dev_{accuracy}, which finetuning.py takes as
--model_load_dir, and metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.cli.errors import run
from modeling.cli.flags import METRIC_LEARNING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.metric import predict_vectors
from modeling.objectives.mft import finetuning_metrics, finetuning_objective, predict_logits
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.label_loss import choose_label_loss
from modeling.run.label_sentences import check_label_sentences, find_label_sentences, with_label_sentences
from modeling.run.metric_heads import HeadEvaluator
from modeling.run.metric_training import MetricJob, MetricTraining, check_metric_flags
from modeling.run.model_loading import check_classifier, load_model
from modeling.run.start import start_evaluation


def main():
    flags = parse_flags(METRIC_LEARNING, __doc__)
    do_train, do_eval = check_modes(flags)
    if do_train:
        check_metric_flags(flags)
        check_label_sentences(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_classifier(context)
    task, config, kernels = context.task, context.config, context.engine.kernels

    sentences = find_label_sentences(context) if do_train else None
    train = with_label_sentences(context, context.splits.records("train"), sentences) if do_train else None
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    shapes = {**encoder_shapes(config), **classifier_shapes(config, task.num_labels)}
    variables, train, dev, test = load_model(context, shapes, train, dev, test)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **text):
        return predict_logits(variables, config, kernels, **text)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def vector_job(variables, **text):
        return predict_vectors(variables, config, kernels, **text)

    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = SplitEvaluator(context, predict_job, {"dev": dev, "test": test}, batch_sizes, train), None
    if do_train:
        batches = context.bucketing.evaluation(train, flags.dev_batch_size_per_device, train, may_share=True)
        training, label_loss = MetricTraining(context, variables, train), choose_label_loss(context, train.label)
        evaluator = training.evaluator = HeadEvaluator(context, evaluator, variables, vector_job, train, batches, label_loss)
        evaluator.fits = training.start_step <= flags.num_steps

        @global_function(**training.settings)
        def metric_job(variables, **batch):
            return training.objective(variables, kernels, **batch)

        tuning_job, smoothness = None, training.smoothness
        if training.finetuning_settings:

            @global_function(**training.finetuning_settings)
            def tuning_job(variables, domain, sample_weights, **batch):  # noqa: ARG001  all samples have equal weight
                dropout = training.finetuning_dropout.take(batch)
                return finetuning_objective(variables, config, kernels, dropout, **batch, label_loss=label_loss, smoothness=smoothness)

        best = BestSnapshot(context, "metric", variables)
        training.run(MetricJob(metric_job, tuning_job), training.batches(), finetuning_metrics(smoothness), evaluator, best)
        evaluator.fits = False  # the best snapshot has its classifier
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
