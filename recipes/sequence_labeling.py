"""Sequence labelling: tags each word of a sentence, for example with the names of persons and places, in one or several domains or
languages.

    python3 recipes/sequence_labeling.py --task_name names --data_dir data/names \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --num_epochs 3 --seed 42 \\
        --seq_length=128 --batch_size_per_device 32 --learning_rate 2e-5 --dev_every_step_num 100

DATA_DIR has train.tsv, dev.tsv and test.tsv with a word, its domain if there are several, and its tag per row (B-, I-, O), and a blank
line after each sentence. The loss is the cross-entropy of the tags of tokens; precision, recall and F1 are those of entities. Writes
MODEL_SAVE_DIR/snapshot_best_tags_model_{task}_dev_{F1}, tagged_dev.tsv, tagged_test.tsv, metrics.jsonl, run.log, flags.json, curves.png
and report.html. tools/tag_words.py tags other text with the snapshot.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.bert.names import TAG_HEAD
from modeling.bert.variables import dense_head_shapes
from modeling.cli.errors import run
from modeling.cli.flags import SEQUENCE_LABELING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.smoothness import terms_of
from modeling.objectives.tokens import TAGGING_METRICS, predict_tags, tagging_objective
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.model_loading import load_model, shapes_without_pooler
from modeling.run.start import start_evaluation
from modeling.run.tagging import TagEvaluator, load_tagged
from modeling.run.token_training import TokenTraining, check_head
from ofrecord_util.tagged_text import TaggedFolder, check_tags
from ofrecord_util.tagging import TagForm, with_tags


def main():
    flags = parse_flags(SEQUENCE_LABELING, __doc__)
    do_train, do_eval = check_modes(flags)
    context = RunContext(flags, flags.model_load_dir, folder_of_text=TaggedFolder, record_form=TagForm(flags.label_all_tokens))
    check_tags(context.task)
    if not do_train:
        check_head(context, TAG_HEAD, "head that tags words")
    config, kernels = context.config, context.engine.kernels

    tagged = {"train": load_tagged(context, "train") if do_train else None, "dev": load_tagged(context, "dev")}
    tagged["test"] = load_tagged(context, "test", optional=True) if do_eval else None
    context.freezing = context.freezing._replace(pooler=True)  # which the head does not read
    shapes = {**shapes_without_pooler(config, context.snapshot), **dense_head_shapes(config, TAG_HEAD, context.task.num_labels)}
    variables, *samples = load_model(context, shapes, *(split and split.records for split in tagged.values()))
    train, *measured = samples

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **text):
        return predict_tags(variables, config, kernels, **text)

    splits = {split: tagged[split] and (tagged[split], own) for split, own in zip(("dev", "test"), measured)}
    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = TagEvaluator(context, predict_job, splits, batch_sizes, train), None
    if do_train:
        training = TokenTraining(context, variables, train, drops_tokens=True)

        @global_function(**training.settings)
        def train_job(variables, domain, label, sample_weights, loss_mask, **batch):  # noqa: ARG001  tag_weights hold the loss mask
            dropout = training.dropout.take(batch)
            return tagging_objective(variables, config, kernels, dropout, **batch, smoothness=training.smoothness)

        best = BestSnapshot(context, "tags", variables)
        batches, fisher = (with_tags(own, tagged["train"]) for own in (training.batches(), training.fisher_batches()))
        training.run(train_job, batches, terms_of(TAGGING_METRICS, training.smoothness), evaluator, best, fisher)
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    evaluator.write(trained=do_train)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
