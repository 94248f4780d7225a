"""Names of the scripts, their folders, and the sets of scripts that share flags.

A new script is one entry in `SCRIPTS`, plus its name in each set below whose flags it has.
"""

PREPROCESS = "preprocess"
META_FINETUNING = "meta_finetuning"
FINETUNING = "finetuning"
META_TEACHER = "meta_teacher"
META_TEACHER_EVAL = "meta_teacher_eval"
META_DISTILL = "meta_distill"
DOMAIN_MIXING = "domain_mixing"
META_REPTILE = "meta_reptile"
METRIC_LEARNING = "metric_learning"
PRETRAIN_MLM = "pretrain_mlm"
PRETRAIN_DISCRIMINATOR = "pretrain_discriminator"
PRETRAIN_PAIRS = "pretrain_pairs"
SEQUENCE_LABELING = "sequence_labeling"
SPAN_ANSWERING = "span_answering"
GENERATION = "generation"

# Script -> folder, relative to the repository root ("" is the root itself)
SCRIPTS = {
    PREPROCESS: "",
    META_FINETUNING: "",
    FINETUNING: "",
    META_TEACHER: "",
    META_TEACHER_EVAL: "",
    META_DISTILL: "",
    DOMAIN_MIXING: "recipes",
    META_REPTILE: "recipes",
    METRIC_LEARNING: "recipes",
    PRETRAIN_MLM: "recipes",
    PRETRAIN_DISCRIMINATOR: "recipes",
    PRETRAIN_PAIRS: "recipes",
    SEQUENCE_LABELING: "recipes",
    SPAN_ANSWERING: "recipes",
    GENERATION: "recipes",
}

DOCUMENTED_SCRIPTS = (PREPROCESS, META_FINETUNING, FINETUNING, META_TEACHER, META_TEACHER_EVAL, META_DISTILL)

ALL = tuple(SCRIPTS)
EPOCH_TRAINING = (META_FINETUNING, FINETUNING, META_TEACHER, META_DISTILL, DOMAIN_MIXING)  # scripts that train in epochs
META_LEARNING = (META_REPTILE,)  # scripts that train on tasks
PAIR_TRAINING = (METRIC_LEARNING,)  # scripts that train on pairs or episodes
CLASSIFIER_TRAINING = (*EPOCH_TRAINING, *META_LEARNING, *PAIR_TRAINING)
LANGUAGE_TRAINING = (PRETRAIN_MLM, PRETRAIN_DISCRIMINATOR)  # scripts that predict masked tokens
CORPUS_PAIR_TRAINING = (PRETRAIN_PAIRS,)  # scripts that compare the halves of texts
CORPUS_TRAINING = (*LANGUAGE_TRAINING, *CORPUS_PAIR_TRAINING)  # scripts that train on text without labels
TEXT_GENERATION = (GENERATION,)  # scripts whose rows have a target text, and no label
TOKEN_TRAINING = (SEQUENCE_LABELING, SPAN_ANSWERING)  # scripts that tag words or find answers, in texts of formats of their own
TRAINING = (*CLASSIFIER_TRAINING, *CORPUS_TRAINING, *TOKEN_TRAINING, *TEXT_GENERATION)
ROW_TEXT = tuple(script for script in ALL if script not in TOKEN_TRAINING)  # scripts that read rows of text
ONE_PASS = (PREPROCESS, META_TEACHER_EVAL)  # scripts that read the data once, on one device
META_KD = (META_TEACHER, META_TEACHER_EVAL, META_DISTILL)
DISTILLATION = (META_TEACHER_EVAL, META_DISTILL)
# Meta-KD has --eval_* for the dev split; the other scripts have --dev_* for the dev split and --eval_* for the test split.
DEV_EVALUATION = (
    META_FINETUNING,
    FINETUNING,
    DOMAIN_MIXING,
    META_REPTILE,
    METRIC_LEARNING,
    *CORPUS_TRAINING,
    *TOKEN_TRAINING,
    *TEXT_GENERATION,
)
DEV_SPLIT = EVAL_TEST_SPLIT = (PREPROCESS, *DEV_EVALUATION)
# Scripts that may leave domains out of training. finetuning.py is for one domain
HELD_OUT = (
    PREPROCESS,
    META_FINETUNING,
    META_TEACHER,
    META_TEACHER_EVAL,
    META_DISTILL,
    DOMAIN_MIXING,
    META_REPTILE,
    METRIC_LEARNING,
    *CORPUS_TRAINING,
    *TOKEN_TRAINING,
)
CORRUPTION = (META_FINETUNING, META_TEACHER)  # scripts with a corrupted-domain loss
DOMAIN_LOSS = (*CORRUPTION, META_DISTILL)
PACKING = (META_FINETUNING, FINETUNING, META_TEACHER, DOMAIN_MIXING)  # training scripts that may pack several texts into one row
CONSISTENCY = (*PACKING, *META_LEARNING, *PAIR_TRAINING, *TOKEN_TRAINING)  # scripts that may compare the label predictions of two passes
FISHER = (*EPOCH_TRAINING, *META_LEARNING, *TOKEN_TRAINING)  # scripts whose Fisher information may have batches of another size


def script_path(script: str) -> str:
    """Path of a script, relative to the repository root.

    Args:
        script: a key of `SCRIPTS`.
    Returns:
        for example "finetuning.py" or "recipes/domain_mixing.py".
    Raises:
        KeyError: `script` is not in `SCRIPTS`.
    """
    folder = SCRIPTS[script]
    return f"{folder}/{script}.py" if folder else f"{script}.py"
