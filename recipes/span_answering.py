"""Answers to questions: finds the answer to a question in a text, in one or several domains or languages.

    python3 recipes/span_answering.py --task_name squad --data_dir data/squad \\
        --model_load_dir uncased_L-12_H-768_A-12_oneflow --num_epochs 2 --seed 42 --seq_length=384 \\
        --doc_stride 64 --max_query_length 64 --batch_size_per_device 16 --learning_rate 2e-5 \\
        --weight_decay_rate 1e-4 --dev_every_step_num 500

DATA_DIR has train.json, dev.json and test.json in the form of SQuAD. A long text has several windows, each with the question. The loss is
the mean cross-entropy of the first and the last token of the answer; exact match and F1 are those of SQuAD's official script. Writes
MODEL_SAVE_DIR/snapshot_best_answers_model_{task}_dev_{F1}, answers_dev.json, nbest_dev.json, the same for test, metrics.jsonl, run.log,
flags.json, curves.png and report.html. tools/answer_questions.py answers other questions with the snapshot.
"""

if not __package__:
    import _root  # noqa: F401

from modeling.bert.names import SPAN_HEAD
from modeling.bert.variables import dense_head_shapes
from modeling.cli.errors import run
from modeling.cli.flags import SPAN_ANSWERING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.smoothness import terms_of
from modeling.objectives.tokens import SPAN_METRICS, predict_spans, span_objective
from modeling.report.write import write_report
from modeling.run.answering import AnswerEvaluator, load_questions
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import evaluate_splits
from modeling.run.model_loading import load_model, shapes_without_pooler
from modeling.run.start import start_evaluation
from modeling.run.token_training import TokenTraining, check_head
from ofrecord_util.answer_windows import WindowForm, with_answers
from ofrecord_util.question_text import PLACES, QuestionFolder


def main():
    flags = parse_flags(SPAN_ANSWERING, __doc__)
    do_train, do_eval = check_modes(flags)
    form = WindowForm(flags.doc_stride, flags.max_query_length)
    context = RunContext(flags, flags.model_load_dir, folder_of_text=QuestionFolder, record_form=form)
    form.check_stride(context.tokenizer, flags.seq_length)
    if not do_train:
        check_head(context, SPAN_HEAD, "head that finds answers")
    config, kernels = context.config, context.engine.kernels

    windows = {"train": load_questions(context, "train") if do_train else None, "dev": load_questions(context, "dev")}
    windows["test"] = load_questions(context, "test", optional=True) if do_eval else None
    context.freezing = context.freezing._replace(pooler=True)  # which the head does not read
    shapes = {**shapes_without_pooler(config, context.snapshot), **dense_head_shapes(config, SPAN_HEAD, len(PLACES))}
    variables, *samples = load_model(context, shapes, *(split and split.records for split in windows.values()))
    train, *measured = samples

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **text):
        return predict_spans(variables, config, kernels, **text)

    splits = {split: windows[split] and (windows[split], own) for split, own in zip(("dev", "test"), measured)}
    batch_sizes = {"dev": flags.dev_batch_size_per_device, "test": flags.eval_batch_size_per_device}
    evaluator, best = AnswerEvaluator(context, predict_job, splits, batch_sizes, train), None
    if do_train:
        training = TokenTraining(context, variables, train, drops_tokens=False)

        @global_function(**training.settings)
        def train_job(variables, domain, label, sample_weights, **batch):  # noqa: ARG001  windows have no labels
            dropout = training.dropout.take(batch)
            return span_objective(variables, config, kernels, dropout, **batch, smoothness=training.smoothness, places=flags.seq_length)

        best = BestSnapshot(context, "answers", variables)
        batches, fisher = (with_answers(own, windows["train"]) for own in (training.batches(), training.fisher_batches()))
        training.run(train_job, batches, terms_of(SPAN_METRICS, training.smoothness), evaluator, best, fisher)
    else:
        start_evaluation(context, variables)
    evaluate_splits(context, evaluator, best)
    evaluator.write(trained=do_train)
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
