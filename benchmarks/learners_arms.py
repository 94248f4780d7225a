"""The arms of benchmarks/learners.py: which scripts run with which flags.

| | few texts (A) | 12 domains, 50 rows per class (B) | unseen domains (C) |
| --- | --- | --- | --- |
| supervised stages | 20 epochs, batches of 8 (240 steps) | 3 epochs of 8 (450 steps) | 3 epochs of 8 (300 steps) |
| pairs | 240 steps of 16 pairs | the same | the same |
| episodes | 240 steps of 5 + 5 rows a label | the same | the same |
| evaluations on dev | every 40 steps | every 75 | every 50 |
| rate | one of 2e-5, 5e-5, 1e-4 for each stage | the same | the same |
| tokens | 128, or --seq_length | the same | the same |
| Child-Tuning | a share of 0.2 | the same | |
| consistency | weight 1 | the same | |
| Reptile, FOMAML | | | 15 outer steps of 4 tasks, 5 inner steps of 8 of 16 rows |
| adaptation, fine-tuning | | | 30 steps of 8 texts, judged at the last step |
| adaptation, pairs | | | 40 steps of 16 pairs, judged at the last step |
| test rows | 872, 2000, 2000 | 400 per domain | 200 per domain |

With all rows, part B has 1 epoch (about 2,000 steps) and evaluates every 300 steps. One domain alone (`single`) has as many epochs, so all
of its runs together have the steps of `mixing`; it is judged at its last step, because 32 dev rows select badly. SetFit has its authors'
settings: 2e-5, the last step; "contrastive, last step" and "label sentences, last step" are judged there too. "SetFit, 5e-5" and
"SetFit, 1e-4" have other rates. Episodes have the texts of one domain, and squared distances divided by the hidden size: those of 384
numbers would saturate the softmax. All other settings are the defaults of the scripts.

In part C, an arm ends with an adaptation: fine-tuning, unless its name says otherwise. "nearest mean" takes the nearest mean of the K rows
of a label, without a step. "frozen vectors" and "pairs on the K rows" have the encoder and the K rows alone, as "none" has. Arms with equal
stages before the adaptation share them, with the rate that was chosen for fine-tuning. "Reptile, 10 x" has ten times the outer steps,
"Reptile, larger rates" a grid of 2e-4, 5e-4 and 1e-3, because the best inner rate of the usual grid is its largest.
"""

from typing import NamedTuple, Optional

RATES = ("2e-5", "5e-5", "1e-4")
BATCH = 8
LAST_STEP_ONLY = 10**9  # a --dev_every_step_num that no run reaches, so that dev is evaluated only once, at the end
DISTANCE_SCALE = 0.0026  # of squared distances: 1 / hidden size of the encoder, 384
PREPROCESS, WORKER = "preprocess.py", "benchmarks/workers/torch_setfit.py"


class Stage(NamedTuple):
    """One run of a script.

    Attributes:
        name: part of the name of its folder, the same for equal stages of all arms.
        script, flags: what runs, beside the flags that every stage has.
        rate: the flag that is chosen on dev, None for none.
        grid: its values, from the first choice to the last among equals.
        per_domain: whether the script runs once per domain, on its rows alone.
    """

    name: str
    script: str
    flags: tuple = ()
    rate: Optional[str] = "--learning_rate"
    grid: tuple = RATES
    per_domain: bool = False


class Lengths(NamedTuple):
    """How long the stages of a part are."""

    epochs: int
    dev_every: int
    steps: int = 240  # on pairs and episodes
    pairs: int = 16  # of a step


FEW, REVIEWS, UNSEEN = Lengths(20, 40), Lengths(3, 75), Lengths(3, 50)
WHOLE = Lengths(1, 300)  # part B with all rows


def _steps(epochs, dev_every):
    return "--num_epochs", epochs, "--batch_size_per_device", BATCH, "--dev_every_step_num", dev_every, "--loss_print_every_n_iter", 40


def _supervised(lengths, name, script, *flags, dev_every=None, per_domain=False):
    return Stage(name, script, (*_steps(lengths.epochs, dev_every or lengths.dev_every), *flags), per_domain=per_domain)


def mixing(lengths, name, *flags):
    return _supervised(lengths, name, "recipes/domain_mixing.py", *flags)


PROTOTYPICAL_SCORES = Stage("scores", PREPROCESS, ("--resave_ofrecord",), None, ())


def mft(lengths, name, *flags):
    """Step 1 and step 2."""
    return PROTOTYPICAL_SCORES, _supervised(lengths, name, "meta_finetuning.py", *flags)


def metric(lengths, name, *flags, dev_every=None):
    shared = ("--num_steps", lengths.steps, "--dev_every_step_num", dev_every or lengths.dev_every, "--loss_print_every_n_iter", 40)
    return Stage(name, "recipes/metric_learning.py", (*shared, *flags))


