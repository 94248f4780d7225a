"""Text generation: trains PALM, an encoder-decoder, on pairs of texts, and generates the targets of dev and test by beam search.

    python3 recipes/generation.py --task_name questions --data_dir data/questions \\
        --model_load_dir models/palm.ch.base_oneflow --num_epochs 10 --seed 42 \\
        --seq_length=128 --target_length 100 --batch_size_per_device 16 \\
        --learning_rate 5e-5 --dev_every_step_num 200

A row of train.csv, dev.csv and test.csv is source TAB target. --objective pretraining trains on rows of one text each, as PALM was
trained: the first part of a text with masked tokens for the encoder, the rest for the decoder (arXiv 2004.07159). Writes
MODEL_SAVE_DIR/snapshot_best_generation_model_{task}_dev_{perplexity}, which tools/generate.py takes as --model_load_dir, the texts in
generations_dev.tsv and generations_test.tsv, and metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.cli.errors import run
from modeling.cli.flags import GENERATION, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.generation import (
    GENERATION_METRICS,
    PRETRAINING_METRICS,
    generation_objective,
    predict_targets,
    pretraining_objective,
)
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.generation import SplitGenerator
from modeling.run.generation_context import GenerationContext
from modeling.run.generation_training import GenerationTraining, TargetEvaluator, check_generation_flags, load_palm
from modeling.run.start import start_evaluation


def main():
    flags = parse_flags(GENERATION, __doc__)
    do_train, do_eval = check_modes(flags)
    check_generation_flags(flags, do_train)
    context = GenerationContext(flags, flags.model_load_dir)
    config, kernels = context.config, context.engine.kernels

    train = context.split("train") if do_train else None
    splits = {"dev": context.split("dev"), "test": context.test_split() if do_eval else None}
    variables = load_palm(context, do_train)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **batch):
        return predict_targets(variables, config, kernels, **batch)

    generator = SplitGenerator(context, variables, splits)
    evaluator, best = TargetEvaluator(context, predict_job, splits, train, generator), None
    if do_train:
        training = GenerationTraining(context, variables, train)
        objective, metrics = generation_objective, GENERATION_METRICS
        if context.pretrains:
            objective, metrics = pretraining_objective, PRETRAINING_METRICS

        @global_function(**training.settings)
        def train_job(variables, **batch):
            dropout = training.dropout.take(batch)
            return objective(variables, config, kernels, dropout, smoothing=flags.label_smoothing, **batch)

        best = BestSnapshot(context, "generation", variables)
        training.run(train_job, training.batches(), metrics, evaluator, best)
    else:
        start_evaluation(context, variables, per_row=evaluator.needs)
    evaluate_splits(context, evaluator, best)
    generator.report()
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
