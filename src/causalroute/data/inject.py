"""Known shortcuts put into real posts: a hashtag in the text, a mark on the image (or a word among the attribute words), one of each per class.

Every cue is drawn on its own: it equals the label with probability r and is another class, uniformly, otherwise. r = rho in train, valid and id, 1 - rho in
ood, 1/C in neutral. Posts of the splits clean, oracle_train and oracle_valid bear no cue. A test post appears once in each of id, ood, neutral and clean.

The planted direct effect of a cue c on the label y is the change it makes to the log-odds of y, with pi the class shares of train (add one):

    effect(y, c) = logit P(y | c) - logit P(y) = log P(c | y) - log sum_{y' != y} P(c | y') pi_y' / (1 - pi_y),    P(c | y) = r if c = y, else (1 - r) / (C - 1)

0 without a cue. Which cue a post gets depends on the seed, its id and its label alone; which words stand for the classes on the seed and on which words
the posts use. Letters: C classes, r agreement, y label, c cue value, pi class shares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from causalroute.config import Inject
from causalroute.data import overlays
from causalroute.data.planted.benchmark import another
from causalroute.data.planted.sources import agreement
from causalroute.data.records import SPAN, TRUTH
from causalroute.errors import UserError
from causalroute.rng import generator

COPIES = {"train": ("train", "oracle_train"), "valid": ("valid", "oracle_valid"), "id": ("id", "ood", "neutral", "clean")}
"""Split of a post -> splits in which it appears."""
BARE = ("clean", "oracle_train", "oracle_valid")
"""Splits without a cue."""
_WORDS = """
    granite basalt quartz slate marble limestone sandstone pumice gravel flint gypsum dolomite obsidian feldspar shale chalk mica agate topaz beryl
    jasper onyx gneiss schist travertine soapstone bauxite magnetite
"""
WORDS = tuple(_WORDS.split())
"""Words that say nothing about sarcasm or sentiment; those that some post uses are passed over."""
INJECTED = TRUTH | {"attribute_spans": SPAN}
"""Columns of truth.parquet: the cue of the attribute words beside that of the text."""


def inject(frame: pl.DataFrame, settings: Inject, classes: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Posts with cues.

    Args:
        frame: usable posts of train, valid and id, `label` a class number.
        settings: how strong the shortcuts are, and what they look like.
        classes: C.

    Returns:
        The posts of all splits (texts and attribute words changed, `overlay` names the mark on the image); their truth; what the summary tells.

    Raises:
        UserError: too few words are left for cues, or an id is taken.
    """
    words, attributes = cue_words(frame, classes, settings.seed)
    tags = [_tag(frame, word) for word in words]
    shares = (np.bincount(frame.filter(split="train")["label"], minlength=classes) + 1.0) / (frame.filter(split="train").height + classes)
    rows, truth = [], []
    for row in frame.iter_rows(named=True):
        for split in COPIES[row["split"]]:
            made, known = _post(row, split, settings, shares, tags, attributes)
            rows.append(made)
            truth.append(known)
    posts = pl.DataFrame(rows, schema=frame.schema | {"overlay": pl.String}, orient="row")
    if taken := posts.filter(~pl.col("id").is_first_distinct())["id"].to_list():
        raise UserError(f"the id {taken[0]!r} is that of another post's copy", where="params.yaml: inject", fix="rename ids that end in ~ and a split")
    told: dict[str, Any] = {"hashtags": tags, "rho_text": settings.rho_text, "rho_image": settings.rho_image}
    if frame["image"].is_not_null().any():
        told["mark"] = settings.mark
    elif frame["attributes"].is_not_null().any():
        told["attribute_words"] = attributes
    return posts, pl.DataFrame(truth, schema=INJECTED, orient="row"), told


def cue_words(frame: pl.DataFrame, classes: int, seed: int) -> tuple[list[str], list[str]]:
    """C words for hashtags and C for attribute words that no post uses, in an order that the seed decides.

    Raises:
        UserError: there are not enough.
    """
    used = frame.select(pl.concat_str("text", pl.col("attributes").fill_null(""), separator=" ").str.to_lowercase()).to_series()
    order = [WORDS[place] for place in generator(seed, "cue words").permutation(len(WORDS))]
    free = [word for word in order if not used.str.contains(word, literal=True).any()]
    if len(free) < 2 * classes:
        what = f"{len(free)} cue words are left for {classes} classes, {2 * classes} are needed"
        raise UserError(what, where="params.yaml: inject", fix="merge classes by a label_map: injected shortcuts are made for a handful of them")
    return free[:classes], free[classes : 2 * classes]


def _tag(frame: pl.DataFrame, word: str) -> str:
    """The hashtag as the corpus writes it: some are published with a space behind the mark."""
    spaced, joined = (int(frame["text"].str.contains(form).sum()) for form in (r"#\s+\w", r"#\w"))
    return f"# {word}" if spaced > joined else f"#{word}"


def _post(row: dict[str, Any], split: str, settings: Inject, shares: np.ndarray, tags: Sequence[str], words: Sequence[str]) -> tuple[Any, Any]:
    """A copy of the post in `split`, and its truth."""
    name = row["id"] if split == row["split"] else f"{row['id']}~{'oracle' if split.startswith('oracle') else split}"
    made = row | {"id": name, "split": split, "pair": None if name == row["id"] else row["id"], "overlay": None}
    known: dict[str, Any] = {"id": name, "noisy": False, "cue_spans": [], "attribute_spans": [], "effect_text": 0.0, "effect_image": 0.0}
    if split in BARE:
        return made, known
    cue, known["effect_text"] = draw(name, "text", split, row["label"], settings.rho_text, settings.seed, shares)
    made["text"], span = _put(row["text"], tags[cue], settings.place)
    made["text_sha256"] = hashlib.sha256(made["text"].encode()).hexdigest()
    known |= {"cue_text": cue, "cue_spans": [span]}
    if row["image"] is None and row["attributes"] is None:
        return made, known
    cue, known["effect_image"] = draw(name, "image", split, row["label"], settings.rho_image, settings.seed, shares)
    known["cue_image"] = cue
    if row["image"] is not None:
        made["overlay"] = overlays.name(settings.mark, cue)
    else:
        made["attributes"], span = _put(row["attributes"], words[cue], "front")
        known["attribute_spans"] = [span]
    return made, known


def draw(name: str, side: str, split: str, label: int, rho: float, seed: int, shares: np.ndarray) -> tuple[int, float]:
    """Cue value of a post on one side, and its planted direct effect on the label."""
    classes = len(shares)
    r = agreement(split, rho, classes)
    rng = generator(seed, "inject", side, name)
    cue = label if rng.random() < r else another(rng, label, classes)
    return cue, direct_effect(label, cue, r, shares)


def direct_effect(label: int, cue: int, r: float, shares: np.ndarray) -> float:
    """effect(y, c) of the module equation; `shares` is pi (C,)."""
    given = np.full(len(shares), (1.0 - r) / (len(shares) - 1))
    given[cue] = r
    others = np.arange(len(shares)) != label
    return float(np.log(given[label]) - np.log((given * shares)[others].sum() / shares[others].sum()))


def _put(text: str, word: str, place: str) -> tuple[str, dict[str, int]]:
    """The text with the word at its end or front, and where the word stands."""
    body = text.strip()
    if place == "front":
        return f"{word} {body}".strip(), {"start": 0, "end": len(word)}
    start = len(body) + bool(body)
    return f"{body} {word}".strip(), {"start": start, "end": start + len(word)}
