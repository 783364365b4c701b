"""Trains one seed of one method: AdamW, cosine schedule, the best epoch by a rule that never sees a test split.

    accuracy of an epoch = mean over the method's checks of its weighted validation accuracy; ties go to the lower validation loss, then to the earlier epoch
    only epochs that end after `SELECT_FROM` of all steps can be chosen: before that, in-distribution validation may prefer a pure shortcut

Everything that the next step depends on is in `State`, so that a killed run continues to the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from causalroute.config import Train
from causalroute.errors import UserError
from causalroute.methods.base import Check, Method, Posts
from causalroute.model.losses import cross_entropy
from causalroute.model.optimizer import AdamW, cosine
from causalroute.rng import torch_generator
from causalroute.variants import stream_of

SELECT_FROM = 0.4
CHECKPOINT_SECONDS = 20.0

Row = dict[str, Any]


@dataclass
class Best:
    """The epoch chosen so far."""

    epoch: int = -1
    accuracy: float = -1.0
    loss: float = math.inf
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def better(self, accuracy: float, loss: float) -> bool:
        """Whether another epoch wins."""
        return (accuracy, -loss) > (self.accuracy, -self.loss)


@dataclass
class State:
    """A run between two epochs."""

    method: Method
    optimizer: AdamW
    generator: Generator
    epoch: int = 0
    best: Best = field(default_factory=Best)
    history: list[Row] = field(default_factory=list)


Save = Callable[[State], None]
Watch = Callable[[Row], None]


def start(method: Method, posts: Posts, name: str, seed: int, train: Train) -> State:
    """Prepares a method and its optimiser; the same arguments give the same state, and a variant draws as its module does."""
    method.prepare(posts, torch_generator(seed, "prepare", stream_of(name)))
    parameters = [p for p in method.parameters() if p.requires_grad and p.numel()]
    return State(method, AdamW(parameters, train.weight_decay), torch_generator(seed, "train", stream_of(name)))


def advance(state: State, posts: Posts, train: Train, seed: int, *, save: Save, watch: Watch) -> Best:
    """Runs the remaining epochs and returns the chosen one.

    Args:
        state: from `start` or restored.
        posts: train and validation items.
        train: budget.
        seed: for the history.
        save: called between epochs, at most once every `CHECKPOINT_SECONDS`.
        watch: called with each new row of the history.
    """
    checks, labels = state.method.checks(posts), posts.labels[posts.valid]
    saved = time.monotonic()
    while state.epoch < train.epochs:
        losses = _epoch(state, posts, train)
        _require_finite(losses, seed, state.epoch + 1)
        with torch.no_grad():
            state.method.settle(posts)
        accuracies, loss = validate(state.method, checks, labels)
        state.epoch += 1
        accuracy = sum(accuracies.values()) / len(accuracies)
        if state.epoch > SELECT_FROM * train.epochs and state.best.better(accuracy, loss):
            state.best = Best(state.epoch, accuracy, loss, {name: value.detach().clone() for name, value in state.method.kept().items()})
        row = {"epoch": state.epoch, "seed": seed, **{f"train/{k}": v for k, v in losses.items()}, "valid/loss": loss, "valid/selection": accuracy}
        state.history.append(row | {f"valid/{name}": value for name, value in accuracies.items()})
        watch(state.history[-1])
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            save(state)
            saved = time.monotonic()
    return state.best


def _require_finite(losses: dict[str, float], seed: int, epoch: int) -> None:
    """Ends a run whose weights are lost, before it is written down as a result."""
    lost = [name for name, value in losses.items() if not math.isfinite(value)]
    if lost:
        fix = "lower train.lr or the method's own weights in params.yaml: methods; if that does not help, it is a fault of the method"
        raise UserError(f"the training losses {lost} are not finite in epoch {epoch} of seed {seed}", fix=fix)


def _epoch(state: State, posts: Posts, train: Train) -> dict[str, float]:
    """One pass over the train items; returns the mean of each loss."""
    rows = posts.train
    order = rows[torch.randperm(len(rows), generator=state.generator)]
    batches = order.split(train.batch_size)
    steps, done = len(batches) * train.epochs, state.epoch * len(batches)
    totals: dict[str, Tensor] = {}
    for batch in batches:
        losses = state.method.loss(posts, batch, done / steps, state.generator)
        state.optimizer.step(losses["loss"], cosine(train.lr * state.method.pace, done / steps))
        done += 1
        for name, value in losses.items():
            totals[name] = totals.get(name, torch.zeros(())) + value.detach() * (len(batch) / len(rows))
    return {name: value.item() for name, value in totals.items()}


@torch.no_grad()
def validate(method: Method, checks: list[Check], labels: Tensor) -> tuple[dict[str, float], float]:
    """Weighted accuracy of each check and the mean over checks of the weighted cross-entropy."""
    accuracies, losses = {}, []
    for check in checks:
        total = check.weights.sum().clamp_min(1e-9)
        scores = method.scores(check.inputs)
        accuracies[check.name] = (((scores.argmax(-1) == labels) * check.weights).sum() / total).item()
        losses.append(((cross_entropy(scores, labels) * check.weights).sum() / total).item())
    return accuracies, sum(losses) / len(losses)
