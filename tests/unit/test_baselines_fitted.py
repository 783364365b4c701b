"""Baselines that use counterfactuals, judged groups or the validation posts, against loops in double precision."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tests.unit.baseline_posts import built, ce, mean, sigmoid, single, softmax, tiny
from torch import Tensor, nn

from causalroute.methods import grouping
from causalroute.methods.clue import best_strength
from causalroute.methods.dfr import balance
from causalroute.methods.logistic import per_class
from causalroute.methods.supcon import contrastive
from causalroute.model.context import cross_fit
from causalroute.model.layers import Predictor
from causalroute.rng import torch_generator

POSTS = tiny(items=26)
ROWS = POSTS.train


@given(seed=st.integers(0, 200), candidates=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_the_best_strength_is_the_most_accurate_then_the_surest_then_the_first(seed: int, candidates: int) -> None:
    g = torch_generator(seed)
    scores = torch.randint(0, 2, (candidates, 4, 3), generator=g).double()
    labels = torch.randint(3, (4,), generator=g)
    keys = []
    for one in scores:
        hits = sum(int(row.argmax()) == int(y) for row, y in zip(one, labels, strict=True))
        keys.append((-hits, round(mean(ce(row.tolist(), int(y)) for row, y in zip(one, labels, strict=True)), 12)))
    assert best_strength(scores.round(decimals=12), labels) == keys.index(min(keys))


@pytest.mark.parametrize(("name", "side"), [("clue_text", "t"), ("clue_image", "v")])
def test_clue_takes_away_one_side(name: str, side: str) -> None:
    method = built(name, POSTS, alphas=[2.0, 0.5, 0.0, 1.0])
    with torch.no_grad():
        method.constant.fill_(0.3)
        method.settle(POSTS)
    held = POSTS.valid.tolist()
    outputs = []
    for row in held:
        k = method.joint(POSTS.views["t"][row : row + 1], POSTS.views["v"][row : row + 1])[0].tolist()
        m = method.single(POSTS.views[side][row : row + 1])[0].tolist()
        outputs.append(([math.log(sigmoid(a + b)) for a, b in zip(k, m, strict=True)], [math.log(sigmoid(0.3 + b)) for b in m], m))

    def subtracted(alpha: float) -> list[list[float]]:
        return [[a - alpha * b for a, b in zip(o1, o2, strict=True)] for o1, o2, _ in outputs]

    labels = POSTS.labels[held].tolist()
    keys = {}
    for alpha in (0.0, 0.5, 1.0, 2.0):
        z = subtracted(alpha)
        hits = sum(row.index(max(row)) == y for row, y in zip(z, labels, strict=True))
        keys[alpha] = (-hits, mean(ce(row, y) for row, y in zip(z, labels, strict=True)))
    chosen = min(keys, key=lambda alpha: keys[alpha])
    assert method.alpha.item() == chosen
    answer = method.answer(POSTS.inputs(POSTS.valid)).p.tolist()
    assert answer == [pytest.approx(softmax(z)) for z in subtracted(chosen)]
    expected = 0.0
    for (o1, o2, m), y in zip(outputs, labels, strict=True):
        expected += ce(o1, y) + ce(m, y) + sum(p * math.log(p / q) for p, q in zip(softmax(o1), softmax(o2), strict=True))
    assert method.loss(POSTS, POSTS.valid, 1.0, torch_generator(0))["loss"].item() == pytest.approx(expected / len(labels))


def test_training_free_subtraction_searches_both_strengths() -> None:
    method = built("subtraction", POSTS, grid=[0.0, 1.5, 0.5])
    with torch.no_grad():
        method.settle(POSTS)
    nothing = {"t": torch.zeros(1, 5, dtype=torch.float64), "v": torch.zeros(1, 4, dtype=torch.float64)}

    def log_p(t: Tensor, v: Tensor) -> list[float]:
        return [math.log(p) for p in softmax(method.network(t, v)[0].tolist())]

    parts = []
    for row in POSTS.valid.tolist():
        own = {name: value[row : row + 1] for name, value in POSTS.views.items()}
        parts.append((log_p(own["t"], own["v"]), log_p(own["t_s"], nothing["v"]), log_p(nothing["t"], own["v_s"])))
    keys, labels = {}, POSTS.labels[POSTS.valid].tolist()
    for a, b in itertools.product((0.0, 0.5, 1.5), repeat=2):
        z = [[x - a * y - b * w for x, y, w in zip(*part, strict=True)] for part in parts]
        keys[a, b] = (-sum(row.index(max(row)) == y for row, y in zip(z, labels, strict=True)), mean(ce(*pair) for pair in zip(z, labels, strict=True)), z)
    a, b = min(keys, key=lambda pair: keys[pair][:2])
    assert method.strengths.tolist() == [a, b]
    assert method.answer(POSTS.inputs(POSTS.valid)).p.tolist() == [pytest.approx(softmax(z)) for z in keys[a, b][2]]
    loss = method.loss(POSTS, ROWS, 1.0, torch_generator(0))["loss"].item()
    z = method.network(POSTS.views["t"][ROWS], POSTS.views["v"][ROWS]).tolist()
    assert loss == pytest.approx(mean(ce(row, y) for row, y in zip(z, POSTS.labels[ROWS].tolist(), strict=True)))
    with pytest.raises(ValueError, match="t_s"):
        method.answer(dataclasses.replace(POSTS.inputs(ROWS), t_s=None))


@given(seed=st.integers(0, 100), items=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_contrastive_loss(seed: int, items: int) -> None:
    g = torch_generator(seed)
    f = nn.functional.normalize(torch.randn(items, 3, generator=g, dtype=torch.float64), dim=1).requires_grad_()
    labels = torch.randint(3, (items,), generator=g).tolist()
    s = (f @ f.T).tolist()
    total = 0.0
    for i in range(items):
        same = [j for j in range(items) if j != i and labels[j] == labels[i]]
        other = [j for j in range(items) if labels[j] != labels[i]]
        weight = {j: 1 - math.exp(s[i][j]) / sum(math.exp(s[i][k]) for k in same) for j in same}
        weight |= {j: 1 + math.exp(s[i][j]) / sum(math.exp(s[i][k]) for k in other) for j in other}
        mass = sum(weight[j] * math.exp(s[i][j] / 0.2) for j in weight)
        total += sum(weight[j] * (math.log(mass) - s[i][j] / 0.2) for j in same if weight[j] > 1e-12) / max(len(same), 1)
    found = contrastive(f, torch.tensor(labels), 0.2)
    assert found.item() == pytest.approx(total / items, abs=1e-9)
    found.backward()
    assert f.grad is not None
    assert f.grad.isfinite().all()


class Recorder(nn.Module):
    """A network that writes down what it sees."""

    def forward(self, t: Tensor, v: Tensor, generator: Any, k: Tensor | None) -> Tensor:
        self.seen = torch.cat([t, v], 1)
        return t[:, :3]


def marked() -> Any:
    """Posts whose views hold nothing but their kind: 0 own, 1 swapped."""
    views = {"t": torch.zeros(26, 5), "v": torch.zeros(26, 4), "t_swap": torch.ones(26, 2, 5), "v_swap": torch.ones(26, 2, 4)}
    return dataclasses.replace(POSTS, views=views)


def test_augmentation_draws_each_accepted_view_alike() -> None:
    method = built("counterfactual_augmentation", POSTS)
    method.network = Recorder()
    counts = torch.zeros(len(ROWS), 2, 2)
    g = torch_generator(5)
    for _ in range(2000):
        method.loss(marked(), ROWS, 0.0, g)
        t, v = method.network.seen[:, 0].long(), method.network.seen[:, -1].long()
        counts[torch.arange(len(ROWS)), t, v] += 1
    text, image = POSTS.text_ok[ROWS], POSTS.image_ok[ROWS]
    allowed = torch.stack([torch.ones_like(text), image, text, text & image], 1).view(-1, 2, 2).float()
    assert (counts[allowed == 0] == 0).all()
    torch.testing.assert_close(counts / 2000, allowed / allowed.sum((1, 2), keepdim=True), atol=0.06, rtol=0)


def test_supcon_uses_accepted_views_alone() -> None:
    method = built("supcon", POSTS, ce=0.25, temperature=0.2)
    g = torch_generator(4)
    found = method.loss(POSTS, ROWS, 0.0, g)
    picks = torch_generator(4)
    t_pick, v_pick = (torch.randint(2, (len(ROWS),), generator=picks).tolist() for _ in range(2))
    hidden, labels = [], []
    for i, row in enumerate(ROWS.tolist()):
        text, image = bool(POSTS.text_ok[row]), bool(POSTS.image_ok[row])
        for swap_t, swap_v in [(0, 0), *([(0, 1)] if image else []), *([(1, 0)] if text else []), *([(1, 1)] if text and image else [])]:
            t = POSTS.views["t_swap"][row, t_pick[i]] if swap_t else POSTS.views["t"][row]
            v = POSTS.views["v_swap"][row, v_pick[i]] if swap_v else POSTS.views["v"][row]
            hidden.append(method.network.encoder(t[None], v[None])[0])
            labels.append(int(POSTS.labels[row]))
    h, y = torch.stack(hidden), torch.tensor(labels)
    cross = mean(ce(row, label) for row, label in zip(method.network.head(h).tolist(), labels, strict=True))
    contrast = contrastive(nn.functional.normalize(method.projection(h), dim=1), y, 0.2).item()
    assert found["loss"].item() == pytest.approx(0.25 * cross + 0.75 * contrast)


def early_errors(steps: int) -> list[bool]:
    """Which train posts an early ERM gets wrong, trained by the library's optimiser."""
    posts, g = single(POSTS), torch_generator(2, "jtt")
    early = Predictor(5, 4, 3, 6, 0.0, g)
    optimizer = torch.optim.AdamW(early.parameters(), lr=0.001, weight_decay=0.0)
    for _ in range(steps):
        rows = ROWS[torch.randint(len(ROWS), (128,), generator=g)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(early(posts.views["t"][rows], posts.views["v"][rows]), posts.labels[rows]).backward()
        optimizer.step()
    scores = early(posts.views["t"][ROWS], posts.views["v"][ROWS])
    wrong: list[bool] = (scores.argmax(1) != posts.labels[ROWS]).tolist()
    return wrong


def test_jtt_weighs_the_error_set() -> None:
    method = built("jtt", POSTS, prepare=True, up=5.0, steps=8)
    weights, wrong = method.item_weights, early_errors(8)
    assert 0 < sum(wrong) < 10
    each = [10 * (5 if bad else 1) / (10 + 4 * sum(wrong)) for bad in wrong]
    assert weights[ROWS].tolist() == pytest.approx(each)
    assert (weights[POSTS.valid] == 0).all()
    z = method.network(POSTS.views["t"][ROWS], POSTS.views["v"][ROWS]).tolist()
    expected = mean(w * ce(row, y) for w, row, y in zip(weights[ROWS].tolist(), z, POSTS.labels[ROWS].tolist(), strict=True))
    assert method.loss(POSTS, ROWS, 1.0, torch_generator(0))["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_groups_are_judged_by_probes_that_have_not_seen_the_post() -> None:
    posts = single(POSTS)
    found = grouping.judged(posts, folds=2, hidden=4, generator=torch_generator(3), valid=True)
    alone = grouping.judged(posts, folds=2, hidden=4, generator=torch_generator(3))
    assert torch.equal(found[ROWS], alone[ROWS])
    assert (alone[posts.valid] == -1).all()
    g, y = torch_generator(3), posts.labels
    expected = (4 * y).tolist()
    for side, worth in (("t", 2), ("v", 1)):
        x = posts.views[side]
        heads, fold = cross_fit(x[ROWS], y[ROWS], 3, folds=2, hidden=4, generator=g)
        for place, row in enumerate(ROWS.tolist()):
            ratio = heads.scores(x[row : row + 1])[0, fold[place]].log_softmax(-1) - heads.log_prior
            expected[row] += worth * (int(ratio.argmax()) == int(y[row]))
        for row in posts.valid.tolist():
            ratio = heads.scores(x[row : row + 1])[0].log_softmax(-1).mean(0) - heads.log_prior
            expected[row] += worth * (int(ratio.argmax()) == int(y[row]))
    assert found.tolist() == expected


def test_dfr_balances_groups_as_copies_would() -> None:
    assert balance(torch.tensor([7, 2, 2, 2])).tolist() == pytest.approx([2.0, 2 / 3, 2 / 3, 2 / 3])
    method = built("dfr", POSTS, c=0.5)
    held = POSTS.valid
    method.groups = torch.zeros(26, dtype=torch.int64)
    method.groups[held[:4]] = 1
    with torch.no_grad():
        method.settle(POSTS)
        x = method.network.encoder(POSTS.views["t"], POSTS.views["v"])
        scaled = ((x - x[ROWS].mean(0)) / x[ROWS].std(0, correction=0))[held].numpy()
        found = method.answer(POSTS.inputs(held)).p
    # 4 posts of one group and 12 of the other: three copies of the first are the same balance; the penalty goes with the number of posts.
    copies = np.array([3] * 4 + [1] * 12)
    fit = LogisticRegression(C=0.5 * 16 / 24, max_iter=1000, tol=1e-8).fit(np.repeat(scaled, copies, 0), np.repeat(POSTS.labels[held].numpy(), copies))
    assert found.numpy() == pytest.approx(fit.predict_proba(scaled), abs=2e-3)
    before = [method.network.head.weight.clone(), method.loss(POSTS, ROWS, 1.0, torch_generator(0))["loss"].item()]
    with torch.no_grad():
        method.settle(POSTS)
    assert torch.equal(before[0], method.network.head.weight)
    assert before[1] == method.loss(POSTS, ROWS, 1.0, torch_generator(0))["loss"].item()


@pytest.mark.parametrize("present", [(0, 1), (0, 2), (0, 1, 2)])
def test_a_regression_becomes_one_row_per_class(present: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.array(present)[rng.integers(len(present), size=40)]
    fit = LogisticRegression().fit(x, y)
    weight, bias = per_class(fit, 3)
    p = (torch.from_numpy(x).float() @ weight.T + bias).softmax(1).numpy()
    assert p[:, list(present)] == pytest.approx(fit.predict_proba(x), abs=1e-6)
    assert p.sum(1) == pytest.approx(1.0)
