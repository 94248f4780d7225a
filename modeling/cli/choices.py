"""Values that flags accept by name. The flag table and the code that reads a value share these constants."""

POOLINGS = CLS, MEAN, MAX = ("cls", "mean", "max")
RAW_CLS, SQRT_LENGTH, ONE_HEAD, TWO_HEADS = ("raw_cls", "sqrt_length", "sha", "2ha")  # MEAD's names of the last three
CLASSIFIER_POOLINGS = (*POOLINGS, RAW_CLS, SQRT_LENGTH, ONE_HEAD, TWO_HEADS)
CORRUPTIONS = SAMPLED, ALL_OTHERS = ("sampled", "all")
TEACHER_OUTPUTS = DISK, ONLINE = ("disk", "online")
METRICS = ACCURACY, MACRO_F1, MATTHEWS, CROSS_ENTROPY = ("accuracy", "macro_f1", "matthews", "cross_entropy")  # of --metric_for_best
MICRO_F1 = "micro_f1"
NUMBER_METRICS = MSE, PEARSON, SPEARMAN = ("mse", "pearson", "spearman")  # of a regression, the first is the default
SET_METRICS = (ACCURACY, MICRO_F1, MACRO_F1, CROSS_ENTROPY)  # of sets of labels
ENTITY_F1, ANSWER_F1, EXACT_MATCH = ("entity_f1", "answer_f1", "exact_match")
TAG_METRICS, ANSWER_METRICS = (ENTITY_F1, ACCURACY, CROSS_ENTROPY), (ANSWER_F1, EXACT_MATCH, CROSS_ENTROPY)
LATEST = "latest"  # of --metric_for_best: the last evaluation
DEVICES = AUTO, CUDA, CPU = ("auto", "cuda", "cpu")
CHILD_TUNINGS = NO_CHILD, TASK_FREE, TASK_DRIVEN = ("none", "F", "D")
META_METHODS = REPTILE, FOMAML = ("reptile", "fomaml")
INNER_OPTIMIZERS = ADAMW, SGD = ("adamw", "sgd")
INNER_SCHEDULES = CONSTANT, LINEAR = ("constant", "linear")
INNER_STATES = FRESH, KEPT = ("fresh", "kept")
OUTER_OPTIMIZERS = OUTER_SGD, OUTER_ADAM = ("sgd", "adam")
# Tokens between the starts of two windows of a text for a question, and of a question at most (--doc_stride, --max_query_length)
WINDOW_TOKENS = 64
METRIC_OBJECTIVES = CONTRASTIVE, PROTOTYPICAL = ("contrastive", "prototypical")
PAIR_LOSSES = CONTRASTIVE_PAIRS, SYMMETRIC, ALL_PAIRS, TRIPLET = ("contrastive", "symmetric", "all", "triplet")
METRIC_HEADS = LOGISTIC, NEAREST_MEAN, FINETUNED = ("logistic", "prototypes", "finetune")
GENERATION_OBJECTIVES = TARGETS, PRETRAINING = ("generation", "pretraining")
BLEU_4 = "bleu_4"  # of --metric_for_best, where texts are generated
SCORE_UNITS = CHARACTERS, WORDS = ("characters", "words")  # of BLEU and ROUGE
BALANCED = "balanced"  # --class_weights by the numbers of training rows

NEWEST_RUN = "newest"  # --resume without a value
