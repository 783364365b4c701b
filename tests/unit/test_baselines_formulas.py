"""Every baseline's loss and answer against loops over items and classes, in double precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.baseline_posts import built, ce, mean, sigmoid, softmax, tiny

from causalroute.methods.base import Method, Posts
from causalroute.model.losses import generalized_cross_entropy
from causalroute.rng import torch_generator

ROWS = torch.tensor([0, 3, 4, 5, 7, 8])


def scores_of(network: Any, posts: Posts, *views: str) -> list[list[float]]:
    """Scores of one network on the rows, item by item."""
    return [network(*(posts.views[view][row : row + 1] for view in views))[0].tolist() for row in ROWS.tolist()]


def loss_of(method: Method, posts: Posts, progress: float = 1.0) -> float:
    return method.loss(posts, ROWS, progress, torch_generator(0))["loss"].item()


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-11)


def probabilities(method: Method, posts: Posts) -> list[list[float]]:
    with torch.no_grad():
        found: list[list[float]] = method.answer(posts.inputs(ROWS)).p.tolist()
    return found


POSTS = tiny()
Y = POSTS.labels[ROWS].tolist()


def test_late_fusion() -> None:
    method = built("late_fusion", POSTS)
    t, v = scores_of(method.text, POSTS, "t"), scores_of(method.image, POSTS, "v")
    z = [[(a + b) / 2 for a, b in zip(x, w, strict=True)] for x, w in zip(t, v, strict=True)]
    assert loss_of(method, POSTS) == near(mean(ce(row, y) for row, y in zip(z, Y, strict=True)))
    assert probabilities(method, POSTS)[2] == near(softmax(z[2]))


def test_multi_view() -> None:
    method = built("multi_view", POSTS)
    parts = [scores_of(method.joint, POSTS, "t", "v"), scores_of(method.text, POSTS, "t"), scores_of(method.image, POSTS, "v")]
    assert loss_of(method, POSTS) == near(sum(mean(ce(z, y) for z, y in zip(part, Y, strict=True)) for part in parts))
    for i, p in enumerate(probabilities(method, POSTS)):
        assert p == near([mean(softmax(part[i])[c] for part in parts) for c in range(3)])


def test_label_smoothing() -> None:
    method = built("label_smoothing", POSTS, smoothing=0.3)
    expected = []
    for z, y in zip(scores_of(method.network, POSTS, "t", "v"), Y, strict=True):
        p = softmax(z)
        expected.append(-sum((0.7 * (c == y) + 0.1) * math.log(p[c]) for c in range(3)))
    assert loss_of(method, POSTS) == near(mean(expected))


@given(z=st.lists(st.floats(-8, 8), min_size=2, max_size=5), q=st.floats(0.05, 1.0))
def test_generalised_cross_entropy(z: list[float], q: float) -> None:
    scores, label = torch.tensor([z], dtype=torch.float64), torch.tensor([len(z) - 1])
    p = softmax(z)[-1]
    found = generalized_cross_entropy(scores, label, q).item()
    assert found == pytest.approx((1 - p**q) / q, rel=1e-6, abs=1e-9)
    assert 0 <= found <= ce(z, len(z) - 1) + 1e-9


def test_lff_weighs_by_the_two_moving_averages() -> None:
    method = built("lff", POSTS, prepare=True, momentum=0.6, q=0.4)
    b, d = scores_of(method.biased, POSTS, "t", "v"), scores_of(method.network, POSTS, "t", "v")
    average: list[dict[int, float]] = [{}, {}]
    steps = [[0, 1, 2, 3, 4, 5], [2, 0, 5], [5, 4, 2]]  # places in ROWS
    for places in steps:
        for own, scores in zip(average, (b, d), strict=True):
            for i in places:
                new = ce(scores[i], Y[i])
                own[i] = 0.6 * own[i] + 0.4 * new if i in own else new
        total = 0.0
        for i in places:
            biased, debiased = (own[i] / max(value for k, value in own.items() if Y[k] == Y[i]) for own in average)
            total += (1 - softmax(b[i])[Y[i]] ** 0.4) / 0.4 + biased / (biased + debiased) * ce(d[i], Y[i])
        assert method.loss(POSTS, ROWS[places], 0.5, torch_generator(0))["loss"].item() == pytest.approx(total / len(places), rel=1e-6)


@pytest.mark.parametrize(("bias", "sides"), [("text", "t"), ("image", "v"), ("both", "tv")])
def test_product_of_experts(bias: str, sides: str) -> None:
    method = built("poe", POSTS, bias=bias)
    z = scores_of(method.network, POSTS, "t", "v")
    single = [scores_of(net, POSTS, side) for net, side in zip(method.bias.values(), sides, strict=True)]
    expected = 0.0
    for i, y in enumerate(Y):
        product = [math.log(softmax(z[i])[c]) + sum(math.log(softmax(one[i])[c]) for one in single) for c in range(3)]
        expected += (ce(product, y) + sum(ce(one[i], y) for one in single)) / len(Y)
    assert loss_of(method, POSTS) == near(expected)
    assert probabilities(method, POSTS)[0] == near(softmax(z[0]))


@pytest.mark.parametrize("name", ["poe", "lmh", "gear"])
def test_branches_learn_from_their_own_loss_alone(name: str) -> None:
    method = built(name, POSTS)
    parts = method.loss(POSTS, ROWS, 1.0, torch_generator(0))
    branch = list(method.bias.parameters())
    whole = torch.autograd.grad(parts["loss"], branch, retain_graph=True)
    own = torch.autograd.grad(parts["bias"], branch)
    assert all(torch.equal(a, b) for a, b in zip(whole, own, strict=True))
    assert all(value.abs().sum() > 0 for value in own)


def test_learned_mixin() -> None:
    method = built("lmh", POSTS, penalty=0.3)
    z = scores_of(method.network, POSTS, "t", "v")
    single = [scores_of(net, POSTS, side) for net, side in zip(method.bias.values(), "tv", strict=True)]
    h = method.network.encoder(POSTS.views["t"][ROWS], POSTS.views["v"][ROWS])
    expected = 0.0
    for i, y in enumerate(Y):
        factor = [math.log(1 + math.exp((w @ h[i] + c).item())) for w, c in zip(method.trust.weight, method.trust.bias, strict=True)]
        b = [sum(f * math.log(softmax(one[i])[c]) for f, one in zip(factor, single, strict=True)) for c in range(3)]
        entropy = -sum(p * math.log(p) for p in softmax(b))
        expected += ce([math.log(softmax(z[i])[c]) + b[c] for c in range(3)], y) + 0.3 * entropy + sum(ce(one[i], y) for one in single)
    assert loss_of(method, POSTS) == near(expected / len(Y))


def test_learned_mixin_where_the_branches_are_certain() -> None:
    """The probability of a class underflows to 0, where the gradient of p log p is not a number."""
    method = built("lmh", POSTS)
    with torch.no_grad():
        for net in method.bias.values():
            net.head.weight.mul_(1e4)
    method.loss(POSTS, ROWS, 1.0, torch_generator(0))["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_rubi() -> None:
    method = built("rubi", POSTS)
    z = scores_of(method.network, POSTS, "t", "v")
    masks = [scores_of(net, POSTS, side) for net, side in zip(method.bias.values(), "tv", strict=True)]
    expected = 0.0
    for i, y in enumerate(Y):
        masked = [z[i][c] * sigmoid(masks[0][i][c]) * sigmoid(masks[1][i][c]) for c in range(3)]
        single = [layer(torch.tensor(mask[i], dtype=torch.float64)).tolist() for layer, mask in zip(method.classifiers, masks, strict=True)]
        expected += ce(masked, y) + sum(ce(one, y) for one in single)
    assert loss_of(method, POSTS) == near(expected / len(Y))
    assert probabilities(method, POSTS)[1] == near(softmax(z[1]))


def fused(fusion: str, *z: float) -> float:
    """One class of a fusion; the joint score first."""
    if fusion == "sum":
        return math.log(sigmoid(sum(z)))
    if fusion == "hm":
        u = math.prod(sigmoid(x) for x in z)
        return math.log(u) - math.log(1 + u)
    return z[0] * math.prod(sigmoid(x) for x in z[1:])


@pytest.mark.parametrize("fusion", ["sum", "hm", "rubi"])
@pytest.mark.parametrize("subtract", ["text", "both"])
def test_cf_vqa_fusions(fusion: str, subtract: str) -> None:
    method = built("cf_vqa", POSTS, fusion=fusion, subtract=subtract)
    with torch.no_grad():
        method.constant.fill_(0.4)
    k, t = scores_of(method.joint, POSTS, "t", "v"), scores_of(method.text, POSTS, "t")
    v = None if method.image is None else scores_of(method.image, POSTS, "v")
    assert (v is None) == (fusion == "rubi" and subtract == "text")
    expected = 0.0
    for i, y in enumerate(Y):
        single = [t[i]] if v is None else [t[i], v[i]]
        h = [fused(fusion, k[i][c], *(one[c] for one in single)) for c in range(3)]
        other = [[]] * 3 if v is None else [[v[i][c] if subtract == "both" else 0.4] for c in range(3)]
        direct = [fused(fusion, 0.4, t[i][c], *other[c]) for c in range(3)]
        p, q = softmax(h), softmax(direct)
        expected += ce(h, y) + sum(ce(one, y) for one in single) + sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert probabilities(method, POSTS)[i] == near(softmax([a - b for a, b in zip(h, direct, strict=True)]))
    assert loss_of(method, POSTS) == near(expected / len(Y))
    grads = torch.autograd.grad(method.loss(POSTS, ROWS, 1.0, torch_generator(0))["kl"], list(method.parameters()), allow_unused=True)
    moved = {name for (name, _), g in zip(method.named_parameters(), grads, strict=True) if g is not None and g.abs().sum() > 0}
    assert moved == {"constant"}


@pytest.mark.parametrize(("pool", "pick"), [("mean", lambda a, b: (a + b) / 2), ("min", min)])
def test_gear(pool: str, pick: Any) -> None:
    method = built("gear", POSTS, pool=pool, q=0.5)
    z = scores_of(method.network, POSTS, "t", "v")
    t, v = (scores_of(net, POSTS, side) for net, side in zip(method.bias.values(), "tv", strict=True))
    expected = 0.0
    for i, y in enumerate(Y):
        biased, own = pick(ce(t[i], y), ce(v[i], y)), ce(z[i], y)
        expected += biased / (biased + own) * own + sum((1 - softmax(one[i])[y] ** 0.5) / 0.5 for one in (t, v))
    assert loss_of(method, POSTS) == pytest.approx(expected / len(Y), rel=1e-7)


@given(seed=st.integers(0, 50), progress=st.sampled_from([0.0, 0.25, 0.9]))
@settings(max_examples=15, deadline=None)
def test_irm(seed: int, progress: float) -> None:
    method = built("irm", POSTS, penalty=7.0)
    method.environments = torch.randint(4, (len(POSTS.labels),), generator=torch_generator(seed))
    z = torch.tensor(scores_of(method.network, POSTS, "t", "v"), dtype=torch.float64)
    risks, penalties = [], []
    for e in set(method.environments[ROWS].tolist()):
        part = method.environments[ROWS] == e
        w = torch.ones((), dtype=torch.float64, requires_grad=True)
        risk = torch.nn.functional.cross_entropy(w * z[part], POSTS.labels[ROWS][part])
        risks.append(risk.item())
        penalties.append(torch.autograd.grad(risk, w)[0].item() ** 2)
    ramp = {0.0: 0.0, 0.25: 0.5, 0.9: 1.0}[progress]
    assert loss_of(method, POSTS, progress) == near(mean(risks) + 7.0 * ramp * mean(penalties))


def test_plain_mixture() -> None:
    method = built("moe", POSTS, experts=5, top_k=2, balance=0.5, z=0.2)
    with torch.no_grad():
        method.experts.up.normal_(generator=torch_generator(9))
    h = method.encoder(POSTS.views["t"][ROWS], POSTS.views["v"][ROWS])
    logits, every = method.router(h).tolist(), method.experts(h).tolist()
    chosen, expected = [], 0.0
    for i, y in enumerate(Y):
        gate = softmax(logits[i])
        best = sorted(range(5), key=lambda e: -gate[e])[:2]
        total = sum(gate[e] for e in best)
        expected += ce([sum(gate[e] / total * every[i][e][c] for e in best) for c in range(3)], y) / len(Y)
        expected += 0.2 * math.log(sum(math.exp(x) for x in logits[i])) ** 2 / len(Y)
        chosen += best
    share = [chosen.count(e) / len(chosen) for e in range(5)]
    expected += 0.5 * 5 * sum(share[e] * mean(softmax(row)[e] for row in logits) for e in range(5))
    assert loss_of(method, POSTS) == pytest.approx(expected, rel=1e-6)
    answer = method.answer(POSTS.inputs(ROWS))
    assert (answer.experts > 0).sum(1).tolist() == [2] * len(Y)
