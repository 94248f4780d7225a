"""The leak guard of `make_kshot.py`: rows that give a test row away, and rows whose text is there twice."""

import collections

from tqdm import tqdm

from tools.kshot_corpora import key, letters

EQUAL, CONTAINS, CONTAINED = "equal", "contains", "contained"

# A test row of fewer words is part of too many sentences to say anything; it counts for equality only.
_LEAST_WORDS = 3


class Substrings:
    """Finds which of many strings occur in a text, in time that hardly depends on how many there are.

    Each string is kept under its first characters, as many as the largest of a few sizes that it has; a text is looked up
    at every position, once for each size.
    """

    _SIZES = (24, 8, 3, 1)

    def __init__(self, strings):
        self._starts = {}
        for string in dict.fromkeys(strings):
            size = next((size for size in self._SIZES if size <= len(string)), None)
            if size is not None:  # the empty string is in every text, which nobody asks
                self._starts.setdefault(size, {}).setdefault(string[:size], []).append(string)

    def inside(self, text):
        """Yields the strings that occur in `text`; one that occurs twice may come twice."""
        for size, starts in self._starts.items():
            for position in range(len(text) - size + 1):
                for string in starts.get(text[position : position + size], ()):
                    if text.startswith(string, position):
                        yield string


def find_leaks(rows, tests):
    """How each row gives a test row away.

    Two texts are compared in both of their forms (`make_row`); a leak in either counts. Test rows of fewer than 3 words (of
    fewer than 3 words with a letter, for the second form) count for equality only. Words are what white space parts.

    Args:
        rows: list of N `Row`, candidates of training and dev.
        tests: list of M `Row`.
    Returns:
        list of N: "equal" to a test row, "contained" in one, "contains" one (the first that holds), or None.
    """
    leaks = [None] * len(rows)
    for form in ("spaced", "letters"):
        test_texts = dict.fromkeys(getattr(test, form) for test in tests if getattr(test, form))
        texts = [getattr(row, form) for row in rows]
        searched = Substrings(text for text, leak in zip(texts, leaks) if leak is None)
        inside = set()
        for text in tqdm(test_texts, desc="inside test rows", delay=1, leave=False, disable=None):
            inside.update(searched.inside(text))
        long_tests = Substrings(getattr(test, form) for test in tests if _words(test, form) >= _LEAST_WORDS)
        for i, text in enumerate(tqdm(texts, desc="around test rows", delay=1, leave=False, disable=None)):
            if text in test_texts:
                leaks[i] = EQUAL
            elif leaks[i] is None and text in inside:
                leaks[i] = CONTAINED
            elif leaks[i] is None and next(long_tests.inside(text), None) is not None:
                leaks[i] = CONTAINS
    return leaks


def _words(row, form):
    words = row.spaced.split()
    return len(words) if form == "spaced" else sum(bool(letters(word)) for word in words)


def unique(rows):
    """(rows with each text once, how many repeats were left out, how many rows whose text has several labels)."""
    labels = collections.defaultdict(set)
    for row in rows:
        labels[key(row)].add(row.label)
    kept, conflicts = {}, 0
    for row in rows:
        if len(labels[key(row)]) > 1:
            conflicts += 1
        else:
            # of several spellings the same one, wherever they stand
            kept[key(row)] = min(kept.get(key(row), row), row, key=lambda one: one.text)
    return list(kept.values()), len(rows) - conflicts - len(kept), conflicts
