"""Step 3b of Meta-KD: distils the meta-teacher into a student with fewer layers.

    python3 meta_distill.py --task_name senti --student_model uncased_L-12_H-768_A-12_oneflow \\
        --teacher_model output/model_save-…/snapshot_best_mft_model_senti_dev_… \\
        --data_dir data/SENTI/ --num_epochs 63 --seed 42 --seq_length=128 --train_example_num 6480 \\
        --eval_example_num 720 --batch_size_per_device 24 --eval_batch_size_per_device 48 \\
        --eval_every_step_num 100 --learning_rate 5e-5 --resave_ofrecord --do_train --do_eval \\
        --vocab_file uncased_L-12_H-768_A-12/vocab.txt

Minimises mean_i w_i [MSE of hidden states + MSE of attention scores + T^2 soft cross-entropy] + cross-entropy with the
labels + gamma MSE of domain representations, where w_i is the domain-expertise weight of sample i. The teacher's outputs come
from the files of meta_teacher_eval.py, or from the frozen teacher in the same graph (--teacher_outputs online). The script
evaluates teacher and student on dev and, if there is a test split, on test. With --unlabelled it trains on texts without
labels. Writes
MODEL_SAVE_DIR/snapshot_best_distill_model_{task}_dev_{accuracy}, metrics.jsonl, run.log, flags.json, curves.png and report.html.
"""

import dataclasses

from modeling.bert.names import DOMAIN_HEAD
from modeling.bert.variables import classifier_shapes, encoder_shapes, read_finite, representation_shapes
from modeling.bert.vocabulary import ActiveVocabulary
from modeling.checkpoints.snapshot import Snapshot
from modeling.checkpoints.teacher_outputs import Layout, TeacherOutputs, output_folder, sample_identity, with_teacher_outputs
from modeling.cli.choices import ONLINE
from modeling.cli.errors import run
from modeling.cli.flags import META_DISTILL, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.distillation import Distillation, distillation_metrics, distillation_objective, projection_shapes
from modeling.objectives.losses import PLAIN
from modeling.objectives.mft import predict_logits
from modeling.objectives.teacher import knowledge_needed, teacher_knowledge
from modeling.report.write import write_report
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import RunContext
from modeling.run.end import end_run
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.held_out import title_of
from modeling.run.label_loss import choose_label_loss
from modeling.run.model_loading import check_classifier, load_variables
from modeling.run.resources import Model
from modeling.run.start import check_resources, start_evaluation
from modeling.run.student import (
    LayerSelection,
    check_heads,
    check_teacher,
    choose_loss_weights,
    describe_mapping,
    describe_unlabelled,
    layer_mapping,
    prepare_unlabelled,
    student_depth,
    teacher_folder,
    without_constant_terms,
)
from modeling.run.training import Training


