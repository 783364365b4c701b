"""Context tokens found by double occlusion: what moves a vanilla model whether or not it sees the other side of the post.

    D(w) = f(t, v*) - f(t without w, v*)                        works without the image: shortcut-like
    I(w) = [f(t, v) - f(t without w, v)] - D(w)                 needs the image: mediator-like
    core(w) = |I| / (|I| + |D| + eps)

f: `vanilla.Vanilla`, v*: the mean image, |.|: largest size over classes. A single post says little about a token, and a forward pass for each token of each
post would cost hours, so D and I are taken per token *type* (a token key in MIN_POSTS train posts or more; rarer surface tokens together, by kind), over
at most OCCURRENCES train posts that hold it, from which all its tokens are removed at once. Over these D is averaged with its sign, for a shortcut pushes
everywhere the same way; I is averaged in size, for what the image decides has no sign of its own.

Asked about are words and punctuation marks with a lexicon |z| over editor.z, and surface tokens with half of that: what the labels do not know cannot be a
shortcut, and f has accidents of its own. A type is context when

    core(w) < CORE    and    |D| > DIRECT (words: WORD_BAR times that)    and    |D| > SURE standard errors of its mean

Negations and sentiment words (`lexicon.GUARDED`), as hashtags too, never are. Where text alone is meant to carry the label (sentiment), a direct effect is
no sign of a shortcut, and only the bars for words keep the rule from taking the answer for one. The reduced texts are encoded in batches of one length, each
distinct text once, and stay in the feature store. Where the edited side is a list of attribute words, t and v change places.
Letters: N posts, n occurrences, C classes, Dt and Dv feature widths.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causalroute import layout
from causalroute.config import Editor
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text.found import Marks, Side
from causalroute.counterfactual.text.lexicon import GUARDED, Lexicon, keys_per_post, log_odds
from causalroute.counterfactual.tokens import SURFACE, Token, render
from causalroute.counterfactual.views import TextInput
from causalroute.errors import UserError
from causalroute.rng import generator

MIN_POSTS = 8
"""Train posts that a type must occur in; a mean over fewer says nothing."""
OCCURRENCES = 32
"""Train posts that a type is removed from, at most: what the cost grows with."""
POOLED = 4
"""Times as many for a pool of rare tokens, which are as many different tokens."""
FOLDS = 4
"""Cross-fitting folds of f."""
LOW = 0.5
"""The bar on |z| for surface tokens, in editor.z."""
CORE, DIRECT, WORD_BAR, SURE, EPS = 0.5, 0.3, 3.0, 4.0, 1e-6
"""Bars of the module rule; DIRECT is in units of centred logits."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """What removing one token type does, over its sampled occurrences."""

    kind: str
    """of its tokens"""
    direct: float
    """|D|: largest size over classes of the mean"""
    error: float
    """standard error of that mean"""
    need: float
    """|I|: mean over occurrences of the largest size over classes"""

    @property
    def core(self) -> float:
        """core(w) of the module equation, in [0, 1]."""
        return self.need / (self.need + self.direct + EPS)

    @property
    def context(self) -> bool:
        """Whether the rule calls the type context (the guard apart)."""
        bar = DIRECT if self.kind in SURFACE else WORD_BAR * DIRECT
        return self.core < CORE and self.direct > max(bar, SURE * self.error)


def mark(posts: Posts, editor: Editor, sources: Sources, side: Side = "text") -> Marks:
    """True for each context token of each post.

    Args:
        posts: N posts; labels of the train split are read, no others.
        editor: its seed decides which occurrences are looked at.
        sources: needs `backbone` and `features`.
        side: which side of the posts their texts are.

    Raises:
        UserError: no backbone, no features, or no other side that a token could need.
    """
    context = {name for name, effect in effects(posts, editor, sources, side).items() if effect.context}
    keys = frozenset(key for key, name in types(posts).items() if name in context)
    return Lexicon(keys, frozenset()).mark(posts.tokens)


def effects(posts: Posts, editor: Editor, sources: Sources, side: Side = "text") -> dict[str, Effect]:
    """Effects of every candidate type; arguments and errors as in `mark`."""
    if sources.backbone is None or sources.features is None:
        raise UserError("the text editor 'occlusion' needs a backbone and its factual features", where="editors: text", fix="pass --backbone")
    own, other = sources.features(posts.ids) if side == "text" else sources.features(posts.ids)[::-1]
    if (other == other[:1]).all():
        fix = "use 'surface' or 'lexicon' on posts without images"
        raise UserError("the text editor 'occlusion' asks what a token needs the other side for, and there is none", where="editors: text", fix=fix)
    known = types(posts)
    jobs = [(name, row) for name, rows in candidates(posts, known, editor.z).items() for row in _sample(rows, editor.seed, name)]
    if not jobs:
        return {}
    reduced = [without(posts.texts[row], posts.tokens[row], name, known) for name, row in jobs]
    rows = np.array([row for _, row in jobs], dtype=int)
    direct, need = _cross_fitted(posts, own, other, rows, _encode(reduced, sources), editor.seed)
    return _by_type([name for name, _ in jobs], direct, need, posts)


def _cross_fitted(
    posts: Posts, own: NDArray[np.float32], other: NDArray[np.float32], rows: NDArray[np.int64], after: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """D and I of n occurrences, (n, C) each, by models that were not trained on the post that an occurrence is from: f knows its own posts by heart."""
    from causalroute.counterfactual.text import vanilla

    fold = generator(seed, "occlusion folds").permutation(len(posts.ids)) % FOLDS
    direct, need = (np.zeros((len(rows), posts.classes)) for _ in range(2))
    for number in range(FOLDS):
        f = vanilla.train(dataclasses.replace(posts, train=posts.train & (fold != number)), own, other, seed)
        at = fold[rows] == number
        before, beside = own[rows[at]], other[rows[at]]
        direct[at] = f.score(before, None) - f.score(after[at], None)
        need[at] = f.score(before, beside) - f.score(after[at], beside) - direct[at]
    return direct, need


def types(posts: Posts) -> dict[str, str]:
    """Token key -> its type: itself, or the pool of its kind's rare tokens; keys that are guarded, and rare words, have none."""
    counts = Counter(key for keys, train in zip(keys_per_post(posts), posts.train, strict=True) if train for key in keys)
    found = {}
    for token in (token for tokens in posts.tokens for token in tokens):
        if token.key not in found and token.key.lstrip("#") not in GUARDED and (counts[token.key] >= MIN_POSTS or token.kind in SURFACE):
            found[token.key] = token.key if counts[token.key] >= MIN_POSTS else _pool(token.kind)
    return found


