"""A generator and a discriminator on text without labels, before the other steps: the discriminator tells which tokens were replaced.

    python3 recipes/pretrain_discriminator.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --corpus_file reviews.txt,more_texts/ \\
        --use_task_text --seq_length=128 --num_epochs 10 --batch_size_per_device 32 \\
        --learning_rate 1e-4 --dev_every_step_num 200 --seed 42

The generator, a smaller BERT, fills masked places; the discriminator learns from all tokens of a text (ELECTRA, arXiv 2003.10555).
Writes MODEL_SAVE_DIR/snapshot_best_disc_model_{task}_dev_{accuracy}, the discriminator, which every step takes as --model_load_dir, and
metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.cli.errors import run
from modeling.cli.flags import PRETRAIN_DISCRIMINATOR, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.replaced_tokens import REPLACED_METRICS, predict_replaced, replaced_token_objective
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.discriminator_training import (
    DiscriminatorEvaluator,
    DiscriminatorTraining,
    check_trains,
    discriminator_shapes,
    plan_generator,
)
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.language_training import open_corpus, plan_masking
from modeling.run.model_loading import load_variables
from ofrecord_util.replacing import ReplacedMasking


def main():
    flags = parse_flags(PRETRAIN_DISCRIMINATOR, __doc__)
    do_train, do_eval = check_modes(flags)
    check_trains(do_train)
    context = RunContext(flags, flags.model_load_dir)
    config, kernels, masking = context.config, context.engine.kernels, plan_masking(context, ReplacedMasking)
    generator = plan_generator(context)

    corpus = open_corpus(context)
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    # all word embeddings, because each of them is an output of the generator
    context.freezing = context.freezing._replace(pooler=True)
    variables = load_variables(context, discriminator_shapes(context, generator), context.snapshot)
    samples = {split: records and records.samples() for split, records in (("dev", dev), ("test", test))}

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **batch):
        return predict_replaced(variables, config, generator, kernels, **batch)

    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator = DiscriminatorEvaluator(context, predict_job, samples, batch_sizes, masking, corpus)
    training = DiscriminatorTraining(context, variables, corpus, masking, generator)

    @global_function(**training.settings)
    def train_job(variables, **batch):
        dropout = training.dropout.take(batch)
        return replaced_token_objective(variables, config, generator, kernels, dropout, flags.discriminator_weight, **batch)

    best = BestSnapshot(context, "disc", variables)
    training.run(train_job, training.batches(), REPLACED_METRICS, evaluator, best)
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
