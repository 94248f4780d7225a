"""How a model's texts are split into tokens, apart from its vocabulary: the settings that a snapshot keeps."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from ofrecord_util.errors import UserError

_MAX_WORD_CHARS = 200  # Google's; a longer word is [UNK]


@dataclass(frozen=True)
class AddedToken:
    """A token that is searched in the text before the text is split into words.

    Attributes:
        content: the token.
        normalized: search it in the text after lower-casing and stripping of accents, otherwise in the text as it is.
        single_word: find it only where no letter, digit or underscore stands next to it.
    """

    content: str
    normalized: bool = False
    single_word: bool = False


@dataclass(frozen=True)
class TokenizerSettings:
    """How a model's texts are split, apart from its vocabulary. The defaults are those of Google's BERT.

    Attributes:
        do_lower_case: lower-case the text. None: not known, which counts as True.
        strip_accents: remove accents (characters of the category Mn, after canonical decomposition). None: as `do_lower_case`.
        tokenize_chinese_chars: each CJK character is a word.
        max_word_chars: a longer word is [UNK]. Google's code has 200, transformers 100.
        added_tokens: tuple of `AddedToken`.
    """

    do_lower_case: Optional[bool] = None
    strip_accents: Optional[bool] = None
    tokenize_chinese_chars: bool = True
    max_word_chars: int = _MAX_WORD_CHARS
    added_tokens: Tuple[AddedToken, ...] = ()

    @property
    def lowers(self) -> bool:
        return self.do_lower_case is not False

    @property
    def strips(self) -> bool:
        return self.lowers if self.strip_accents is None else self.strip_accents

    def to_dict(self) -> dict:
        """The settings as a dict for JSON; `from_dict` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> "TokenizerSettings":
        """The settings of `to_dict`. Missing keys have their defaults, other keys are ignored.

        Args:
            values: parsed JSON.
            source: path of the file, for the message.

        Raises:
            UserError: a value has the wrong type.
        """

        def check(fits: bool, key: str, value: Any) -> None:
            if not fits:
                raise UserError(f"{source}: {key} is {value!r:.60}, which a tokenizer cannot have")

        check(isinstance(values, dict), "the content", values)
        found = {}
        for key, nothing in (("do_lower_case", True), ("strip_accents", True), ("tokenize_chinese_chars", False)):
            found[key] = values.get(key, getattr(cls, key))
            check(isinstance(found[key], bool) or (nothing and found[key] is None), key, found[key])
        longest = values.get("max_word_chars", cls.max_word_chars)
        check(isinstance(longest, int) and not isinstance(longest, bool) and 1 <= longest <= 10**6, "max_word_chars", longest)
        listed = values.get("added_tokens", ())
        check(isinstance(listed, (list, tuple)), "added_tokens", listed)
        added = []
        for entry in listed:
            check(isinstance(entry, dict) and isinstance(entry.get("content"), str), "added_tokens", entry)
            token = AddedToken(entry["content"], entry.get("normalized", False), entry.get("single_word", False))
            check(isinstance(token.normalized, bool) and isinstance(token.single_word, bool), "added_tokens", entry)
            check(len(token.content.split()) == 1 and token.content.strip() == token.content, "added_tokens", entry)
            added.append(token)
        return cls(max_word_chars=longest, added_tokens=tuple(added), **found)