def contrastive(lengths, name="contrastive", *flags, dev_every=None):
    return metric(lengths, name, "--batch_size_per_device", lengths.pairs, *flags, dev_every=dev_every)


_FROZEN = ("--learning_rate", 0, "--num_steps", 1, "--batch_size_per_device", 2)
NEAREST_MEAN = ("--head", "prototypes")


def frozen_vectors(name):
    """Logistic regression on the vectors of the encoder as it is."""
    return Stage(name, "recipes/metric_learning.py", _FROZEN, "--logistic_c", ("1", "0.1", "0.01"))


def nearest_mean(name):
    """The nearest mean vector of a label, without training."""
    return Stage(name, "recipes/metric_learning.py", (*_FROZEN, *NEAREST_MEAN, "--distance_scale", DISTANCE_SCALE), None, ())


def prototypes(lengths):
    episodes = ("--support_num", 5, "--query_num", 5, "--episodes_per_step", 1, "--within_domain", "--distance_scale", DISTANCE_SCALE)
    return metric(lengths, "prototypes", "--objective", "prototypical", *NEAREST_MEAN, *episodes)


def reptile(name, method, *flags, rate, budget=1, grid=RATES):
    shared = (
        "--meta_method", method, "--meta_steps", 15 * budget, "--tasks_per_step", 4, "--support_num", 16, "--query_num", 8,
        "--class_balanced", "--inner_steps", 5, "--inner_batch_size", BATCH, "--dev_every_step_num", 5 * budget,
        "--loss_print_every_n_iter", 5,
    )  # fmt: skip
    return Stage(name, "recipes/meta_reptile.py", (*shared, *flags), rate, grid)


LABEL_SENTENCES = "data/label-sentences/0-1.tsv"  # seen from the project's root, where the scripts run
ALL_DOMAINS, NORMALIZED = ("--corruption", "all"), ("--normalize_sample_weights",)
MIXING, SETFIT = "mixing", "SetFit"  # the arms with which the others are compared
SETFIT_RATES = {f"SetFit, {rate}": rate for rate in ("5e-5", "1e-4")}  # further arms
SETFIT_ARMS = (SETFIT, *SETFIT_RATES)


def arms(lengths):
    """The arms of parts A and B: dict of name -> tuple of `Stage`."""
    few = lengths
    single = _supervised(few, "single", "finetuning.py", dev_every=LAST_STEP_ONLY, per_domain=True)
    pairs, setfit = contrastive(few), ("--steps", few.steps, "--pairs", few.pairs)
    return {
        "mixing": (mixing(few, "mixing"),),
        "MFT": mft(few, "mft"),
        "MFT, normalized, all": mft(few, "mft-normalized-all", *NORMALIZED, *ALL_DOMAINS),
        "contrastive": (pairs,),
        "contrastive, last step": (contrastive(few, "contrastive-last", dev_every=LAST_STEP_ONLY),),
        "label sentences, last step": (
            contrastive(few, "contrastive-sentences", "--label_sentences", LABEL_SENTENCES, dev_every=LAST_STEP_ONLY),
        ),
        SETFIT: (Stage("setfit", WORKER, setfit, None, ()),),
        "contrastive, then MFT": (pairs, *mft(few, "mft")),
        "frozen vectors": (frozen_vectors("frozen"),),
        "frozen vectors, prototypes": (nearest_mean("frozen-prototypes"),),
        "single": (single,),
        "mixing, Child-Tuning F": (mixing(few, "mixing-F", "--child_tuning", "F"),),
        "mixing, Child-Tuning D": (mixing(few, "mixing-D", "--child_tuning", "D"),),
        "mixing, consistency": (mixing(few, "mixing-consistency", "--consistency_weight", 1),),
        "prototypes": (prototypes(few),),
        "mixing, mean vectors": (mixing(few, "mixing-mean", "--pooling", "mean"),),
        "MFT, mean vectors": mft(few, "mft-mean", "--pooling", "mean"),
        "contrastive, then mixing": (pairs, mixing(few, "mixing")),
        "contrastive within domains": (contrastive(few, "contrastive-within", "--within_domain"),),
        "MFT, scores only": mft(few, "mft-scores-only", "--use_domain_loss", "false"),
        "MFT, all": mft(few, "mft-all", *ALL_DOMAINS),
        "MFT, normalized": mft(few, "mft-normalized", *NORMALIZED),
        **{name: (Stage(f"setfit-{rate}", WORKER, (*setfit, "--learning_rate", rate), None, ()),) for name, rate in SETFIT_RATES.items()},
    }


