"""A dual encoder on text without labels: the vectors of the two halves of a text become near, before the other steps.

    python3 recipes/pretrain_pairs.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --corpus_file reviews.txt,more_texts/ \\
        --use_task_text --seq_length=128 --num_epochs 10 --batch_size_per_device 32 \\
        --learning_rate 1e-4 --dev_every_step_num 200 --seed 42

Each first half is compared with all second halves of its batch (ConveRT, arXiv 1911.03688). A task of text
pairs has its two texts as halves, and with --paired_lines each line of --corpus_file has them, with a tab between them.
Writes MODEL_SAVE_DIR/snapshot_best_pairs_model_{task}_dev_{recall}, which every step and tools/embed.py take as --model_load_dir, and
metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.cli.errors import run
from modeling.cli.flags import PRETRAIN_PAIRS, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.metric import predict_vectors
from modeling.objectives.pairs import pair_metrics
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.language_training import open_corpus
from modeling.run.model_loading import load_variables
from modeling.run.pair_training import PairEvaluator, PairTraining, check_pair_flags, pair_shapes
from modeling.run.start import start_evaluation


def main():
    flags = parse_flags(PRETRAIN_PAIRS, __doc__)
    do_train, do_eval = check_modes(flags)
    if do_train:
        check_pair_flags(flags)
    context = RunContext(flags, flags.model_load_dir)
    config, kernels = context.config, context.engine.kernels

    corpus = open_corpus(context) if do_train else None
    dev = context.splits.records("dev")
    test = context.splits.test_records("eval") if do_eval else None
    # all word embeddings, because a corpus need not fit into memory
    variables = load_variables(context, pair_shapes(config, context.snapshot, flags.pair_loss if do_train else None), context.snapshot)
    samples = {split: records and records.samples() for split, records in (("dev", dev), ("test", test))}

    @global_function(type="predict", variables=variables, engine=context.engine)
    def vector_job(variables, **text):
        return predict_vectors(variables, config, kernels, **text)

    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = PairEvaluator(context, vector_job, samples, batch_sizes, corpus), None
    if do_train:
        training = PairTraining(context, variables, corpus)

        @global_function(**training.settings)
        def pair_job(variables, **batch):
            return training.objective(variables, kernels, **batch)

        best = BestSnapshot(context, "pairs", variables)
        training.run(pair_job, training.batches(), pair_metrics(flags.pair_loss), evaluator, best)
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
