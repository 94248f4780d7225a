"""The three steps of Meta Fine-tuning on the tiny project of tests/mft, and the sizes of its data."""

DATA = "data/k-shot-cross/g1/16-42"
SINGLE = "data/k-shot-single/SST-2/16-42"
TRAIN_COUNT, DEV_COUNT, TEST_COUNT = 53, 23, 23  # of DATA, DATA and SINGLE: primes, which no batch size divides

STEP_1 = (
    f"preprocess.py --task_name g1 --model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir {DATA} --num_epochs 4 "
    "--seed 42 --seq_length=24 --train_example_num 53 --dev_example_num 23 --vocab_file vocab.txt --resave_ofrecord"
)
STEP_2 = (
    f"meta_finetuning.py --task_name g1 --model_load_dir uncased_L-2_H-20_A-4_oneflow --data_dir {DATA} "
    "--num_epochs 12 --seed 42 --seq_length=24 --train_example_num 53 --dev_example_num 23 --batch_size_per_device 4 "
    "--dev_batch_size_per_device 2 --dev_every_step_num 40 --vocab_file vocab.txt --learning_rate 5e-3 "
    "--resave_ofrecord"
)
STEP_3 = (
    f"finetuning.py --task_name sst-2 --model_load_dir {{snapshot}} --data_dir {SINGLE} --num_epochs 3 --seed 42 "
    "--seq_length=24 --train_example_num 16 --dev_example_num 9 --eval_example_num 23 --batch_size_per_device 3 "
    "--dev_batch_size_per_device 2 --eval_batch_size_per_device 2 --dev_every_step_num 5 --vocab_file vocab.txt "
    "--learning_rate 1e-4 --resave_ofrecord"
)
META_STEPS = -(-TRAIN_COUNT * 12 // 4)
