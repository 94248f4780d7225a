"""The files that a run writes for each split: names of those of tags and answers, and which ones of a kind a folder has.

Reads nothing but names, so that a tool knows the files of a run without the engine.
"""

import glob
import os

_ANY = "*"


def answers_path(folder, split):
    """Path of the answers to a split's questions in a run's folder."""
    return os.path.join(folder, f"answers_{split}.json")


def nbest_path(folder, split):
    """Path of the best answers to each of a split's questions in a run's folder."""
    return os.path.join(folder, f"nbest_{split}.json")


def tagged_path(folder, split):
    """Path of a split's words and their tags in a run's folder."""
    return os.path.join(folder, f"tagged_{split}.tsv")


def written_files(folder, path_of):
    """dict of split -> path for the files of a kind that a folder has, sorted by split.

    Args:
        folder: of a run.
        path_of: function of (folder, split), such as `answers_path`.
    """
    before, after = os.path.basename(path_of("", _ANY)).split(_ANY)
    paths = glob.glob(path_of(glob.escape(folder), _ANY))
    return dict(sorted((os.path.basename(path)[len(before) : -len(after)], path) for path in paths))
