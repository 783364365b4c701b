"""The gate: may swaps of an editor be trained on? One verdict for each side of a post, from train and validation labels alone.

    detectability  AUC of a linear probe (and of a bag of words) that tells swaps from real inputs      fails above gate.max_auc
    cue left       skill(t_swap) / skill(t) of a linear probe fitted on real t alone                    fails above gate.max_cue_left
    label kept     skill(swaps) / skill(real posts), skill = mean accuracy over cells - 1 / C           fails below gate.min_label_kept
    flips          share that a bag of words reads as another class                                     fails below gate.min_flipped

Why cells. A probe that rests on the shortcut rejects good swaps (their cue speaks for another class) and accepts bad ones (a donor's cue speaks against
the donor's class, so the label can be read off it backwards). Posts are therefore sorted by label x "the text alone tells this label" x "the image alone
does", and every cell counts alike: what a cue says, straight or backwards, is then worth nothing, and only what the core says is left. The probe
of a side is trained with each post's side drawn from {real, swap}, the other side real, cells weighted alike as far as they hold posts.

A measure fails a side only when its whole 95 % interval is beyond the bar; one that cannot be taken, or leaves it open whether
swaps keep their label, is told under `undecided` and fails nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalroute.config import Gate
from causalroute.counterfactual import probes
from causalroute.counterfactual.fusion import Fusion
from causalroute.counterfactual.judged import LETTER, Judged
from causalroute.counterfactual.probes import Floats, Interval, Rows

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
HEAVIEST = 10.0
"""How much more often than others a post of a rare cell is drawn, at most."""
MARGIN = 0.02
"""A probe this little above chance has nothing to lose."""
SIDES = ("text", "image")


@dataclass
class _Side:
    """Findings on one side."""

    measures: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    kept: bool = False
    """the label is known to be kept"""

    def done(self) -> dict[str, Any]:
        """The verdict first."""
        verdict = "failed" if self.reasons else "passed" if self.kept else "undecided"
        return {"passed": not self.reasons, "verdict": verdict, "reasons": self.reasons, "undecided": self.undecided, **self.measures}


def gate(posts: Judged, settings: Gate) -> dict[str, Any]:
    """Verdicts on one editor.

    Returns:
        {"items": n, "chance": 1 / C, "text": side, "image": side}; a side has `passed`, `verdict` (passed, failed or undecided), `reasons`, `undecided`
        (sentences) and its measures, intervals as {"value", "low", "high"}.
    """
    alone = {side: _alone(posts, side) for side in SIDES}
    reference = _Reference(posts, alone, settings)
    found = {side: _judge(posts, side, alone[side], reference, settings).done() for side in SIDES}
    return {"items": posts.rows.height, "chance": 1 / posts.classes, **found}


def _judge(posts: Judged, side: str, alone: Mapping[str, Rows], reference: _Reference, settings: Gate) -> _Side:
    out, usable = _Side(), posts.usable(side)
    out.measures |= _shares(posts, side) | {"leakage": {view: probes.balanced(read == posts.labels, posts.labels) for view, read in alone.items()}}
    if side == "text":
        _flips(out, posts, settings)
    if side == "image" and posts.visual == "none":
        out.undecided.append("there is no visual side")
    elif usable.sum() < settings.min_posts:
        out.undecided.append(f"{int(usable.sum())} posts have a usable swap, {settings.min_posts} are needed (gate.min_posts)")
    else:
        _detectability(out, posts, side, settings)
        _cue_left(out, posts, side, alone, settings)
        _label_kept(out, side, reference, settings)
    return out


def _shares(posts: Judged, side: str) -> dict[str, Any]:
    """(a) How much is usable and how much is changed."""
    usable = posts.usable(side)
    found: dict[str, Any] = {"usable": probes.wilson(int(usable.sum()), len(usable)), "swapped": int(usable.sum())}
    for name in ("mask_ratio", "edit_distance"):
        column = f"{side}_{name}"
        values = posts.rows[column].drop_nulls().to_numpy() if column in posts.rows.columns else np.zeros(0)
        found[name] = {f"p{round(100 * q)}": float(np.quantile(values, q)) for q in QUANTILES} if len(values) else None
    return found


def _alone(posts: Judged, side: str) -> dict[str, Rows]:
    """(c) Classes that each view of a side tells alone; `swap` by the probe fitted on real inputs."""
    letter = LETTER[side]
    real, swap = posts.views[letter], posts.views[f"{letter}_swap"][:, 0]
    found = dict(zip((letter, "swap"), probes.read_classes(real, [swap], posts.labels, posts.fold, posts.classes), strict=True))
    for view in (f"{letter}_s", f"{letter}_c"):
        found[view] = probes.read_classes(posts.views[view], [], posts.labels, posts.fold, posts.classes)[0]
    return found


def _detectability(out: _Side, posts: Judged, side: str, settings: Gate) -> None:
    """(b) Told from real inputs by their features, and texts by their words."""
    usable, letter = posts.usable(side), LETTER[side]
    real, swap = posts.views[letter][usable], posts.views[f"{letter}_swap"][usable, 0]
    found = {"detectability": probes.told_apart(real, swap, posts.fold[usable])}
    columns = {"text": ("text", "t_swap"), "image": ("attributes", "attr_swap")}[side]
    if side == "text" or posts.visual == "attributes":
        before, after = (list(np.array(posts.words(column), dtype=object)[usable]) for column in columns)
        found["detectability_words"] = probes.words_apart(before, after, posts.fold[usable])
    out.measures |= found
    for name, interval in found.items():
        if interval["low"] > settings.max_auc:
            what = "their words" if name.endswith("words") else "their features"
            out.reasons.append(f"swaps are told from real posts by {what}: AUC {_shown(interval)}, bar {settings.max_auc:g} (gate.max_auc)")


def _cue_left(out: _Side, posts: Judged, side: str, alone: Mapping[str, Rows], settings: Gate) -> None:
    """(d) Does what this side alone tells about the label change?"""
    usable = posts.usable(side)
    labels = posts.labels[usable]
    weights = probes.resamples(len(labels), settings.seed)
    real, swap = (probes.over_cells(alone[view][usable] == labels, labels, weights) for view in (LETTER[side], "swap"))
    chance = 1 / posts.classes
    if probes.spread(real)["low"] < chance + MARGIN:
        out.undecided.append("cue left: this side alone tells nothing about the label that a swap could change")
        return
    left = probes.skill_ratio(swap, real, chance)
    out.measures["cue_left"] = left
    if left["low"] > settings.max_cue_left:
        out.reasons.append(
            f"swaps change nothing: {_percent(left)} of what this side alone tells is left, bar {_bar(settings.max_cue_left)} (gate.max_cue_left)"
        )


class _Reference:
    """Cells of all posts, and what real posts tell when no cue helps."""

    def __init__(self, posts: Judged, alone: Mapping[str, Mapping[str, Rows]], settings: Gate) -> None:
        self.posts, self.settings = posts, settings
        self.real = {side: (alone[side][LETTER[side]] == posts.labels).astype(np.int64) for side in SIDES}
        self.swapped = {side: (alone[side]["swap"] == posts.labels).astype(np.int64) for side in SIDES}
        self.right = self.fitted(None)["real"]

    def cells(self, text: Rows, image: Rows) -> Rows:
        """Number of the cell of each post: label x text tells it x image tells it."""
        return self.posts.labels * 9 + text * 3 + image

    def fitted(self, side: str | None) -> dict[str, NDArray[np.bool_]]:
        """Held-out posts read rightly by the probe trained on real posts and swaps of `side` (None: real posts alone), real and swapped: (n,)."""
        posts = self.posts
        versions = {one: posts.versions(one)[:, : None if one == side else 1] for one in SIDES}
        # Swaps even out the cue of their own side; where a post has none its cells do, or the cue would pay in training.
        told = {one: np.where(posts.usable(one), 2, self.real[one]) if one == side else self.real[one] for one in SIDES}
        weight = _even(posts.labels, self.cells(told["text"], told["image"]))
        right = {name: np.zeros(len(posts.labels), dtype=bool) for name in ("real", "swap")}
        for held_out in np.unique(posts.fold):
            out = posts.fold == held_out
            shown = versions["text"][~out], versions["image"][~out]
            probe = Fusion(posts.classes, self.settings.seed).fit(*shown, posts.labels[~out], weight[~out])
            for name, answers in right.items():
                text, image = (versions[one][out, int(name == "swap" and one == side)] for one in SIDES)
                answers[out] = probe.read(text, image).argmax(axis=1) == posts.labels[out]
        return right


def _even(labels: Rows, cells: Rows) -> Floats:
    """Weights (n,) under which classes, and within a class its cells, count alike, no post more than HEAVIEST times its class's mean."""
    size, own = np.bincount(cells)[cells], np.bincount(labels)[labels]
    held = np.array([len(np.unique(cells[labels == label])) for label in range(int(labels.max()) + 1)])[labels]
    return np.asarray(np.minimum(own / (size * held), HEAVIEST) / own)


