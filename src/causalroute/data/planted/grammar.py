"""Sentences of the planted benchmark: templates x nouns x polar adjectives, and neutral hashtags.

The one polar adjective is the core a in {+1, -1} of a post's text; the set of its hashtags is its cue. Every other word is a distractor drawn
independently of both. Words are plain lower case, so that a word is a token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES: dict[int, tuple[str, ...]] = {
    +1: _words(
        "wonderful great lovely brilliant fantastic delightful amazing superb perfect charming cheerful excellent glorious splendid "
        "joyful marvellous adorable blissful radiant sublime heavenly stellar dazzling terrific"
    ),
    -1: _words(
        "awful terrible horrible dreadful miserable dismal rotten nasty pathetic gloomy hideous lousy ghastly appalling "
        "tragic wretched abysmal bleak grim vile atrocious woeful dire shoddy"
    ),
}
"""Polar words by polarity, from frequent to rare."""

HASHTAGS: tuple[tuple[str, ...], ...] = (
    ("#monday", "#kitchen", "#notes", "#citylife"),
    ("#photo", "#garden", "#commute", "#paper"),
    ("#window", "#radio", "#market", "#thursday"),
)
"""Neutral hashtags: set c is the cue of class c."""

SLOTS: dict[str, tuple[str, ...]] = {
    "noun": _words(
        "bus phone printer sandwich meeting weather laptop haircut landlord homework train lunch camera bicycle neighbour dentist concert "
        "package recipe elevator museum wifi keyboard jacket umbrella parade roommate aquarium lecture garage"
    ),
    "place": ("work", "school", "the office", "the station", "the beach", "the library", "town", "the airport", "the gym", "the clinic"),
    "time": ("today", "tonight", "this morning", "again", "after lunch", "all week", "before noon", "right now", "last night", "on sunday"),
    "kind": ("new", "old", "second", "wooden", "blue", "small", "usual", "long", "loud", "quiet", "round", "local"),
    "degree": ("so", "really", "quite", "simply", "just", "truly", "rather", "pretty", "very", "totally"),
    "who": ("my sister", "my boss", "the driver", "our teacher", "a friend", "my cousin", "the manager", "the guy next door"),
}
"""Distractors by slot."""

TEMPLATES: tuple[str, ...] = (
    "{time} the {kind} {noun} at {place} was {degree} {adj}",
    "my {noun} is {degree} {adj} {time}",
    "{who} says the {noun} looks {adj} {time}",
    "{degree} {adj} {noun} at {place} {time}",
    "another {adj} {noun} from {who}",
    "i must say this {kind} {noun} is {degree} {adj}",
    "went to {place} with {who} and the {noun} was {adj}",
    "guess what , the {noun} at {place} turned out {degree} {adj}",
    "{who} brought the {kind} {noun} to {place} , {degree} {adj}",
    "this {adj} {noun} made it to {place} {time}",
    "found {who} and a {kind} {noun} {time} , how {adj}",
    "here we go , {adj} {noun} number two at {place}",
    "that was one {degree} {adj} {noun} , {who} said",
    "the {noun} , the {kind} {noun} and {who} : {degree} {adj}",
    "waiting at {place} for the {adj} {kind} {noun}",
    "{adj} , {degree} {adj} , says {who} about the {noun}",
)
"""Sentence frames; the polar word stands wherever `{adj}` does."""

HASHTAG_FIRST = 0.3
"""Share of posts that open with their hashtags instead of closing with them."""

HASHTAGS_PER_POST = 2
"""Different hashtags of one set."""

Span = tuple[int, int]


class Post(NamedTuple):
    """A sentence with the places of its core and cue words as half-open character ranges."""

    text: str
    core: list[Span]
    cue: list[Span]


@dataclass(frozen=True)
class Sentence:
    """A sentence without hashtag."""

    text: str
    core: list[Span]


def zipf(count: int, exponent: float) -> np.ndarray:
    """Probabilities (count,) that fall as rank ** -exponent."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One option, uniformly."""
    return options[int(rng.integers(len(options)))]


def adjective(rng: np.random.Generator, polarity: int, exponent: float = 0.5) -> str:
    """A polar word; the first of the list are the frequent ones."""
    words = ADJECTIVES[polarity]
    return words[int(rng.choice(len(words), p=zipf(len(words), exponent)))]


def sentence(rng: np.random.Generator, polarity: int) -> Sentence:
    """A sentence whose polar words all have the given polarity."""
    text, core = "", []
    for part in re.split(r"(\{\w+\})", choose(rng, TEMPLATES)):
        if part == "{adj}":
            word = adjective(rng, polarity)
            core.append((len(text), len(text) + len(word)))
        else:
            word = choose(rng, SLOTS[part[1:-1]]) if part.startswith("{") else part
        text += word
    return Sentence(text, core)


def with_hashtags(body: Sentence, hashtags: Sequence[str], first: bool) -> Post:
    """The sentence with hashtags in front or behind."""
    tail = " ".join(hashtags)
    shift = len(tail) + 1 if first else 0
    start = 0 if first else len(body.text) + 1
    cue = []
    for hashtag in hashtags:
        cue.append((start, start + len(hashtag)))
        start += len(hashtag) + 1
    text = f"{tail} {body.text}" if first else f"{body.text} {tail}"
    return Post(text, [(a + shift, b + shift) for a, b in body.core], cue)


def hashtags(rng: np.random.Generator, cue: int, count: int = HASHTAGS_PER_POST) -> list[str]:
    """Different hashtags of set `cue`."""
    return [HASHTAGS[cue][int(index)] for index in rng.permutation(len(HASHTAGS[cue]))[:count]]


def post(rng: np.random.Generator, polarity: int, cue: int) -> Post:
    """A post with core `polarity` and hashtags of set `cue`."""
    body = sentence(rng, polarity)
    return with_hashtags(body, hashtags(rng, cue), bool(rng.random() < HASHTAG_FIRST))


def signed(rng: np.random.Generator, post: Post, handle: str, first: float) -> Post:
    """The post with the handle in front (with probability `first`) or behind."""
    if rng.random() >= first:
        return Post(f"{post.text} {handle}", post.core, post.cue)
    shift = len(handle) + 1
    moved = [[(start + shift, end + shift) for start, end in spans] for spans in (post.core, post.cue)]
    return Post(f"{handle} {post.text}", moved[0], moved[1])


def words() -> list[str]:
    """Every token that `post` can produce, sorted."""
    texts = [*TEMPLATES, *(option for options in SLOTS.values() for option in options), *ADJECTIVES[1], *ADJECTIVES[-1]]
    found = {token for text in texts for token in re.findall(r"\w+|[^\w\s]", re.sub(r"\{\w+\}", " ", text))}
    return sorted(found | {tag for tags in HASHTAGS for tag in tags})
