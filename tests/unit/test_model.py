"""Layers, experts, gates, context heads, losses and the optimiser against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from causalroute.model import gates
from causalroute.model.context import cross_fit
from causalroute.model.effects import strength
from causalroute.model.experts import Experts, dense_weights
from causalroute.model.layers import Branch, Encoder, Predictor, dropout, linear
from causalroute.model.losses import cross_entropy, ramp, swap_weights, weighted_mean
from causalroute.model.optimizer import AdamW, cosine
from causalroute.rng import torch_generator
from causalroute.routing import route


def generator(*names: object) -> torch.Generator:
    return torch_generator(0, *names)


def test_grid_is_every_pair_of_views():
    net = Predictor(4, 3, 2, 8, 0.0, generator())
    t, v = torch.randn(2, 5, 4), torch.randn(2, 5, 3)
    grid = net.grid(t, v)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(grid[i, j], net(t[i], v[j]))


def test_encoder_is_one_layer_on_the_concatenation():
    encoder = Encoder(4, 3, 8, 0.0, generator())
    t, v = torch.randn(5, 4), torch.randn(5, 3)
    weight = torch.cat([encoder.text.weight, encoder.image.weight], 1)
    torch.testing.assert_close(encoder(t, v), functional.gelu(torch.cat([t, v], 1) @ weight.T + encoder.text.bias))


def test_a_side_without_features_is_no_side():
    net = Predictor(4, 0, 2, 8, 0.0, generator())
    assert net(torch.randn(5, 4), torch.zeros(5, 0)).shape == (5, 2)


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = (Branch(4, 2, 8, 0.1, generator("x")) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    first(torch.randn(3, 4, generator=generator()), generator("drop"))
    assert torch.equal(torch.get_rng_state(), before)
    assert linear(100, 50, generator()).weight.abs().max() <= 0.1


def test_dropout_keeps_the_mean_and_is_shared_by_the_views_of_an_item():
    h = torch.ones(4, 500, 20)
    dropped = dropout(h, 0.25, generator())
    assert torch.equal(dropped[0], dropped[3])
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert dropout(h, 0.25, None) is h


@pytest.mark.parametrize("k", [1, 2, 3])
def test_sparse_mixture_equals_dense_and_the_formula(k):
    torch.manual_seed(0)
    experts = Experts(6, 2, 3, 4, generator())
    experts.up.data.normal_()
    h = torch.randn(9, 6)
    routing = route(torch.randn(9, 3), k, renormalize=True)
    z = experts(h)
    for e in range(3):
        adapted = h + functional.gelu(h @ experts.down[e].T) @ experts.up[e]
        torch.testing.assert_close(z[:, e], experts.head(adapted), atol=1e-5, rtol=1e-5)
    dense = (dense_weights(routing)[..., None] * z).sum(1)
    torch.testing.assert_close(experts.sparse(h, routing), dense, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dense_weights(routing).sum(1), torch.ones(9))


@settings(deadline=None)
@given(st.floats(0, 5), st.floats(0, 5), st.sampled_from([0.0, 0.3]))
def test_rule(text, image, temperature):
    g = gates.rule(torch.tensor([text]), torch.tensor([image]), 0.8, temperature)
    assert g.sum().item() == pytest.approx(1.0, abs=1e-5)
    q_t, q_v, q_tv = gates.switches(g)
    if temperature == 0:
        assert (q_t.item(), q_v.item()) == (text > 0.8, image > 0.8)
        assert q_tv.item() == (text > 0.8 and image > 0.8)
    else:
        assert q_t.item() == pytest.approx(1 / (1 + math.exp(-(text - 0.8) / 0.3)), abs=1e-4)
        assert q_tv.item() == pytest.approx(q_t.item() * q_v.item(), abs=1e-4)


def test_router_gives_logits_for_the_kinds():
    router = gates.Router(4, 3, 2, 8, generator())
    assert router(torch.randn(5, 4), torch.randn(5, 3), torch.randn(5, 2), torch.randn(5, 2), torch.rand(5, 3)).shape == (5, len(gates.KINDS))


@settings(deadline=None)
@given(st.floats(0, 1))
def test_ramp_and_cosine(progress):
    assert ramp(progress, 0.1, 0.4) == pytest.approx(min(max((progress - 0.1) / 0.3, 0), 1))
    assert ramp(progress, 0.0, 0.0) == 1
    assert cosine(2.0, progress) == pytest.approx(1 + math.cos(math.pi * progress))


def test_weighted_loss_is_the_loop():
    torch.manual_seed(0)
    scores, y = torch.randn(2, 2, 3, 4), torch.tensor([0, 3, 1])
    text, image = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    got = weighted_mean(cross_entropy(scores, y), swap_weights(text, image, text * image, 0.5))
    top = bottom = 0.0
    for i in range(2):
        for j in range(2):
            for n in range(3):
                gate = {(0, 0): 1.0, (1, 0): 0.5 * text[n], (0, 1): 0.5 * image[n], (1, 1): 0.5 * text[n] * image[n]}[i, j]
                top += gate * functional.cross_entropy(scores[i, j, n], y[n])
                bottom += gate
    torch.testing.assert_close(got, torch.as_tensor(top / bottom))


def test_optimizer_is_adamw():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    reference = torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
    optimizer = AdamW(ours.parameters(), weight_decay=0.1)
    for step in range(5):
        x, lr = torch.randn(4, 3), cosine(0.01, step / 5)
        reference.param_groups[0]["lr"] = lr
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
        optimizer.step(ours(x).square().mean(), lr)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def planted(n: int, rho: float, classes: int = 2, strength_: float = 2.0):
    torch.manual_seed(3)
    y = torch.randint(classes, (n,))
    cue = torch.where(torch.rand(n) < rho, y, torch.randint(classes, (n,)))
    x = torch.randn(n, 20)
    x[:, :classes] += strength_ * functional.one_hot(cue, classes)
    return x, y, cue


def test_context_heads_find_the_planted_log_odds():
    x, y, cue = planted(1500, 0.8, strength_=4.0)  # p(y = cue) = .9
    heads, fold = cross_fit(x, y, 2, folds=4, hidden=16, generator=generator())
    inside, outside = heads.held_out_effects(x, fold, 5.0), heads.effects(x, 5.0)
    for effects in (inside, outside):
        assert effects.gather(1, cue[:, None]).mean().item() == pytest.approx(math.log(9), rel=0.25)
    assert torch.bincount(fold).tolist() == [375] * 4
    assert (heads.effects(x, 0.5).abs() <= 0.5).all()


def test_context_heads_find_nothing_where_there_is_nothing():
    x, y, _ = planted(800, 0.0)
    heads, fold = cross_fit(x, torch.randint(2, (800,), generator=generator("y")), 2, folds=4, hidden=16, generator=generator())
    assert strength(heads.held_out_effects(x, fold, 5.0)).mean() < 0.3
    assert len(y) == 800


def test_context_heads_of_three_classes_respect_the_prior():
    x, y, _ = planted(900, 0.0, classes=3)
    y[:400] = 0
    heads, _ = cross_fit(x, y, 3, folds=3, hidden=8, generator=generator())
    torch.testing.assert_close(heads.log_prior.exp(), (torch.bincount(y) + 1) / 903)


def test_too_few_items_to_cross_fit():
    with pytest.raises(ValueError, match="2 folds"):
        cross_fit(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), 2, folds=4, hidden=2, generator=generator())
