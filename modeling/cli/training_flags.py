"""Which flags only a run that trains uses. They are listed by script: a row of the flag table may be one of them in one of its scripts."""

from modeling.cli.scripts import CORPUS_TRAINING, META_DISTILL, META_LEARNING, PAIR_TRAINING, TEXT_GENERATION, TRAINING

_OPTIMISATION = (
    *("num_epochs", "learning_rate", "warmup_proportion", "weight_decay_rate", "adam_bias_correction", "gradient_accumulation_steps"),
    *("max_steps", "early_stop_patience", "metric_for_best", "dev_every_step_num", "eval_every_step_num"),
    *("freeze_encoder", "freeze_layers"),
    *("class_weights", "label_smoothing", "consistency_weight", "adversarial_factor", "adversarial_sigma", "adversarial_bound"),
    *("child_tuning", "reserve_p", "fisher_batch_size", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("use_sample_weights", "normalize_sample_weights", "corruption", "domain_layers", "use_fp16"),
)
_SNAPSHOTS = ("model_save_every_n_iter", "state_save_every_n_iter", "save_last_snapshot", "keep_all_best", "loss_print_every_n_iter")
# The training split, which the scripts that read the data once need, and terms of the loss, which decide what meta_teacher_eval.py writes
_OF_TRAINING_SCRIPTS = (
    *("train_data_prefix", "train_data_part_num", "train_example_num", "batch_size_per_device", "texts_per_row", "data_portion"),
    *("use_domain_loss", "domain_loss_weight", "pred_distill"),
)
_CORPUS = (
    *("corpus_file", "use_task_text", "evaluation_text", "packing", "corpus_data_part_num", "shuffle_window", "structural", "document_end"),
    *("generator_size", "discriminator_weight", "paired_lines", "pair_loss"),
)
_TASKS = (
    *("meta_method", "meta_steps", "tasks_per_step", "support_num", "query_num", "class_balanced", "validation_domains", "inner_steps"),
    *("inner_epochs", "eval_inner_steps", "eval_tasks", "inner_batch_size", "inner_learning_rate", "inner_optimizer", "inner_beta1"),
    *("inner_schedule", "inner_warmup_proportion", "inner_state", "query_dropout", "outer_optimizer", "outer_learning_rate"),
    *("outer_schedule", "outer_weight_decay"),
)
_PAIRS = (
    *("objective", "num_steps", "within_domain", "label_sentences", "episodes_per_step", "episode_labels", "support_num", "query_num"),
    *("distance_scale", "head", "logistic_c"),
)
_DISTILLATION = (
    *("teacher_output_dir", "teacher_outputs", "hidden_loss_weight", "attention_loss_weight", "prediction_loss_weight"),
    *("relation_loss_weight", "label_loss_weight", "temperature"),
)
_MASKS = ("mask_probability", "whole_word_masking", "max_predictions_per_seq")  # with which the scripts of masked tokens measure, too
_OF_SCRIPTS = (
    (TRAINING, _OF_TRAINING_SCRIPTS),
    (CORPUS_TRAINING, _CORPUS),
    (META_LEARNING, _TASKS),
    (PAIR_TRAINING, _PAIRS),
    ((META_DISTILL,), _DISTILLATION),
    (TEXT_GENERATION, _MASKS),
)


def training_flags(script: str) -> frozenset:
    """Names of the flags, among those that a script has, whose values change nothing in a run that does not train.

    Args:
        script: a key of `SCRIPTS`.
    """
    return frozenset((*_OPTIMISATION, *_SNAPSHOTS, *(name for scripts, names in _OF_SCRIPTS if script in scripts for name in names)))
