"""Context tokens told by their form alone: nothing is fitted, so nothing can be mistaken for a shortcut that is none, and no label is read.

Marked are tokens of a surface kind (hashtags, mentions, numbers, links, emoji and emoji codes) and what only frames a text:

- quotation marks that come in pairs, and brackets that come in pairs (the words between them stay);
- what stands in a bracket of at most TEMPLATE_LENGTH tokens where each is a credit word (CREDITS) or of a surface kind: `[ video ]`, `(via @user)`;
- a retweet or credit template in front of a mention: `rt @user :`, `via @user`.

Content words are never marked. Where a hashtag is a word of the sentence ("so # tired of this"), the rule is wrong: the form cannot tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.tokens import SURFACE, Token

_WORDS = "via rt cc ft feat link photo photos pic pics picture video vid image gif source credit h/t"
CREDITS = frozenset(_WORDS.split())
"""Words that say where a text or picture comes from."""
TEMPLATE_LENGTH = 5
"""A longer bracket is a sentence."""
CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">", "“": "”", "«": "»", "‘": "’", '"': '"'}
"""Opening mark -> closing mark. The straight apostrophe is left out: it stands inside words far more often than around them."""


def mark(posts: Posts) -> list[NDArray[np.bool_]]:
    """True for each context token of each post."""
    return [mark_tokens(tokens) for tokens in posts.tokens]


def mark_tokens(tokens: Sequence[Token]) -> NDArray[np.bool_]:
    """True for each context token of one text."""
    found = np.fromiter((token.kind in SURFACE for token in tokens), dtype=bool, count=len(tokens))
    for opening, closing in pairs(tokens):
        found[[opening, closing]] = True
        inside = tokens[opening + 1 : closing]
        if len(inside) <= TEMPLATE_LENGTH and all(token.kind in SURFACE or token.key in CREDITS for token in inside):
            found[opening:closing] = True
    _credits(tokens, found)
    return found


def pairs(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Positions of opening and closing marks that belong together, by a stack: innermost first, an unpaired mark belongs to none."""
    waiting: list[tuple[int, str]] = []
    expected: Counter[str] = Counter()
    found: list[tuple[int, int]] = []
    for i, token in enumerate(tokens):
        if token.kind != "punctuation":
            continue
        if expected[token.key]:
            while True:  # unpaired marks inside are given up: each is popped once, so that the whole stays linear
                start, closing = waiting.pop()
                expected[closing] -= 1
                if closing == token.key:
                    break
            found.append((start, i))
        elif token.key in CLOSING:
            waiting.append((i, CLOSING[token.key]))
            expected[CLOSING[token.key]] += 1
    return found


def _credits(tokens: Sequence[Token], found: NDArray[np.bool_]) -> None:
    """`rt @user :` and `via @user`: the credit word in front of a mention, and the colon behind it, in place."""
    for i in range(len(tokens) - 1):
        if tokens[i].key in ("rt", "via", "cc", "h/t") and tokens[i + 1].kind == "mention":
            found[i] = True
            if i + 2 < len(tokens) and tokens[i + 2].key == ":":
                found[i + 2] = True
