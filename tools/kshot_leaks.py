"""The leak guard of `make_kshot.py`. It finds rows that reveal a test row, and rows with the same text."""

import collections

from tqdm import tqdm

from tools.kshot_corpora import key, letters

EQUAL, CONTAINS, CONTAINED = "equal", "contains", "contained"

# A test row with fewer words is part of many sentences by chance, so it is compared for equality only.
_LEAST_WORDS = 3


class Substrings:
    """Finds the strings of a large set that occur in a text. The time hardly depends on the number of strings.

    A dict maps the first characters of each string to the string. Their number is the largest of a few sizes that fits.
    `inside` looks up each position of the text once for each size.
    """

    _SIZES = (24, 8, 3, 1)

    def __init__(self, strings):
        self._starts = {}
        for string in dict.fromkeys(strings):
            size = next((size for size in self._SIZES if size <= len(string)), None)
            if size is not None:  # the empty string is in every text
                self._starts.setdefault(size, {}).setdefault(string[:size], []).append(string)

    def inside(self, text):
        """Yields the strings that occur in `text`. A string may be repeated."""
        for size, starts in self._starts.items():
            for position in range(len(text) - size + 1):
                for string in starts.get(text[position : position + size], ()):
                    if text.startswith(string, position):
                        yield string


def find_leaks(rows, tests):
    """Finds the rows that reveal a test row.

    Two texts are compared in both forms of `make_row`. A leak in either form counts. Test rows with fewer than 3 words (for
    the second form: words with a letter) are compared for equality only. White space separates words.

    Args:
        rows: list of N `Row`, candidates of training and dev.
        tests: list of M `Row`.
    Returns:
        list of N: "equal" to a test row, "contained" in one, "contains" one (the first that applies), or None.
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
    """Returns (rows with each text once, number of repeats left out, number of rows whose text has several labels).."""
    labels = collections.defaultdict(set)
    for row in rows:
        labels[key(row)].add(row.label)
    kept, conflicts = {}, 0
    for row in rows:
        if len(labels[key(row)]) > 1:
            conflicts += 1
        else:
            # of several spellings, always keep the same one
            kept[key(row)] = min(kept.get(key(row), row), row, key=lambda one: one.text)
    return list(kept.values()), len(rows) - conflicts - len(kept), conflicts
