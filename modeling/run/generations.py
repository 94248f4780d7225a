"""`generations_SPLIT.tsv`: the texts that the best snapshot of a run generates for a split, one line per row.

row     score   source          target          generated
0       -0.0312 a b c           c b a           c b a
"""

import os
from typing import NamedTuple

from modeling.run.split_files import written_files
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.reading import TEXT_LIMIT, lines_of, open_file
from ofrecord_util.text_files import one_line

_HEAD = ("row", "score", "source", "target", "generated")
_REMEDY = "run the step again, or remove the file"
SHOWN = 20  # texts that a report shows


class Generation(NamedTuple):
    """One line of the file."""

    row: int
    score: float
    source: str
    target: str
    generated: str


def generations_path(folder, split):
    """Path of the texts of a split in a run's folder."""
    return os.path.join(folder, f"generations_{split}.tsv")


def written_generations(folder):
    """dict of split -> path of the texts in a run's folder."""
    return written_files(folder, generations_path)


def write_generations(path, sources, targets, found):
    """Writes the texts of a split. The file appears only when it is complete.

    Args:
        sources, targets: lists of N str.
        found: list of N (text, score).
    Raises:
        UserError: the file cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(("\t".join(_HEAD) + "\n").encode("utf-8"))
            for row, (source, target, (text, score)) in enumerate(zip(sources, targets, found)):
                cells = [str(row), f"{score:.6g}", *map(one_line, (source, target, text))]
                file.write(("\t".join(cells) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def read_generations(path, most=SHOWN):
    """The first `most` `Generation`s of a file.

    Raises:
        UserError: the file is not one of a run. The message names the line.
    """
    found = []
    with open_file(path, _REMEDY, TEXT_LIMIT) as file:
        for number, line in enumerate(lines_of(file, path, _REMEDY), 1):
            if len(found) == most:
                break
            try:
                cells = line.decode("utf-8").rstrip("\n").split("\t")
                if len(cells) != len(_HEAD) or (number == 1 and tuple(cells) != _HEAD):
                    raise ValueError("has other columns than a run writes")
                if number > 1:
                    found.append(Generation(int(cells[0]), float(cells[1]), *cells[2:]))
            except ValueError as error:
                raise UserError(f"{path}: line {number}: {error}; {_REMEDY}") from error
    return found
