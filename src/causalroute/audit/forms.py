"""Surface forms: how a text is written, read off its characters.

Letters are counted on words alone (hashtags, mentions, links and emoji codes have cues of their own), so that one cue is not listed twice.
Scripts come from Unicode ranges: a script is not a language, but where languages differ in script it tells them apart without any model.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PATTERNS = {
    "has exclamation mark": r"!",
    "has question mark": r"\?",
    "has repeated mark": r"([!?])\s?\1",
    "has ellipsis": r"\.\s?\.\s?\.|…",
    "has colon or semicolon": r"[:;](?!//)",
    "has dash": r"(?<=\s)[-–—]+(?=\s)|[–—]",
    "has quotes": r"[\"“”„«»]|``|''",
    "has brackets": r"[()\[\]{}](?!\w+\])",
    "has line break": r"\n",
    "has markup": r"</?(?!(?:user|url|num|link|mask|number)\b)[a-zA-Z][^<>]{0,200}>|&(?:amp|lt|gt|quot|nbsp|#\d+);",
    "has invisible character": r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]",
    "has lengthened word": r"([^\W\d_])\1\1",
    "wrapped in quotes": r"(?s)\A\s*[\"'“”„«].*[\"'“”„»]\s*\Z",
    "starts as a retweet": r"(?i)\A\s*rt\b",
    "ends with a mark": r"[.!?…]\s*\Z",
}
"""Present/absent forms, each a regular expression that reads a text once."""
_COMPILED = {name: re.compile(pattern) for name, pattern in PATTERNS.items()}
CASES = ("all lower case", "all upper case", "title case", "has word in capitals")
SCRIPTS = (
    (0x41, "Latin"), (0x370, "Greek"), (0x400, "Cyrillic"), (0x530, "Armenian"), (0x590, "Hebrew"), (0x600, "Arabic"), (0x900, "Devanagari"),
    (0x980, "other"), (0xE00, "Thai"), (0xE80, "other"), (0x1100, "Hangul"), (0x1200, "other"), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, "other"),
    (0x2C60, "Latin"), (0x2C80, "other"), (0x3040, "Kana"), (0x3100, "other"), (0x3400, "Han"), (0xA000, "other"), (0xAC00, "Hangul"), (0xD7A4, "other"),
    (0xF900, "Han"), (0xFB00, "Latin"), (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, "other"), (0xFE70, "Arabic"), (0xFF00, "other"),
    (0xFF21, "Latin"), (0xFF66, "Kana"), (0xFFA0, "Hangul"), (0x10000, "other"), (0x20000, "Han"),
)  # fmt: skip
_STARTS = [start for start, _ in SCRIPTS]
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_ASIDE = re.compile(r"(?:https?://|www\.)\S+|[#@]\s?\w+|<\w+>|emoji_\d+|\[MASK\]", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
NUMBERS = ("tokens", "letters per word", "upper-case share", "marks per word")
"""tokens: length of the text; letters per word, share of upper-case letters, and punctuation characters per word"""


@lru_cache(maxsize=1 << 16)
def script_of(letter: str) -> str:
    """The script of a letter by its code point."""
    place = bisect_right(_STARTS, ord(letter)) - 1
    return SCRIPTS[place][1] if place >= 0 else "other"


def forms(text: str) -> tuple[set[str], tuple[float, float, float]]:
    """Names of the forms a text has, and NUMBERS but for the tokens; NaN where there is no word."""
    if not text.strip():
        return {"no text"}, (np.nan, np.nan, np.nan)
    unlinked = _LINK.sub(" ", text)
    found = {name for name, pattern in _COMPILED.items() if pattern.search(unlinked)}
    own = _ASIDE.sub(" ", text)
    words = _WORD.findall(own)
    letters = "".join(words)
    if not letters:
        return found, (np.nan, np.nan, np.nan)
    upper = sum(map(str.isupper, letters))
    cased = upper or letters.upper() != letters
    if cased:
        found |= _case(words, letters, upper)
    found.add(f"script {_script(letters)}")
    marks = sum(unicodedata.category(mark).startswith("P") for mark in own if not mark.isalnum() and not mark.isspace())
    return found, (len(letters) / len(words), upper / len(letters) if cased else np.nan, marks / len(words))


def _case(words: list[str], letters: str, upper: int) -> set[str]:
    found = {"all lower case"} if not upper else set()
    if upper == len(letters) and upper > 1:
        found.add("all upper case")
    elif len(words) > 2 and all(word[0].isupper() for word in words if len(word) > 3) and any(len(word) > 3 for word in words):
        found.add("title case")
    if any(len(word) > 2 and word.isupper() for word in words):
        found.add("has word in capitals")
    return found


def _script(letters: str) -> str:
    if letters.isascii():
        return "Latin"
    return min(Counter(map(script_of, letters)).items(), key=lambda item: (-item[1], item[0]))[0]


def read(texts: Sequence[str]) -> tuple[list[set[str]], NDArray[np.float64]]:
    """Forms of each text, and (n, 3) numbers: letters per word, share of upper case, marks per word."""
    found = [forms(text) for text in texts]
    return [names for names, _ in found], np.array([numbers for _, numbers in found], dtype=np.float64).reshape(len(texts), 3)
