"""Held-out domains (--held_out_domains): no step trains on their rows, and each split is measured on them apart from the other domains."""

import numpy as np

from ofrecord_util.errors import UserError

_MARK = "_held_out"  # ends the name of the rows of held-out domains in a split


def named_domains(flags, flag, task):
    """The domains that a flag names, as sorted numbers; none if the script does not have the flag.

    Raises:
        UserError: a name is unknown.
    """
    names = getattr(flags, flag, None) or []
    numbers = {domain.lower(): number for number, domain in enumerate(task.domains)}  # any case, as in the text
    unknown = [name for name in names if name.lower() not in numbers]
    if unknown:
        raise UserError(f"--{flag} {','.join(names)}: {unknown[0]!r} is none of the domains {', '.join(task.domains)}")
    return sorted({numbers[name.lower()] for name in names})


def held_out_domains(flags, task):
    """The domains of --held_out_domains, as sorted numbers.

    Raises:
        UserError: a name is unknown, or no domain is left.
    """
    held_out = named_domains(flags, "held_out_domains", task)
    if len(held_out) == task.num_domains:
        raise UserError(f"--held_out_domains {','.join(flags.held_out_domains)}: no domain is left for training; name fewer")
    return held_out


def other_domains(held_out, task):
    """The domains of a task that are not held out, as sorted numbers."""
    return [domain for domain in range(task.num_domains) if domain not in held_out]


def names_of(domains, task):
    """Names of domains: "books, dvd"."""
    return ", ".join(task.domains[domain] for domain in domains)


def held_out_name(split):
    """The name of the rows of held-out domains in a split: "dev_held_out"."""
    return split + _MARK


def split_of(name):
    """The split that a name belongs to: "dev" for "dev" and "dev_held_out"."""
    return name[: -len(_MARK)] if name.endswith(_MARK) else name


def title_of(name):
    """The name as a text shows it: "dev, held-out domains" for "dev_held_out"."""
    return f"{split_of(name)}, held-out domains" if name.endswith(_MARK) else name


def divided(splits, measured, held_out):
    """The parts of splits that are measured: the rows of some domains under the name of the split, those of held-out domains apart.

    Args:
        splits: dict of split -> `Samples`, or a tuple that ends with them; its other values have the same rows and a `select`. No None.
        measured, held_out: domains.
    Returns:
        dict of name -> as in `splits`. A part without rows is left out.
    """
    parts = {}
    for split, given in splits.items():
        samples = given[-1] if isinstance(given, tuple) else given
        for name, domains in ((split, measured), (held_out_name(split), held_out)):
            rows = np.flatnonzero(np.isin(samples.domain, domains))
            if len(rows) == len(samples):
                parts[name] = given
            elif len(rows):
                parts[name] = tuple(one.select(rows) for one in given) if isinstance(given, tuple) else given.select(rows)
    return parts


def measured_parts(context, splits, selects):
    """The parts of a run's splits that are measured, see `divided`: the rows of each split, those of held-out domains apart.

    Args:
        context: `RunContext`.
        splits: as for `divided`; None for a split to leave out.
        selects: whether dev selects a snapshot.
    Raises:
        UserError: dev is to select a snapshot, and has no row of a domain that is not held out.
    """
    held_out, given = context.splits.held_out, {split: found for split, found in splits.items() if found is not None}
    parts = divided(given, other_domains(held_out, context.task), held_out)
    if selects:
        check_dev(parts, held_out, context.task)
    return parts


def domains_of(context, name):
    """The domains on which a part of a split is measured, for messages: " of the held-out domains books, dvd"; empty for all domains."""
    held_out, task = context.splits.held_out, context.task
    if not held_out:
        return ""
    apart = name != split_of(name)
    return f" of the {'held-out ' * apart}domains {names_of(held_out if apart else other_domains(held_out, task), task)}"


def check_dev(parts, held_out, task):
    """Checks that dev can select a snapshot.

    Args:
        parts: of `divided`.
        held_out: domains.
        task: `Task`, with their names.
    Raises:
        UserError: all rows of dev are of held-out domains.
    """
    if held_out and "dev" not in parts:
        raise UserError(
            f"the dev split has only rows of the held-out domains {names_of(held_out, task)}, which select no snapshot: name fewer in "
            "--held_out_domains, or add rows of other domains"
        )
