"""Names of domains and labels: which ones a reader cannot tell apart, and which cells are the names of columns."""

import re
import unicodedata
from collections import Counter
from typing import Dict, Iterable, Optional, Sequence, Tuple

# fmt: off
TEXT_COLUMNS = frozenset((
    "text", "texts", "text_a", "text_b", "texta", "textb", "sentence", "sentence1", "sentence2", "sentences", "review", "reviews",
    "review_text", "review_body", "premise", "hypothesis", "question", "question1", "question2", "query", "document", "doc", "content",
    "body", "comment", "tweet", "utterance", "title", "phrase", "string", "input", "a", "b",
))
DOMAIN_COLUMNS = frozenset((
    "domain", "domains", "category", "categories", "genre", "topic", "source", "product", "product_category", "dataset", "corpus", "task",
    "field",
))
LABEL_COLUMNS = frozenset((
    "label", "labels", "sentiment", "sentiments", "class", "classes", "category", "target", "targets", "polarity", "rating", "stars",
    "score", "gold", "gold_label", "gold_labels", "output", "label_text", "is_duplicate", "intent", "emotion", "y",
))
SOURCE_COLUMNS = frozenset((  # of rows of a source and its target
    "source", "sources", "source_text", "src", "input", "inputs", "input_text", "text", "article", "document", "content", "body", "passage",
    "context", "dialogue", "question", "prompt", "instruction",
))
TARGET_COLUMNS = frozenset((
    "target", "targets", "target_text", "tgt", "output", "outputs", "output_text", "summary", "highlights", "headline", "title", "answer",
    "completion", "response", "reference", "translation",
))
INDEX_COLUMNS = frozenset(("", "id", "ids", "idx", "index", "row", "nr", "no", "#", "number", "unnamed:_0"))
# fmt: on

# Characters that nothing shows, apart from those of the category Cf
_BLANK = frozenset(
    [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0]
    + [code for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)) for code in range(first, last + 1)]
)

# Lower-case letters of the Cyrillic and the Greek script that look as a letter of the Latin one
_TWINS = str.maketrans("асеіјорѕухѵԁһԛԝαοιν", "aceijopsyxvdhqwaoiv")
_NAME = re.compile(r"[^\W\d][\w.:/()'’-]*( [\w.:/()'’-]+){0,3}\Z")  # looks like the name of a column, not like a text
MANY_ROWS = 6  # what is said of all rows of a file says little if there are fewer
_FIRST_COLUMNS = frozenset(("id", "ids", "idx", "index", "row", "number", "unnamed:_0"))
_SURE = frozenset(("text_a", "text_b", "sentence1", "sentence2", "question1", "question2", "review_text", "review_body"))


def look(name: str) -> str:
    """What a reader sees of a name: equal for two names that differ in case, in invisible characters, in the kind or number of their
    spaces, in composed and decomposed accents, or in letters of another script that look the same only."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc") or char in "\t\n\r")
    text = "".join(char for char in text if ord(char) not in _BLANK)
    return unicodedata.normalize("NFKC", " ".join(text.casefold().split())).translate(_TWINS)


def spelled(name: str) -> str:
    """A name with escapes for all characters outside of ASCII, in quotes."""
    return ascii(name if len(name) <= 80 else name[:80] + "…")


def odd_character(name: str) -> Optional[str]:
    """The first character of a name that would change a terminal, a file or a page that shows it, or None."""
    return next((char for char in name if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")), None)


class Confusables:
    """Finds an earlier name that looks the same as a given one and is spelled differently, however many names there are.

    Args:
        names: the first names.
    """

    def __init__(self, names: Iterable[str] = ()):
        self._first: Dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Adds a name. Of several with one look, the first one is kept."""
        self._first.setdefault(look(name), name)

    def find(self, name: str) -> Optional[str]:
        """An earlier name that looks the same as `name` and is spelled differently (apart from case), or None."""
        other = self._first.get(look(name))
        return None if other is None or other.strip().lower() == name.strip().lower() else other


def column_word(cell: str) -> str:
    """The name of a column in the spelling of the sets above."""
    return cell.strip().strip("\"'").strip("\ufeff").lower().replace(" ", "_")


def is_target_header(cells: Sequence[str]) -> bool:
    """Whether a row of a source and its target has the names of columns: all are such names, and each of the two has one."""
    words = [column_word(cell) for cell in cells]
    names = SOURCE_COLUMNS | TARGET_COLUMNS | INDEX_COLUMNS
    return all(word in names for word in words) and not any(names.isdisjoint(words) for names in (SOURCE_COLUMNS, TARGET_COLUMNS))


def is_header(cells: Sequence[str]) -> bool:
    """Whether a row of at least two columns has the names of columns: all are such names, and one after the first is that of labels or
    domains, or the first is that of an index, or one is no word of a text (sentence1)."""
    words = [column_word(cell) for cell in cells]
    names = TEXT_COLUMNS | DOMAIN_COLUMNS | LABEL_COLUMNS | INDEX_COLUMNS
    labels = LABEL_COLUMNS | DOMAIN_COLUMNS
    if len(words) < 2 or not all(word in names for word in words):
        return False
    return any(word in labels and len(word) > 1 for word in words[1:]) or words[0] in _FIRST_COLUMNS or not _SURE.isdisjoint(words)


def unlike_the_rest(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> bool:
    """Whether the first row of a table is a header in words that are not known, from the other rows.

    In one of the columns, all other rows have numbers, and the first has a word. Or the value of the first row occurs nowhere else in any
    of the columns, while those of the other rows repeat. One in ten of these may occur once (spelled oddly, perhaps) if the cells of the
    first row look like names.

    Args:
        rows: cells of the rows.
        columns: positions, or negative ones from the end, of the domains and labels.
    """
    if len(rows) < 3 or not columns:
        return False
    like_names = all(_NAME.match(cell.strip()) for cell in rows[0])
    for column in columns:
        first, *others = (cells[column].strip() for cells in rows)
        if like_names and all(map(is_number, others)) and not is_number(first):
            return True
    if len(rows) < MANY_ROWS:
        return False
    for column in columns:
        counts = Counter(cells[column].strip().lower() for cells in rows)
        once = sum(count == 1 for count in counts.values()) - 1
        if counts[rows[0][column].strip().lower()] > 1 or once > (max(1, len(rows) // 10) if like_names else 0) or once == len(counts) - 1:
            return False
    return like_names or len(columns) > 1


def may_be_header(line: str) -> bool:
    """Whether a line of one column may be the name of the column of texts."""
    word = line.strip().strip("\"'").lower()
    return len(word) > 2 and word in TEXT_COLUMNS


def is_number(cell: str) -> bool:
    """Whether a cell is a number in digits, such as an index or a rating."""
    return re.match(r"\s*[-+]?[0-9]+(\.[0-9]*)?\s*\Z", cell) is not None


def split_by_look(names: Iterable[str]) -> Optional[Tuple[str, str]]:
    """Two of the names that look alike and are spelled otherwise, or None."""
    earlier = Confusables()
    for name in sorted(names):
        other = earlier.find(name)
        if other is not None:
            return other, name
        earlier.add(name)
    return None
