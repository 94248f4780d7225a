"""The settings that `--auto_settings` chooses, and the warning of a run that hardly trains: pure functions of what is known of a run.

The rule is written in docs/flags.md (`AUTO_RULE` in modeling/cli/flag_table.py). benchmarks/tune_auto_settings.py compares it with the
defaults.
"""

import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

SEQ_LENGTHS = (32, 64, 128, 256)
_SHARE_WITH_ROOM = 0.95  # of the training texts that --seq_length does not cut
_BATCHES = ((200, 4), (1000, 8), (5000, 16))  # (fewer rows than this, samples per step)
_LARGEST_BATCH = 32
_STEPS = 300  # at least, if they need no more than _MOST_EPOCHS
_FEWEST_EPOCHS, _MOST_EPOCHS = 3, 10
_RATE, _RATE_WIDTH = 1e-4, 384  # learning rate of an encoder of this hidden size
_HIGHEST_RATE, _LOWEST_RATE = 3e-4, 1e-5
_RATE_OF_HEADS = 1e-3  # with --freeze_encoder
_WARMUP = 0.1
_EVALUATIONS = 10  # on dev, at most
_FEW_STEPS = 50
_NEAR_CHANCE, _LEARNT = 0.9, 0.5  # of ln(labels)


class Known(NamedTuple):
    """What the rule uses.

    Attributes:
        rows: training samples that are used.
        labels: number of labels.
        hidden_size: of the encoder.
        positions: longest sequence of the encoder, in tokens.
        lengths: tokens of training texts, with special tokens and uncut; empty if `stored_length` is set.
        stored_length: length of existing records, which is kept; None if they are written.
        replicas: devices times accumulated batches per step.
        frozen: whether only the heads are trained.
    """

    rows: int
    labels: int
    hidden_size: int
    positions: int
    lengths: Sequence[int] = ()
    stored_length: Optional[int] = None
    replicas: int = 1
    frozen: bool = False


def choose_settings(known: Known, given: Dict[str, Any]) -> Dict[str, Any]:
    """The value of each flag that the rule covers, by name.

    Args:
        known: `Known`.
        given: flags that the user has set, by name; they keep their values, and the others are chosen for them.
    Returns:
        dict with seq_length, batch_size_per_device, num_epochs, learning_rate, warmup_proportion, evaluation_period.
    """
    chosen = dict(given)
    chosen.setdefault("seq_length", known.stored_length or _seq_length(known))
    if "batch_size_per_device" not in chosen:
        samples = next((size for limit, size in _BATCHES if known.rows < limit), _LARGEST_BATCH)
        chosen["batch_size_per_device"] = max(1, samples // known.replicas)
    per_epoch = known.rows / (chosen["batch_size_per_device"] * known.replicas)
    if "num_epochs" not in chosen:
        chosen["num_epochs"] = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, math.ceil(_STEPS / per_epoch)))
    if "learning_rate" not in chosen:
        chosen["learning_rate"] = _learning_rate(known)
    chosen.setdefault("warmup_proportion", _WARMUP)
    steps = math.ceil(chosen["num_epochs"] * per_epoch)
    chosen.setdefault("evaluation_period", max(1, math.ceil(steps / _EVALUATIONS)))
    return chosen


def _seq_length(known: Known) -> int:
    """The smallest of SEQ_LENGTHS that cuts at most one in twenty texts."""
    lengths = sorted(known.lengths) or [SEQ_LENGTHS[2]]
    needed = lengths[math.ceil(_SHARE_WITH_ROOM * len(lengths)) - 1]
    fitting = next((length for length in SEQ_LENGTHS if length >= needed), SEQ_LENGTHS[-1])
    return min(fitting, known.positions)


def _learning_rate(known: Known) -> float:
    """Wide encoders need lower rates: the rate falls with the hidden size to the power of 1.5. It has one significant digit."""
    if known.frozen:
        return _RATE_OF_HEADS
    rate = _RATE * (_RATE_WIDTH / known.hidden_size) ** 1.5
    return float(f"{min(_HIGHEST_RATE, max(_LOWEST_RATE, rate)):.0e}")


def describe_settings(known: Known, chosen: Dict[str, Any], given: Dict[str, Any], period_flag: str, trains: bool) -> str:
    """The line of the log that names what was chosen.

    Args:
        known, chosen, given: as in `choose_settings`.
        period_flag: name of the flag for steps between evaluations.
        trains: whether the script trains; otherwise only --seq_length matters.
    """
    names = [name for name in chosen if name not in given and (trains or name == "seq_length")]
    flags = [f"--{period_flag if name == 'evaluation_period' else name} {chosen[name]:g}" for name in names]
    about = f"{known.rows} training rows, {known.labels} labels, hidden size {known.hidden_size}"
    return f"--auto_settings: {about}: {' '.join(flags) or 'nothing to choose, all settings are given'}"


def weak_training_warning(steps: int, loss: Optional[float], labels: int) -> Optional[str]:
    """One line for a run without --auto_settings that has hardly trained, or None. A run with few steps whose loss is low has trained: its
    snapshot knew the task.

    Args:
        steps: of the whole schedule.
        loss: last mean training cross-entropy with the true labels, in nats, unweighted; None if the objective has none.
        labels: number of labels.
    """
    reasons: List[str] = []
    chance = math.log(labels)
    if steps < _FEW_STEPS and (loss is None or loss > _LEARNT * chance):
        reasons.append(f"the run has only {steps} step{'s' * (steps != 1)}")
    if loss is not None and loss > _NEAR_CHANCE * chance:
        where = "near" if loss < 2 * chance - _NEAR_CHANCE * chance else "above"
        reasons.append(f"its last cross-entropy on training rows, {loss:.3f}, is {where} that of guessing (ln {labels} = {chance:.3f})")
    if not reasons:
        return None
    return (
        f"warning: {' and '.join(reasons)}: train longer or with a higher rate (--num_epochs, --learning_rate, "
        "--batch_size_per_device), or let --auto_settings choose them"
    )
