"""Step 3a of Meta-KD: computes the meta-teacher's outputs for each training sample and writes them for the student.

    python3 meta_teacher_eval.py --task_name senti --data_dir data/SENTI/ \\
        --model_load_dir output/model_save-…/snapshot_best_mft_model_senti_dev_… --num_epochs 4 \\
        --seed 42 --seq_length=128 --train_example_num 6480 --eval_batch_size_per_device 1 \\
        --vocab_file uncased_L-12_H-768_A-12/vocab.txt --resave_ofrecord

Writes DATA_DIR/ofrecord/teacher (--teacher_output_dir): logits, domain representations, and, without padding, the hidden
states and attention scores of the layers that a student with --student_num_hidden_layers layers learns from; also a manifest
(modeling/checkpoints/teacher_outputs.py). With --do_eval the script also evaluates the teacher on dev and test. With
--unlabelled it writes the outputs for DATA_DIR/unlabelled.csv to DATA_DIR/ofrecord/teacher_unlabelled.
"""

import numpy as np

from modeling.bert.variables import classifier_shapes, encoder_shapes, representation_shapes
from modeling.checkpoints.teacher_output_writer import TeacherOutputWriter, check_folder
from modeling.checkpoints.teacher_outputs import Layout, estimate, output_folder, sample_identity
from modeling.cli.errors import UserError, run
from modeling.cli.flags import META_TEACHER_EVAL, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.teacher import knowledge_names, knowledge_needed, teacher_knowledge
from modeling.run.context import RunContext
from modeling.run.evaluation import TEXT, SplitEvaluator, evaluate_splits, measure, predict_batches
from modeling.run.model_loading import load_model
from modeling.run.start import announce_predictions
from modeling.run.student import check_teacher, choose_loss_weights, describe_mapping, layer_mapping, student_depth, teacher_folder
from ofrecord_util.reading import size_text


def choose_layers(flags, config, log):
    """The teacher's layers to write: --teacher_layers, or the layers to which the student will be mapped."""
    own = config.num_hidden_layers
    if flags.teacher_layers:
        if not all(0 <= layer < own for layer in flags.teacher_layers):
            listed = ",".join(map(str, flags.teacher_layers))
            raise UserError(f"--teacher_layers {listed}: the teacher has layers 0 to {own - 1}")
        return flags.teacher_layers
    mapping = layer_mapping(student_depth(flags.student_num_hidden_layers, own, flags.model_load_dir), own)
    log(describe_mapping(mapping, own, "teacher"))
    return mapping


def main():
    flags = parse_flags(META_TEACHER_EVAL, __doc__)
    context = RunContext(flags, teacher_folder(flags.model_load_dir, "--model_load_dir"), trains=False)
    task, config, kernels, log = context.task, context.config, context.engine.kernels, context.log
    loss_weights = choose_loss_weights(flags)
    check_teacher(context, context.snapshot, config, "--model_load_dir", needs_representation=loss_weights.knowledge > 0)
    needs = knowledge_needed(loss_weights, choose_layers(flags, config, log))
    layout = Layout(needs, config.hidden_size, config.num_attention_heads, task.num_labels)

    if context.splits.must_write(context.splits.train_split, "train"):
        context.splits.check_texts((context.splits.train_split, *(("dev", "test") if flags.do_eval else ())))
    folder = output_folder(flags)
    check_folder(folder)
    records = context.splits.training_records()
    dev_records = context.splits.records("dev", name="eval") if flags.do_eval else None
    test_records = context.splits.test_records() if flags.do_eval else None
    lengths, identity = records.lengths, sample_identity(records, task, context.tokenizer)
    log(f"{len(records)} samples, {lengths.sum()} tokens: {folder} will take {size_text(estimate(layout.arrays(lengths)))}")

    facts = dict(identity, teacher=context.snapshot.path, teacher_digest=context.snapshot.digest(), config=config.as_dict())
    with TeacherOutputWriter(folder, layout, records.idxs, lengths, facts) as writer:
        shapes = {
            **encoder_shapes(config),
            **classifier_shapes(config, task.num_labels),
            **representation_shapes(config, task.num_domains, needs.representation),
        }
        variables, train, dev, test = load_model(context, shapes, records, dev_records, test_records)
        context.start_log()

        @global_function(type="predict", variables=variables, engine=context.engine)
        def teacher_job(variables, word_rows, input_mask, segment_ids, domain):
            return tuple(
                teacher_knowledge(variables, config, kernels.for_prediction, needs, word_rows, input_mask, segment_ids, domain).values()
            )

        # dev and test use the same graphs: OneFlow keeps the memory of each graph until the process ends
        splits = {split: samples for split, samples in (("dev", dev), ("test", test)) if samples is not None}
        batches = context.bucketing.teacher([train, *splits.values()], flags.eval_batch_size_per_device, layout.values_per_token)
        announce_predictions(context, variables)
        names = (*TEXT, "domain")
        for rows, outputs in predict_batches(teacher_job, train, batches, names):
            writer.write(rows, {name: output.numpy() for name, output in zip(knowledge_names(needs), outputs)})
        train_logits = writer.logits()
    if flags.unlabelled:
        counts = np.bincount(train_logits.argmax(axis=1), minlength=task.num_labels)
        log("unlabelled: labels that the teacher predicts: " + ", ".join(f"{name} {count}" for name, count in zip(task.labels, counts)))
    else:
        log(f"train {measure(train_logits, records.label, records.domain, task, flags.seed)}")
    log(f"teacher outputs {folder}: layers {','.join(map(str, needs.layers))}, {writer.summary()}")

    def logits_job(batch):
        return teacher_job(batch)[0]

    evaluate_splits(context, SplitEvaluator(context, logits_job, splits, batches=batches, names=names))


if __name__ == "__main__":
    run(main)
