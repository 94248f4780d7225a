"""The flags of meta-learning and metric learning, as rows of the flag table (modeling/cli/flag_table.py)."""

from modeling.cli.choices import (
    ADAMW,
    CONSTANT,
    CONTRASTIVE,
    FRESH,
    INNER_OPTIMIZERS,
    INNER_SCHEDULES,
    INNER_STATES,
    LINEAR,
    LOGISTIC,
    META_METHODS,
    METRIC_HEADS,
    METRIC_OBJECTIVES,
    OUTER_OPTIMIZERS,
    OUTER_SGD,
    REPTILE,
)
from modeling.cli.flag_kinds import (
    Flag,
    Group,
    batch_size,
    below_one,
    boolean,
    comma_list,
    count,
    decay,
    fraction,
    non_negative_count,
    non_negative_float,
    repeats,
    scale,
    step_count,
    text,
)
from modeling.cli.scripts import META_LEARNING, PAIR_TRAINING

META = Group(
    "tasks",
    "A task is some rows of one domain. An inner loop fine-tunes a copy of the weights on a task; an outer step changes the weights.",
)
PAIRS = Group(
    "pairs and episodes",
    "A pair is two texts with a target: equal labels or other ones. An episode is a few texts of each of some labels.",
)

# fmt: off
TASK_FLAGS = (
    Flag("meta_method", META, META_LEARNING, text, REPTILE,
         "reptile = an outer step moves the weights towards the mean of the adapted ones; fomaml = it takes the gradient of query rows at "
         "the adapted weights", choices=META_METHODS),
    Flag("meta_steps", META, META_LEARNING, step_count, 1000, "outer steps"),
    Flag("tasks_per_step", META, META_LEARNING, count, 5, "tasks of an outer step"),
    Flag("support_num", META, META_LEARNING, count, 80, "rows of a task on which the inner loop trains"),
    Flag("query_num", META, META_LEARNING, non_negative_count, 20,
         "further rows of a task: measured after adapting, and the gradient of fomaml"),
    Flag("class_balanced", META, META_LEARNING, boolean, False, "draw the same number of support rows for each label"),
    Flag("validation_domains", META, META_LEARNING, comma_list, None,
         "domains that no training task has, and on which dev selects the best snapshot, comma-separated", unset="the training domains"),
    Flag("inner_steps", META, META_LEARNING, count, None, "steps of the inner loop", unset="10"),
    Flag("inner_epochs", META, META_LEARNING, count, None, "passes over the support rows, in place of --inner_steps",
         unset="--inner_steps counts"),
    Flag("eval_inner_steps", META, META_LEARNING, count, None, "steps of the inner loop before an evaluation",
         unset="those of training"),
    Flag("eval_tasks", META, META_LEARNING, repeats, 1,
         "tasks of each domain of an evaluation, drawn once from the seed; the measures are those of the predictions after all of them"),
    Flag("inner_batch_size", META, META_LEARNING, batch_size, 12, "rows per batch of the inner loop, over all devices"),
    Flag("inner_learning_rate", META, META_LEARNING, non_negative_float, 5e-5, "peak learning rate of the inner loop"),
    Flag("inner_optimizer", META, META_LEARNING, text, ADAMW,
         "optimizer of the inner loop; no gradient is clipped", choices=INNER_OPTIMIZERS),
    Flag("inner_beta1", META, META_LEARNING, below_one, 0.9,
         "decay of the first moment of --inner_optimizer adamw; Reptile's authors have 0, which leaves none between steps or tasks"),
    Flag("inner_schedule", META, META_LEARNING, text, CONSTANT, "learning rate of the inner loop after its warm-up; linear = decays to 0",
         choices=INNER_SCHEDULES),
    Flag("inner_warmup_proportion", META, META_LEARNING, fraction, 0.0, "fraction of the inner steps with a rising learning rate"),
    Flag("inner_state", META, META_LEARNING, text, FRESH,
         "fresh = moments and step counter of the inner optimizer start at 0 in each task; kept = they continue from task to task",
         choices=INNER_STATES),
    Flag("query_dropout", META, META_LEARNING, boolean, False, "use dropout for the query gradient of fomaml"),
    Flag("outer_optimizer", META, META_LEARNING, text, OUTER_SGD,
         "rule of an outer step; with sgd and reptile, the learning rate is the share of the way to the adapted weights",
         choices=OUTER_OPTIMIZERS),
    Flag("outer_learning_rate", META, META_LEARNING, non_negative_float, None, "peak learning rate of the outer steps",
         unset="1 with sgd and reptile, else 5e-5"),
    Flag("outer_schedule", META, META_LEARNING, text, LINEAR, "learning rate of the outer steps; linear = decays to 0",
         choices=INNER_SCHEDULES),
    Flag("outer_weight_decay", META, META_LEARNING, decay, 0.0, "decoupled weight decay of --outer_optimizer adam"),
)
PAIR_FLAGS = (
    Flag("objective", PAIRS, PAIR_TRAINING, text, CONTRASTIVE,
         "contrastive = the cosine of the vectors of a pair is 1 for equal labels and 0 for others (as SetFit); prototypical = a query row "
         "of an episode is near the mean of the support rows of its label (prototypical networks)", choices=METRIC_OBJECTIVES),
    Flag("num_steps", PAIRS, PAIR_TRAINING, step_count, 240, "steps on pairs or episodes"),
    Flag("within_domain", PAIRS, PAIR_TRAINING, boolean, False, "take the texts of a pair or of an episode from one domain",
         aliases=("--pairs_within_domain",)),
    Flag("label_sentences", PAIRS, PAIR_TRAINING, text, None,
         "file with the columns text and label, whose texts say what a label means, such as \"it was terrible\"; they are further training "
         "rows, for pairs, episodes and the classifier", unset="none"),
    Flag("episodes_per_step", PAIRS, PAIR_TRAINING, batch_size, 1, "episodes per batch of --objective prototypical"),
    Flag("episode_labels", PAIRS, PAIR_TRAINING, count, None, "labels of an episode", unset="all labels"),
    Flag("support_num", PAIRS, PAIR_TRAINING, count, 5, "support rows of each label of an episode"),
    Flag("query_num", PAIRS, PAIR_TRAINING, count, 5, "query rows of each label of an episode"),
    Flag("distance_scale", PAIRS, PAIR_TRAINING, scale, 1.0,
         "factor of the squared distances in the softmax, also of --head prototypes; 1 = as in the paper, 1 / hidden size is gentler"),
    Flag("head", PAIRS, PAIR_TRAINING, text, LOGISTIC,
         "classifier on the vectors: logistic = logistic regression on the training split; prototypes = the nearest mean of a label; "
         "finetune = logistic, then classifier and encoder are trained together as in finetuning.py", choices=METRIC_HEADS),
    Flag("logistic_c", PAIRS, PAIR_TRAINING, scale, 1.0,
         "C of the logistic regression: its L2 penalty is |w|^2 / (2 C) beside the sum of the losses, as in scikit-learn"),
)
# fmt: on