def main():
    flags = parse_flags(META_DISTILL, __doc__)
    do_train, do_eval = check_modes(flags)
    prepare_unlabelled(flags)
    loss_weights = choose_loss_weights(flags)
    teacher_path = teacher_folder(flags.teacher_model, "--teacher_model")
    context = RunContext(flags, flags.student_model)
    if not do_train:
        check_classifier(context)
    task, kernels, log = context.task, context.engine.kernels, context.log

    # The teacher, and the student as a selection of its snapshot's layers
    teacher_snapshot = Snapshot(teacher_path)
    teacher_config, teacher_digest = teacher_snapshot.config(), teacher_snapshot.digest()
    needs_representation = do_train and loss_weights.knowledge > 0
    check_teacher(context, teacher_snapshot, teacher_config, "--teacher_model", needs_representation)
    own, depth = context.config.num_hidden_layers, flags.student_num_hidden_layers
    depth = student_depth(depth if do_train else depth or own, own, flags.student_model)
    start, mapping = layer_mapping(depth, own), layer_mapping(depth, teacher_config.num_hidden_layers)
    config = context.config.of_layers(start)
    context.use_config(config)
    frozen = context.freezing.layers
    if do_train:
        loss_weights = without_constant_terms(loss_weights, frozen, depth, log)
    log(describe_mapping(start, own, "student snapshot") + " (initial weights)")
    log(describe_mapping(mapping, teacher_config.num_hidden_layers, "teacher") + " (distillation targets)")
    if do_train:
        check_heads(loss_weights, config, teacher_config)
    average_heads = config.num_attention_heads != teacher_config.num_attention_heads
    if loss_weights.attention and average_heads:
        log(
            f"{config.num_attention_heads} student heads, {teacher_config.num_attention_heads} teacher heads: "
            "attention scores are averaged over heads"
        )

    if do_train and flags.unlabelled:
        log(describe_unlabelled(loss_weights))

    # The training samples have prototypical scores, unless they have no labels. Teacher and student share dev and test
    train_records = context.splits.weighted_records() if do_train else None
    dev_records = context.splits.records("dev", name="eval")
    test_records = context.splits.test_records() if do_eval else None
    needs = knowledge_needed(loss_weights, mapping[frozen:])
    online, outputs = flags.teacher_outputs == ONLINE, None
    if do_train and not online:
        outputs = TeacherOutputs(output_folder(flags), flags.unlabelled)
        identity = sample_identity(train_records, task, context.tokenizer)
        outputs.check(teacher_path, teacher_digest, train_records, identity, needs)

    vocabulary = ActiveVocabulary((train_records, dev_records, test_records))
    train_samples, dev_samples, test_samples = map(vocabulary.samples, (train_records, dev_records, test_records))
    teacher_shapes = {
        **encoder_shapes(teacher_config),
        **classifier_shapes(teacher_config, task.num_labels),
        **representation_shapes(teacher_config, task.num_domains, do_train and needs.representation),
    }
    teacher = load_variables(context, teacher_shapes, teacher_snapshot, vocabulary, trainable=False)
    same_width = config.hidden_size == teacher_config.hidden_size
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, task.num_labels),
        **representation_shapes(config, task.num_domains),
        **projection_shapes(loss_weights, depth, config.hidden_size, teacher_config.hidden_size, frozen),
    }
    given = {}
    if do_train and needs.representation and same_width:
        given = {DOMAIN_HEAD[0]: read_finite(teacher_snapshot, DOMAIN_HEAD[0], shapes[DOMAIN_HEAD[0]])}
        log(f"{DOMAIN_HEAD[0]} starts from the teacher's")
    student = load_variables(context, shapes, LayerSelection(context.snapshot, start), vocabulary, given=given)

    @global_function(type="predict", variables=teacher, engine=context.engine)
    def teacher_job(variables, **text):
        return predict_logits(variables, teacher_config, kernels, **text)

    @global_function(type="predict", variables=student, engine=context.engine)
    def student_job(variables, **text):
        return predict_logits(variables, config, kernels, **text)

    splits = {"dev": dev_samples, "test": test_samples}
    evaluator, best = SplitEvaluator(context, student_job, splits, flags.eval_batch_size_per_device, train_samples), None
    # what can be refused is refused before the first file is written
    held = Model(teacher_config, teacher.in_memory(), in_train_graph=do_train and online, graphs=tuple(context.bucketing.graphs))
    if do_train:
        heads = 1 if average_heads else teacher_config.num_attention_heads
        compared = Layout(needs, teacher_config.hidden_size, heads, task.num_labels).values_per_token
        training = Training(context, student, train_samples, False, (held,), compared, **{"teacher's digest": teacher_digest})
        check_resources(context, student, training.schedule)
        label_loss = PLAIN if flags.unlabelled else choose_label_loss(context, train_samples.label)
        if not loss_weights.label and (label_loss != PLAIN or (flags.unlabelled and (flags.class_weights or flags.label_smoothing))):
            log("--class_weights, --label_smoothing have no effect: the loss has no term with the labels")
        context.folder.create()
    else:
        start_evaluation(context, student, (held,))
    reference = evaluate_splits(context, evaluator.with_job(teacher_job), prefix="teacher_")

    if do_train:
        weighted, labelled = flags.use_sample_weights, not flags.unlabelled
        plan = Distillation(loss_weights, flags.temperature, mapping, weighted, frozen, label_loss, labelled)
        inputs = ("word_rows", "input_mask", "segment_ids", "domain", "label", "sample_weights", "loss_mask")

        @global_function(**training.settings)
        def train_job_disk(variables, **batch):
            dropout = training.dropout.take(batch)
            sample = {name: batch.pop(name) for name in inputs}  # the rest of the batch are the teacher's outputs
            return distillation_objective(variables, config, kernels, dropout, plan, batch, **sample)

        @global_function(**training.settings, frozen=(teacher,))
        def train_job_online(variables, teacher, **batch):
            dropout = training.dropout.take(batch)
            text = (batch[name] for name in ("word_rows", "input_mask", "segment_ids", "domain"))
            knowledge = teacher_knowledge(teacher, teacher_config, kernels, needs, *text)
            return distillation_objective(variables, config, kernels, dropout, plan, knowledge, **batch)

        def with_knowledge(batches):
            return batches if online else with_teacher_outputs(batches, outputs, needs, average_heads)

        best = BestSnapshot(context, "distill", student)
        training.run(
            train_job_online if online else train_job_disk,
            with_knowledge(training.batches()),
            distillation_metrics(plan),
            evaluator,
            best,
            with_knowledge(training.fisher_batches()),
            start_layers=start,
            teacher_layers=mapping,
            teacher_digest=teacher_digest,
            teacher_config=dataclasses.asdict(teacher_config),
        )
    results = evaluate_splits(context, evaluator, best)
    for split, evaluation in results.items():
        own_accuracy, accuracy = evaluation.accuracy, reference[split].accuracy
        kept = f"{100 * own_accuracy / accuracy:.1f} %" if accuracy else "no share"
        log(f"{title_of(split)}: the student keeps {kept} of the teacher's accuracy ({own_accuracy:.4f} of {accuracy:.4f})")
    log(
        f"parameters: student {student.count():,} ({depth} layers x {config.hidden_size}), "
        f"teacher {teacher.count():,} ({teacher_config.num_hidden_layers} layers x {teacher_config.hidden_size})"
    )
    write_report(context)
    end_run(context, best)


if __name__ == "__main__":
    run(main)
