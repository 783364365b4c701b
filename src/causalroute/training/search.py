"""Chooses a method's settings on validation posts: a few candidates on seeds of their own, and one judge for all methods.

    score(c) = mean over seeds s and parts k of acc_k(c, s)         k: posts as they are, text swapped, image swapped, both swapped

acc_k counts the validation posts whose swaps of that kind the data set's editor had accepted; every part weighs the same. The highest score wins; on a tie
the settings as they are, then the earlier candidate. A method that trains without counterfactuals is judged on them like any other, which is generous to it:
its settings are chosen for what plain validation would not show. Each candidate's epoch is still selected by the method's own rule (`training.loop`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from causalroute import io
from causalroute.config import Dataset
from causalroute.methods.base import Check, Method, Posts, Shape
from causalroute.training.checkpoint import Folder
from causalroute.training.data import TRAIN_VIEWS, Files, Standard, load_posts
from causalroute.training.job import Job, Seed, build, finish, shape_of

ROLES = {"train": "train", "valid": "valid"}


class Judge(Method):
    """Looks at the swaps of both sides, whatever the judged method was trained on."""

    sides = ("text", "image")


@dataclass(frozen=True)
class Trial:
    """One candidate: its values of the searched settings, and the accuracy of each part with each seed."""

    settings: Mapping[str, Any]
    accuracy: Mapping[str, list[float]]

    @property
    def score(self) -> float:
        """Mean over parts and seeds, rounded so that equal shares tie in whatever order they were added."""
        return round(fmean(value for part in self.accuracy.values() for value in part), 9)


def judged_posts(name: str, dataset: Dataset, standard: Standard) -> tuple[Posts, list[Path]]:
    """The validation posts of the data set with the swaps of its editor, standardised as in training; and the files they come from."""
    files = Files.of(name, dataset.backbone, dataset.editor)
    posts, _ = load_posts(files, ["valid"], dataset.classes, roles=ROLES, views=TRAIN_VIEWS, standard=standard)
    return posts, files.existing()


def trials(work: Job, candidates: Sequence[Mapping[str, Any]], posts: Posts, judged: Posts) -> list[Trial]:
    """Trains every candidate on every seed of `work` and judges it; what an earlier process finished is not trained again."""
    shape = shape_of(posts, work.train)
    checks = Judge(None, shape, torch.Generator()).checks(judged)
    found = []
    for number, candidate in enumerate(candidates):
        key = io.sha256_bytes(work.key.encode(), io.canonical_json(candidate).encode())
        trial = replace(work, settings={**work.settings, **candidate}, events=work.events / str(number), key=key)
        finished = finish(trial, posts, shape, Folder(work.out / str(number), key))
        found.append(Trial(candidate, _judge(trial, shape, finished, judged, checks)))
    return found


@torch.no_grad()
def _judge(trial: Job, shape: Shape, finished: Mapping[int, Seed], judged: Posts, checks: Sequence[Check]) -> dict[str, list[float]]:
    """Accuracy of each part, one value per seed."""
    labels = judged.labels[judged.valid]
    found: dict[str, list[float]] = {check.name: [] for check in checks}
    for seed, result in finished.items():
        method = build(trial.method, trial.settings, shape, seed)
        method.restore(result.tensors, result.meta["extra"])
        method.eval()
        for check in checks:
            right = (method.answer(check.inputs).p.argmax(1) == labels)[check.weights > 0]
            found[check.name].append(int(right.sum()) / len(right))
    return found


def best(found: Sequence[Trial]) -> Trial:
    """The highest score; the first of those that tie."""
    return max(found, key=lambda trial: trial.score)


def record(work: Job, found: Sequence[Trial]) -> dict[str, Any]:
    """What search.json holds."""
    listed = [{"settings": dict(trial.settings), "accuracy": dict(trial.accuracy), "score": trial.score} for trial in found]
    budget = {"seeds": list(work.seeds), "train": asdict(work.train)}
    return {"method": work.method, "settings": dict(work.settings), **budget, "candidates": listed, "chosen": dict(best(found).settings)}


def forget(work: Job) -> None:
    """Removes the trained candidates."""
    shutil.rmtree(work.out, ignore_errors=True)
