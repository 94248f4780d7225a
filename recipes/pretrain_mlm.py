"""Masked language modelling: trains a BERT on text without labels, before the other steps.

    python3 recipes/pretrain_mlm.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --corpus_file reviews.txt,more_texts/ \\
        --use_task_text --seq_length=128 --num_epochs 10 --batch_size_per_device 32 \\
        --learning_rate 1e-4 --dev_every_step_num 200 --seed 42

The corpus is the text of the training split, text files with one text per line, or both. The model predicts masked words from the words
around them (BERT, arXiv 1810.04805). With --structural it also puts shuffled words in order, and tells which of two sentences comes first,
or whether they are of different texts (StructBERT, arXiv 1908.04577).
Writes MODEL_SAVE_DIR/snapshot_best_mlm_model_{task}_dev_{perplexity}, which every step takes as --model_load_dir, and metrics.jsonl,
run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.cli.errors import run
from modeling.cli.flags import PRETRAIN_MLM, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.masked_lm import LANGUAGE_METRICS, masked_lm_objective, predict_masked
from modeling.objectives.structural import STRUCTURAL_METRICS, structural_objective
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.language_training import (
    LanguageEvaluator,
    LanguageTraining,
    check_token_head,
    language_shapes,
    open_corpus,
    per_row,
    plan_masking,
)
from modeling.run.model_loading import load_variables
from modeling.run.start import start_evaluation
from modeling.run.structural_training import StructuralTraining, structural_shapes


def main():
    flags = parse_flags(PRETRAIN_MLM, __doc__)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir)
    if not do_train:
        check_token_head(context)
    config, kernels, masking, structural = context.config, context.engine.kernels, plan_masking(context), do_train and flags.structural

    corpus = open_corpus(context) if do_train else None
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    # all word embeddings, because each of them is an output; the pooler is a part of the head of sentence pairs
    context.freezing = context.freezing._replace(pooler=flags.freeze_encoder or not structural)
    shapes = structural_shapes(context) if structural else language_shapes(config, context.snapshot)
    variables = load_variables(context, shapes, context.snapshot)
    samples = {split: records and records.samples() for split, records in (("dev", dev), ("test", test))}

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **batch):
        return predict_masked(variables, config, kernels, **batch)

    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = LanguageEvaluator(context, predict_job, samples, batch_sizes, masking, corpus), None
    if do_train:
        training = (StructuralTraining if structural else LanguageTraining)(context, variables, corpus, masking)
        objective = structural_objective if structural else masked_lm_objective

        @global_function(**training.settings)
        def train_job(variables, **batch):
            dropout = training.dropout.take(batch)
            return objective(variables, config, kernels, dropout, **batch)

        best = BestSnapshot(context, "mlm", variables)
        training.run(train_job, training.batches(), STRUCTURAL_METRICS if structural else LANGUAGE_METRICS, evaluator, best)
    else:
        start_evaluation(context, variables, per_row=per_row(masking, config))
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