def _pool(kind: str) -> str:
    """Name of the type of a kind's rare tokens: no token key holds a space."""
    return f"rare {kind}"


def candidates(posts: Posts, known: dict[str, str], bar: float) -> dict[str, list[int]]:
    """Train posts that hold each type worth a look, in order.

    Args:
        posts: N posts.
        known: `types` of them.
        bar: editor.z.
    """
    names = [{known[token.key] for token in tokens if token.key in known} for tokens in posts.tokens]
    z, kinds = log_odds(names, posts), _kinds(posts)
    holders: dict[str, list[int]] = defaultdict(list)
    for row in np.flatnonzero(posts.train):
        for name in names[row]:
            holders[name].append(int(row))
    return {name: rows for name, rows in sorted(holders.items()) if len(rows) >= MIN_POSTS and abs(z[name]) > (LOW * bar if kinds[name] in SURFACE else bar)}


def _kinds(posts: Posts) -> dict[str, str]:
    """Kind of each type."""
    return {token.key: str(token.kind) for tokens in posts.tokens for token in tokens} | {_pool(kind): kind for kind in SURFACE}


def _sample(rows: Sequence[int], seed: int, name: str) -> list[int]:
    """Some of the train posts of a type, drawn by a substream of its name."""
    most = OCCURRENCES * (POOLED if name in map(_pool, SURFACE) else 1)
    if len(rows) <= most:
        return list(rows)
    return sorted(generator(seed, "occlusion", name).choice(rows, most, replace=False).tolist())


def without(text: str, tokens: Sequence[Token], name: str, known: dict[str, str]) -> str:
    """The text without its tokens of type `name`."""
    return render(text, tokens, [None if known.get(token.key) == name else text[token.start : token.end] for token in tokens])


def _encode(texts: list[str], sources: Sources) -> NDArray[np.float32]:
    """Pooled features (n, D) of the texts, from the feature store where they are there."""
    from causalroute.features.backbone import load_backbone
    from causalroute.features.encode import encode_views
    from causalroute.features.store import Store

    if sources.backbone is None:
        raise UserError("the text editor 'occlusion' needs a backbone", where="editors: text", fix="pass --backbone")
    backbone = load_backbone(*sources.backbone)
    store = Store(layout.feature_store(), backbone.key)
    return encode_views(backbone, [TextInput(text) for text in texts], Path(), store, sources.threads).float().numpy()


def _by_type(names: list[str], direct: NDArray[np.float64], need: NDArray[np.float64], posts: Posts) -> dict[str, Effect]:
    """Effects of each type from those of its occurrences, (n, C) each."""
    kinds = _kinds(posts)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        groups[name].append(place)
    found = {}
    for name, places in groups.items():
        mean = direct[places].mean(axis=0)
        best = int(np.abs(mean).argmax())
        error = direct[places, best].std(ddof=1) / len(places) ** 0.5
        found[name] = Effect(kinds[name], float(abs(mean[best])), float(error), float(np.abs(need[places]).max(axis=1).mean()))
    return found
