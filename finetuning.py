"""Step 3 of Meta Fine-tuning: fine-tunes the meta learner on one domain and evaluates it on the whole test split of that
domain.

    python3 finetuning.py --task_name sst-2 --data_dir data/k-shot-single/SST-2/16-42 \\
        --model_load_dir output/model_save-…/snapshot_best_mft_model_g1_dev_… --num_epochs 64 \\
        --seed 42 --seq_length=128 --train_example_num 32 --dev_example_num 32 \\
        --eval_example_num 872 --batch_size_per_device 2 --dev_batch_size_per_device 2 \\
        --eval_batch_size_per_device 2 --dev_every_step_num 50 --learning_rate 1e-5 \\
        --resave_ofrecord

The loss is cross-entropy, with --class_weights and --label_smoothing if they are set. With --task_type regression a label is a number,
and the loss is the mean squared error; with multi_label it is a set of names, and the loss is the mean binary cross-entropy. After
training, the script loads the best snapshot (on dev) and evaluates it on each row of the test split once. Writes
MODEL_SAVE_DIR/snapshot_best_ft_model_{task}_dev_{accuracy} (of a regression, the mean squared error), metrics.jsonl, run.log, flags.json,
curves.png and report.html.
"""

import numpy as np

from modeling.bert.variables import classifier_shapes, encoder_shapes
from modeling.cli.errors import run
from modeling.cli.flags import FINETUNING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.mft import finetuning_metrics, finetuning_objective, predict_logits
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.label_loss import check_task_type, choose_label_loss
from modeling.run.model_loading import check_classifier, load_model
from modeling.run.start import start_evaluation
from modeling.run.training import Training


def warn_of_domains(train, task, log):
    """Logs a warning if the training split has several domains: one model is then trained on all of them."""
    domains = [task.domains[domain] for domain in np.unique(train.domain)]
    if len(domains) > 1:
        log(
            f"warning: the training split has {len(domains)} domains ({', '.join(domains)}), and step 3 of Meta Fine-tuning trains on one: "
            "for one model per domain, run this script once per domain, each with a --data_dir that has the rows of that domain only"
        )


def main():
    flags = parse_flags(FINETUNING, __doc__)
    check_task_type(flags)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_classifier(context)
    task, config, kernels = context.task, context.config, context.engine.kernels

    train = context.splits.records("train") if do_train else None
    if train is not None:
        warn_of_domains(train, task, context.log)
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
        def train_job(variables, domain, sample_weights, **batch):  # noqa: ARG001  plain fine-tuning does not use these two
            dropout = training.dropout.take(batch)
            return finetuning_objective(variables, config, kernels, dropout, **batch, label_loss=label_loss, smoothness=smoothness)

        best = BestSnapshot(context, "ft", variables)
        training.run(train_job, training.batches(), finetuning_metrics(smoothness, label_loss), evaluator, best)
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
