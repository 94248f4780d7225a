"""The four steps of Meta-KD on the tiny project of tests/meta_kd, its data, and how a test runs a step."""

import json
import os
import random

import tiny

DATA = "data/SENTI"
ENCODER = "uncased_L-4_H-20_A-4_oneflow"
DOMAINS = ("books", "dvd", "electronics", "kitchen")
TRAIN_COUNT, DEV_COUNT, TEST_COUNT = 55, 30, 22
BATCH = 11  # divides TRAIN_COUNT: the five rows of an epoch's log are means over all samples
TERMS = ("hidden_loss", "attention_loss", "prediction_loss", "label_loss", "knowledge_loss")

COMMON = "--seed 42 --seq_length=16 --train_example_num 6480 --vocab_file vocab.txt --resave_ofrecord"
STEP_1 = f"preprocess.py --task_name senti --model_load_dir {ENCODER} --data_dir {DATA}/ --num_epochs 4 {COMMON}"
STEP_2 = (
    f"meta_teacher.py --task_name senti --model_load_dir {ENCODER} --data_dir {DATA}/ --num_epochs 16 {COMMON} "
    f"--eval_example_num 720 --batch_size_per_device {BATCH} --eval_batch_size_per_device 9 --eval_every_step_num 25 "
    "--learning_rate 5e-3 --do_train --do_eval --loss_print_every_n_iter 5 --model_save_dir output/teacher"
)
STEP_3A = (
    f"meta_teacher_eval.py --task_name senti --model_load_dir {{teacher}} --data_dir {DATA}/ --num_epochs 4 {COMMON} "
    "--eval_batch_size_per_device 1 --student_num_hidden_layers 2"
)
STEP_3B = (
    f"meta_distill.py --task_name senti --student_model {ENCODER} --teacher_model {{teacher}} --data_dir {DATA}/ "
    f"--num_epochs 6 {COMMON} --eval_example_num 720 --batch_size_per_device {BATCH} --eval_batch_size_per_device 9 "
    "--eval_every_step_num 20 --learning_rate 5e-3 --do_train --do_eval --loss_print_every_n_iter 5 "
    "--student_num_hidden_layers 2"
)
SHORT = "--num_epochs 1 --eval_every_step_num 100"


def write_senti(folder, counts=(7, 4, 3), names=("negative", "positive"), domains=DOMAINS):
    """Rows of each class of each domain; one row less in the second one's first class. The order is shuffled."""
    for split, count in zip(("train", "dev", "test"), counts):
        rows = [
            row
            for place, domain in enumerate(domains)
            for row in tiny.opinions(domain, (count - (place == 1), count - (count < 7 and place == 2)), split, names)
        ]
        random.Random(split).shuffle(rows)
        tiny.write_rows(folder, split, rows)


def distil(project, teacher, name, more=""):
    """Runs meta_distill.py; later flags override the documented ones."""
    output = project.call_well(f"{STEP_3B.format(teacher=teacher.snapshot)} --model_save_dir output/{name} {more}")
    run = tiny.Run(project.path("output", name))
    run.output, run.snapshot = output, os.path.join("output", name, run.best())
    return run


def config_of(run):
    with open(os.path.join(run.folder, run.best(), "bert_config.json")) as file:
        return json.load(file)


def fails(project, line):
    code, _, errors = project.call(line)
    assert code == 2, errors
    assert errors.count("\n") == 1, errors
    assert errors.startswith("error: "), errors
    return errors