def _label_kept(out: _Side, side: str, reference: _Reference, settings: Gate) -> None:
    """(d) Can the label still be read, cues aside?"""
    posts = reference.posts
    usable = posts.usable(side)
    read = reference.fitted(side)
    weights = probes.resamples(int(usable.sum()), settings.seed)

    def skill(right: NDArray[np.bool_], swapped: bool) -> Floats:
        told = {one: (reference.swapped if swapped and one == side else reference.real)[one] for one in SIDES}
        return probes.over_cells(right[usable], reference.cells(told["text"], told["image"])[usable], weights)

    chance, real, swap = 1 / posts.classes, skill(reference.right, False), skill(read["swap"], True)
    out.measures |= {"real_read": probes.spread(real), "swaps_read": probes.spread(swap)}
    if probes.spread(real)["low"] < chance + MARGIN:
        out.undecided.append("label kept: cues aside, not even real posts tell their label to the probe")
        return
    kept = out.measures["label_kept"] = probes.skill_ratio(swap, real, chance)
    told = f"{_percent(kept)} of what real posts tell is left, bar {_bar(settings.min_label_kept)} (gate.min_label_kept)"
    out.kept = kept["value"] >= settings.min_label_kept
    if kept["high"] < settings.min_label_kept:
        out.reasons.append(f"swaps lose the label: {told}")
    elif not out.kept:
        out.undecided.append(f"label kept: too few posts with conflicting cues to tell; {told}")