TEN_TIMES, LARGER_RATES = "Reptile, 10 x", "Reptile, larger rates"
FURTHER_UNSEEN = (TEN_TIMES, LARGER_RATES)  # those of part C
FURTHER = (  # only if --arms names them
    *SETFIT_RATES, "MFT, mean vectors", "MFT, scores only", "MFT, all", "MFT, normalized", "contrastive, then mixing",
    "contrastive within domains", *FURTHER_UNSEEN,
)  # fmt: skip


NONE = "none"  # the arm of part C that fine-tunes the encoder on the K rows alone
FINE_TUNING, FROZEN, NEAREST, PAIRS = "adapted", "frozen", "nearest-mean", "pairs"  # names of adaptations
FINE_TUNING_STEPS, PAIR_STEPS = 30, 40


class UnseenArm(NamedTuple):
    """An arm of part C: its stages before the adaptation, none for the encoder, and a key of `ADAPTATIONS`."""

    first: tuple
    adapted: str = FINE_TUNING


def unseen_arms(lengths):
    """The arms of part C: dict of name -> `UnseenArm`."""
    mixed, episodes, pairs = (mixing(lengths, "mixing"),), (prototypes(lengths),), (contrastive(lengths),)
    rate = "--inner_learning_rate"
    return {
        NONE: UnseenArm(()),
        "mixing": UnseenArm(mixed),
        "MFT": UnseenArm(mft(lengths, "mft")),
        "Reptile": UnseenArm((reptile("reptile", "reptile", rate=rate),)),
        "FOMAML": UnseenArm((reptile("fomaml", "fomaml", "--outer_optimizer", "adam", rate="--outer_learning_rate"),)),
        "prototypes": UnseenArm(episodes),
        "contrastive": UnseenArm(pairs),
        "frozen vectors": UnseenArm((), FROZEN),
        "frozen vectors, nearest mean": UnseenArm((), NEAREST),
        "pairs on the K rows": UnseenArm((), PAIRS),
        "mixing, nearest mean": UnseenArm(mixed, NEAREST),
        "prototypes, nearest mean": UnseenArm(episodes, NEAREST),
        "contrastive, nearest mean": UnseenArm(pairs, NEAREST),
        TEN_TIMES: UnseenArm((reptile("reptile-10x", "reptile", rate=rate, budget=10),)),
        LARGER_RATES: UnseenArm((reptile("reptile-larger", "reptile", rate=rate, grid=("2e-4", "5e-4", "1e-3")),)),
    }


ADAPTATIONS = {  # name of the stage -> function of the number of rows and of the steps of fine-tuning, which returns its `Stage`
    FINE_TUNING: lambda rows, steps: Stage(FINE_TUNING, "finetuning.py", _steps(-(-steps * BATCH // rows), LAST_STEP_ONLY)),
    FROZEN: lambda _rows, _steps: frozen_vectors(FROZEN),
    NEAREST: lambda _rows, _steps: nearest_mean(NEAREST),
    PAIRS: lambda _rows, _steps: contrastive(UNSEEN._replace(steps=PAIR_STEPS), PAIRS, dev_every=LAST_STEP_ONLY),
}


def adaptation(rows, kind=FINE_TUNING, steps=FINE_TUNING_STEPS):
    """The `Stage` that adapts to some rows of one domain.

    Args:
        rows: number of rows, of all labels.
        kind: key of `ADAPTATIONS`.
        steps: of fine-tuning, rounded up to whole epochs.
    """
    return ADAPTATIONS[kind](rows, steps)


def sample_passes(command, rows):
    """Texts that a run has taken through a forward and a backward pass.

    Args:
        command: list of the words of its command.
        rows: its metrics rows.
    """
    flags = {word: value for word, value in zip(command, command[1:]) if word.startswith("--")}
    train = [row for row in rows if row["kind"] == "train"]
    if not train:
        return 0
    steps, script = train[-1]["step"], command[0]

    def of(name, default=None):
        return int(flags.get("--" + name, default))

    if "setfit" in script:
        return 2 * steps * of("pairs")
    if script.endswith("meta_reptile.py"):
        query = of("query_num") if flags["--meta_method"] == "fomaml" else 0
        return steps * of("tasks_per_step") * (of("inner_steps") * of("inner_batch_size") + query)
    if script.endswith("metric_learning.py"):
        if flags.get("--objective") == "prototypical":
            return steps * of("episodes_per_step") * 2 * (of("support_num") + of("query_num"))  # two labels
        return 2 * steps * of("batch_size_per_device")
    passes = steps * of("batch_size_per_device")
    if float(flags.get("--consistency_weight", 0)):
        passes *= 2
    if flags.get("--child_tuning") == "D":
        passes += round(passes / of("num_epochs"))  # the Fisher information needs one more epoch
    return passes
