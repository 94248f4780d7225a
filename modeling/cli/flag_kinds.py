"""Row type of the flag table, and the functions that parse the values of flags."""

import argparse
import math
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Union

from modeling.cli.choices import BALANCED


class Group(NamedTuple):
    """A section of --help and of docs/flags.md: its title, and an optional sentence that holds for all of its flags."""

    title: str
    note: str = ""


class Flag(NamedTuple):
    """One row of the flag table.

    A flag may have several rows if its group, default or help differs by script. No two of these rows share a script.

    Attributes:
        name: without dashes; also the attribute of the parsed namespace.
        group: section of --help.
        scripts: names of the scripts that have the flag.
        kind: function of the text that returns the value, or raises `argparse.ArgumentTypeError`.
        default: value if the flag is not set.
        help: meaning; if `has_effect` is False, the reason why the flag has no effect.
        unset: what the script uses if `default` is None.
        choices: values that are allowed, or None.
        aliases: other option strings, with dashes.
        metavar: placeholder of the value in --help.
        required: whether the command line must set the flag.
        bare: value of the flag without a value; None if the flag needs a value. Booleans always have True here.
        has_effect: False for flags that the script accepts and ignores.
    """

    name: str
    group: Group
    scripts: Tuple[str, ...]
    kind: Callable[[str], Any]
    default: Any
    help: str
    unset: str = ""
    choices: Optional[Tuple[str, ...]] = None
    aliases: Tuple[str, ...] = ()
    metavar: Optional[str] = None
    required: bool = False
    bare: Any = None
    has_effect: bool = True

    @property
    def option_strings(self) -> Tuple[str, ...]:
        """Names of the flag on the command line, with dashes."""
        return ("--" + self.name, *self.aliases)

    @property
    def meaning(self) -> str:
        """Help of the flag without its default."""
        return self.help if self.has_effect else f"accepted, no effect: {self.help}"


LARGEST = 2**63 - 1  # of any integer
_MOST_PARTS = 65536  # of the records of a split: each is a file
_MOST_SHIFT = 1000  # of a word embedding, far above the embeddings; much larger ones have no finite loss
_MOST_ROWS = 65536  # of a batch: arrays of more rows exceed the memory of today's machines, even with short texts
_MOST_LANES = 256
MOST_STEPS = 10**7  # of a run: months of training. Arrays with a number per step need 80 MB
_MOST_DECAY = 1000  # a learning rate above 1e-3 then turns the signs of the weights
_MOST_REPEATS = 1000  # of an evaluation, whose predictions are all in memory
_MOST_BEAM = 1024  # hypotheses
_MOST_LENGTH_PENALTY = 10  # the divisor of a score is ((5 + tokens) / 6)^penalty: at 65,536 tokens and 10 it is 2e40, which float64 holds

text = str


def boolean(value: str) -> bool:
    """Parses true or false, in the usual spellings."""
    if value.lower() in ("true", "yes", "1", "t", "y"):
        return True
    if value.lower() in ("false", "no", "0", "f", "n"):
        return False
    raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")


def comma_list(value: str) -> List[str]:
    """Parses a comma-separated list; blanks around an item and empty items are dropped."""
    return [part.strip() for part in value.split(",") if part.strip()]


def int_list(value: str) -> List[int]:
    """Parses a comma-separated list of integers."""
    try:
        return [int(part) for part in comma_list(value)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a comma-separated list of integers") from None


_LEAST_WEIGHT, _MOST_WEIGHT = 1e-6, 10**6  # graphs compute in float32, where a loss of more than 1e38 is not finite


def class_weights(value: str) -> Union[str, List[float]]:
    """Parses --class_weights: the word balanced, or numbers of 0 or more, one of them above 0."""
    if value.strip() == BALANCED:
        return BALANCED
    try:
        weights = [float(part) for part in comma_list(value)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is neither {BALANCED} nor a comma-separated list of numbers") from None
    if not weights or not all(weight == 0 or _LEAST_WEIGHT <= weight <= _MOST_WEIGHT for weight in weights) or not any(weights):
        limits = f"0, or from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}"
        raise argparse.ArgumentTypeError(f"{value!r}: each weight must be {limits}, and one of them above 0")
    return weights


def at_least(number: Callable[[str], Any], lowest: float, highest: Optional[int] = None) -> Callable[[str], Any]:
    """Makes a parser of finite numbers with limits.

    Args:
        number: int or float.
        lowest: smallest number that is allowed.
        highest: largest number that is allowed; None for 2^63 - 1 (int) or any finite number (float).
    Returns:
        function of the text that returns the number.
    """

    def parse(value):
        try:
            parsed = number(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{value!r} is not {'an integer' if number is int else 'a number'}") from None
        if isinstance(parsed, float) and not math.isfinite(parsed):  # inf, nan, and 1e400, which a float cannot hold
            raise argparse.ArgumentTypeError(f"{value} is not a finite number")
        if parsed < lowest:
            raise argparse.ArgumentTypeError(f"{value} is not {lowest:g} or more")
        most = LARGEST if highest is None and number is int else highest
        if most is not None and parsed > most:
            raise argparse.ArgumentTypeError(f"{value} is more than {most:,}")
        return parsed

    return parse


positive_int, non_negative_int, non_negative_float = at_least(int, 1), at_least(int, 0), at_least(float, 0.0)
batch_size = at_least(int, 1, _MOST_ROWS)
pair_batch_size = at_least(int, 2, _MOST_ROWS)
# Numbers of rows, batches or tokens: they size arrays, so they have a limit. `positive_int` has none: it is for periods (every N steps) and
# for how much of the data is used
count, non_negative_count = at_least(int, 1, _MOST_ROWS), at_least(int, 0, _MOST_ROWS)
step_count = at_least(int, 1, MOST_STEPS)
lane_count = at_least(int, 0, _MOST_LANES)
repeats = at_least(int, 1, _MOST_REPEATS)
part_count = at_least(int, 1, _MOST_PARTS)
port = at_least(int, 1, 65535)


def _positive(parse: Callable[[str], float]) -> Callable[[str], float]:
    """Makes a parser of numbers above 0 from one of numbers of 0 or more."""

    def parse_positive(value):
        number = parse(value)
        if number == 0:
            raise argparse.ArgumentTypeError(f"{value} is not above 0")
        return number

    return parse_positive


positive_float = _positive(non_negative_float)
beam_size = at_least(int, 1, _MOST_BEAM)
length_penalty = at_least(float, 0.0, _MOST_LENGTH_PENALTY)
weight = at_least(float, 0.0, _MOST_WEIGHT)
scale = at_least(float, _LEAST_WEIGHT, _MOST_WEIGHT)  # a factor or a divisor
decay = at_least(float, 0.0, _MOST_DECAY)
shift = at_least(float, 0.0, _MOST_SHIFT)
positive_shift = _positive(shift)


def fraction(value: str) -> float:
    """Parses a number from 0 to 1."""
    number = non_negative_float(value)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 1")
    return number


def below_one(value: str) -> float:
    """Parses a number from 0 to below 1."""
    number = fraction(value)
    if number == 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 0 and below 1")
    return number


_LEAST_SHARE = 0.001  # masks are drawn in steps of 2^-16


def share(value: str) -> float:
    """Parses a share that is not empty: a number from 0.001 to 1."""
    number = fraction(value)
    if number < _LEAST_SHARE:
        raise argparse.ArgumentTypeError(f"{value} is not between {_LEAST_SHARE} and 1")
    return number
