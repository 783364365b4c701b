"""Mediation evidence: direct effects and whether a swap keeps the label, on posts whose two sources use the same cue differently."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from causalroute.model import consistency, gates
from causalroute.model.effects import strength
from causalroute.model.evidence import Evidence, Fit, Found, Views
from causalroute.rng import torch_generator

N, BIAS = 3000, 0.8
FIT = Fit(folds=4, hidden=16, steps=200, clip=5.0, ipw_clip=20.0, form="I", reference=64)


def sources() -> tuple[Views, Tensor]:
    """Text: core a, cue c, style s. Image: core b, style s. Label a != b, or a c != b where s is core; in both the cue agrees with the label at BIAS."""
    generator = torch_generator(3)

    def coin(p: float = 0.5) -> Tensor:
        return (torch.rand(N, generator=generator) < p).float()

    is_core, y, a = coin(), coin(), 2 * coin() - 1
    c = torch.where(coin(BIAS) > 0, 2 * y - 1, 1 - 2 * y)
    turned = torch.where(is_core > 0, a * c, a)
    b = torch.where(y > 0, -turned, turned)
    style, zero = 2 * is_core - 1, torch.zeros(N)
    noise = [0.1 * torch.randn(N, 4, generator=generator) for _ in range(6)]
    sides = [[a, c, style, zero], [b, zero, style, zero], [zero, c, style, zero], [zero, zero, style, zero], [a, -c, style, zero], [b, zero, style, zero]]
    t, v, t_s, v_s, t_swap, v_swap = (torch.stack(side, 1) + extra for side, extra in zip(sides, noise, strict=True))
    flags = torch.ones(N, dtype=torch.bool)
    return Views(t, v, t_s, v_s, t_swap[:, None], v_swap[:, None], y.long(), flags, flags), is_core > 0


@pytest.fixture(scope="module")
def learnt() -> tuple[Views, Tensor, Evidence, Found]:
    views, core = sources()
    evidence = Evidence(4, 4, 2, FIT, True, torch_generator(0))
    return views, core, evidence, evidence.learn(views, torch.arange(N), torch_generator(1))


@pytest.mark.slow
def test_a_biased_core_cue_has_a_direct_effect_and_its_swap_turns_the_label(learnt: tuple[Views, Tensor, Evidence, Found]) -> None:
    _, core, _, found = learnt
    for part in (core, ~core):
        assert strength(found.nde_t)[part].median().item() == pytest.approx(math.log(BIAS / (1 - BIAS)), abs=0.35)
        assert strength(found.nde_v)[part].median() < 0.4
        assert (found.keeps_v[part] > 0).float().mean() > 0.9
    assert (found.keeps_t[~core] > 0).float().mean() > 0.9
    assert (found.keeps_t[core] < 0).float().mean() > 0.9


def test_the_mediated_rule_keeps_what_the_plain_rule_would_destroy(learnt: tuple[Views, Tensor, Evidence, Found]) -> None:
    _, core, _, found = learnt
    plain, mediated = (gates.Gate(kind, (4, 4, 2), 0.8, 0.0, torch_generator(0)).rule(found) for kind in ("rule", "mediated"))
    assert plain[core, 1].mean() > 0.9
    assert mediated[core, 0].mean() > 0.9
    assert mediated[~core, 1].mean() > 0.9


def test_new_posts_are_judged_like_those_seen(learnt: tuple[Views, Tensor, Evidence, Found]) -> None:
    views, core, evidence, found = learnt
    again = evidence(views.t, views.v, views.t_s, views.v_s)
    assert ((again.keeps_t > 0) == (found.keeps_t > 0)).float().mean() > 0.95
    assert ((again.keeps_t > 0) == ~core).float().mean() > 0.95


def test_form_b_looks_at_whole_sides() -> None:
    views, _ = sources()
    evidence = Evidence(4, 4, 2, dataclasses.replace(FIT, form="B", steps=20), False, torch_generator(0))
    evidence.learn(views, torch.arange(N), torch_generator(1))
    there = evidence(views.t, views.v, views.t_s, views.v_s)
    moved = evidence(views.t, views.v, views.t_s + 1, views.v_s + 1)
    assert torch.equal(there.nde_t, moved.nde_t)
    assert not torch.equal(there.nde_t, evidence(views.t + 1, views.v, views.t_s, views.v_s).nde_t)
    assert not there.keeps_t.any(), "nobody asked"
    assert torch.equal(there.nde_tv, (there.nde_t + there.nde_v).clamp(-5, 5)), "a joint head on whole sides would learn the core"


def test_the_reference_leaves_alone_what_the_direct_effects_say() -> None:
    generator = torch_generator(2)
    cue = 2 * (torch.rand(2000, generator=generator) < 0.5).float() - 1
    y = (torch.rand(2000, generator=generator) < torch.sigmoid(2.2 * cue)).long()
    t = cue[:, None] + 0.1 * torch.randn(2000, 3, generator=generator)
    direct = torch.stack([-1.1 * cue, 1.1 * cue], 1)
    told, untold = (consistency._reference(t, t, y, known, torch.arange(2000), 16, torch_generator(4)) for known in (direct, 0 * direct))
    owed = [(f(t, t)[:, 1] - f(t, t)[:, 0]).abs().mean().item() for f in (told, untold)]
    assert owed[0] < 0.4
    assert owed[1] == pytest.approx(2.2, abs=0.5)


@given(st.floats(0.05, 0.95), st.floats(-3, 3), st.integers(0, 1), st.floats(1.0, 30.0))
def test_weights_are_ratios_of_probabilities(prior: float, direct: float, label: int, clip: float) -> None:
    log_prior = torch.tensor([1 - prior, prior]).log()
    found = consistency.inverse_probability(log_prior, torch.tensor([[0.0, direct]]), torch.tensor([label]), clip)
    odds = prior / (1 - prior) * math.exp(direct)
    p = odds / (1 + odds) if label else 1 / (1 + odds)
    assert found.item() == pytest.approx(min(clip, (prior if label else 1 - prior) / p), rel=1e-3)


@pytest.mark.parametrize(("accuracy", "classes", "middle"), [(0.9, 2, 0.5), (0.6, 2, 0.5), (0.8, 3, 0.45)])
def test_the_middle_lies_between_right_and_turned(accuracy: float, classes: int, middle: float) -> None:
    assert consistency.midpoint(accuracy, classes) == pytest.approx(math.log(middle / (1 - middle)))


def found(nde_t: list[float], nde_v: list[float], keeps_t: list[float], keeps_v: list[float]) -> Found:
    two = [torch.tensor([[-x, x] for x in side]) for side in (nde_t, nde_v)]
    return Found(two[0], two[1], two[0], torch.tensor(keeps_t), torch.tensor(keeps_v))


def test_the_mediated_rule_weighs_the_direct_effect_against_a_turned_label() -> None:
    given_ = found([2.0, 2.0, 1.0, 0.1], [2.0, 0.1, 1.0, 1.0], [3.0, -1.5, -0.1, 4.0], [1.0, 1.0, -0.5, 0.0])
    chosen = gates.Gate("mediated", (1, 1, 2), 0.8, 0.0, torch_generator(0)).rule(given_).argmax(1).tolist()
    expected = []
    for t, v, a, b in zip([2.0, 2.0, 1.0, 0.1], [2.0, 0.1, 1.0, 1.0], [3.0, -1.5, -0.1, 4.0], [1.0, 1.0, -0.5, 0.0], strict=True):
        expected.append((t - max(0.0, -a) > 0.8) + 2 * (v - max(0.0, -b) > 0.8))
    assert chosen == expected == [3, 0, 1, 2]


def test_controls_do_what_they_are_called() -> None:
    t, given_ = torch.zeros(3, 1), found([2.0, 0.0, 2.0], [2.0, 2.0, 0.0], [0.0] * 3, [0.0] * 3)

    def of(kind: str, names: list[str] | None = None) -> Tensor:
        gate = gates.Gate(kind, (1, 1, 2), 0.8, 0.0, torch_generator(0))
        return gate(t, t, given_, torch.zeros(2), names).exp()

    assert of("rule").argmax(1).tolist() == [3, 2, 1]
    assert of("always").argmax(1).tolist() == [3, 3, 3]
    assert of("constant").tolist() == [[0.25] * 4] * 3
    assert of("random").max(1).values.tolist() == [1.0] * 3
    assert of("oracle", ["core_text", "0 both", "none"]).argmax(1).tolist() == [2, 3, 0]
    with pytest.raises(ValueError, match="group:source"):
        of("oracle")


@pytest.mark.slow
def test_a_side_without_accepted_swaps_is_not_asked() -> None:
    views, _ = sources()
    none = dataclasses.replace(views, image_ok=torch.zeros(N, dtype=torch.bool))
    evidence = Evidence(4, 4, 2, FIT, True, torch_generator(0))
    found = evidence.learn(none, torch.arange(N), torch_generator(1))
    again = evidence(views.t, views.v, views.t_s, views.v_s)
    assert not found.keeps_v.any()
    assert not again.keeps_v.any()
    assert again.keeps_t.all()