def _flips(out: _Side, posts: Judged, settings: Gate) -> None:
    """(e) Texts made to carry another label; judged on their own, for swaps do not depend on them."""
    if "t_flip" not in posts.rows.columns:
        return
    has = posts.rows["t_flip"].is_not_null().to_numpy()
    if has.sum() < settings.min_posts:
        if has.any():
            out.measures["flip"] = {"passed": True, "verdict": "undecided", "reasons": [], "items": int(has.sum())}
        return
    real, flipped = np.array(posts.words("text"), dtype=object), np.array(posts.words("t_flip"), dtype=object)
    other = np.zeros((2, len(has)), dtype=bool)
    for held_out in np.unique(posts.fold):
        fold = posts.fold == held_out
        for at, texts in enumerate((real, flipped)):
            other[at, fold] = probes.words_read(real[~fold].tolist(), posts.labels[~fold], texts[fold].tolist()) != posts.labels[fold]
    before, after = (probes.wilson(int(row[has].sum()), int(has.sum())) for row in other)
    found = probes.words_apart(real[has].tolist(), flipped[has].tolist(), posts.fold[has])
    reasons = []
    if after["high"] < settings.min_flipped:
        reasons.append(f"{_percent(after)} of the flips read as another class, bar {_bar(settings.min_flipped)} (gate.min_flipped)")
    if found["low"] > settings.max_auc:
        reasons.append(f"flips are told from real posts by their words: AUC {_shown(found)}, bar {settings.max_auc:g} (gate.max_auc)")
    verdict = "failed" if reasons else "passed"
    measures = {"read_as_other": after, "read_as_other_real": before, "detectability_words": found, "items": int(has.sum())}
    out.measures["flip"] = {"passed": not reasons, "verdict": verdict, "reasons": reasons, **measures}


def _shown(interval: Interval) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _percent(interval: Interval) -> str:
    return f"{100 * interval['value']:.0f} % [{100 * interval['low']:.0f}, {100 * interval['high']:.0f}]"


def _bar(share: float) -> str:
    return f"{100 * share:.0f} %"


def failures(found: Mapping[str, Any]) -> list[str]:
    """One sentence for each reason that a side of an editor failed for."""
    return [f"{side}: {reason}" for side in SIDES for reason in found[side]["reasons"]]
