"""Effects in forms I and B against toy structural models: the true effects come from solving the equations under interventions, post by post."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from causalroute.model.effects import Effects, Scores, effect, on_label
from causalroute.model.fusion import KINDS, Kind, fuse, worlds

STAR, VALUES, CLASSES = 0, (1, 2), 3
"""The value of a variable that gets no treatment, the others, and C."""
POSTS = [dict(zip(("ts", "tc", "vs", "vc"), values, strict=True)) for values in itertools.product(VALUES, repeat=4)]
EVERY = torch.tensor([list(post.values()) for post in POSTS]).T
"""(4, 16)"""
TREATED = {"full": {"ts", "vs", "cores"}, "none": set(), "text": {"ts"}, "image": {"vs"}, "both": {"ts", "vs"}}
"""World -> what is treated there."""
Values = Mapping[str, Any]
Model = Mapping[str, Callable[[Values], Any]]
"""Structural equations of k and y."""


def solve(model: Model, post: Values, do: Values) -> dict[str, Any]:
    """Values of all variables: those of `do` are set, the others follow from the ones before them."""
    found = dict(post) | dict(do)
    for name, equation in model.items():
        found[name] = do[name] if name in do else equation(found)
    return found


def intervened(model: Model, post: Values, treated: set[str]) -> Sequence[float]:
    """Y where contexts outside `treated` are set to STAR and, unless the cores are treated, the mediator is held at K(t*, v*)."""
    do = {name: STAR for name in ("ts", "vs") if name not in treated}
    if "cores" not in treated:
        do["k"] = solve(model, post, {"tc": STAR, "vc": STAR})["k"]
    return solve(model, post, do)["y"]


def true_effects(model: Model) -> dict[str, Tensor]:
    """All effects of all posts, (16, C) float64."""
    y = {world: torch.tensor([list(intervened(model, post, treated)) for post in POSTS], dtype=torch.float64) for world, treated in TREATED.items()}
    nde_t, nde_v, nde_tv, te = (y[world] - y["none"] for world in ("text", "image", "both", "full"))
    return {"te": te, "nde_t": nde_t, "nde_v": nde_v, "nde_tv": nde_tv, "interaction": nde_tv - nde_t - nde_v, "indirect": te - nde_tv}


def same(found: Effects, expected: Mapping[str, Tensor], **tolerance: float) -> None:
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name), values, msg=lambda text, name=name: f"{name}: {text}", **(tolerance or {"atol": 0.0, "rtol": 0.0}))


def tables(seed: int) -> tuple[Tensor, Tensor]:
    """K (tc, vc) -> 0..2, untreated cores give STAR; Y (ts, vs, k) -> scores (C,)."""
    draw = torch.Generator().manual_seed(seed)
    k = torch.randint(3, (3, 3), generator=draw)
    k[STAR, STAR] = STAR
    return k, torch.randn(3, 3, 3, CLASSES, generator=draw, dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_form_i_is_exact_where_the_network_is_the_structural_model(seed):
    k, y = tables(seed)
    model = {"k": lambda found: k[found["tc"], found["vc"]].item(), "y": lambda found: y[found["ts"], found["vs"], found["k"]].tolist()}

    def network(ts: Tensor, tc: Tensor, vs: Tensor, vc: Tensor) -> Tensor:
        return y[ts, vs, k[tc, vc]]

    (ts, tc, vs, vc), o = EVERY, torch.zeros(16, dtype=torch.int64)
    shown = [(ts, tc, vs, vc), (o, o, o, o), (ts, o, o, o), (o, o, vs, o), (ts, o, vs, o)]
    found = Effects.of(Scores(*(network(*views) for views in shown)))
    same(found, true_effects(model))
    leaking = Effects.of(Scores(*(network(*views) for views in [*shown[:2], (ts, tc, o, o), *shown[3:]])))
    torch.testing.assert_close(leaking.nde_t - found.nde_t, y[ts, o, k[tc, o]] - y[ts, o, o], msg="a context view that shows its core is charged with it")


def naive(kind: Kind, z_k: float, z_t: float, z_v: float) -> float:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    if kind == "sum":
        return math.log(sigmoid(z_k + z_t + z_v))
    if kind == "hm":
        z = sigmoid(z_k) * sigmoid(z_t) * sigmoid(z_v)
        return math.log(z) - math.log(1 + z)
    return z_k * sigmoid(z_t) * sigmoid(z_v)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_form_b_is_exact_where_branches_are_the_structural_model(kind, seed):
    k, _ = tables(seed)
    k[1:, 1:] = k[1:, 1:].clamp_min(1)  # a treated mediator is not the constant
    draw = random.Random(seed)
    c = draw.uniform(-1, 1)
    branch = {name: [[c] * CLASSES, *([draw.gauss(0, 2) for _ in range(CLASSES)] for _ in VALUES)] for name in ("k", "ts", "vs")}
    model = {
        "k": lambda found: k[found["tc"], found["vc"]].item(),
        "y": lambda found: [naive(kind, *(branch[name][found[name]][label] for name in ("k", "ts", "vs"))) for label in range(CLASSES)],
    }
    z = {name: torch.tensor(values, dtype=torch.float64) for name, values in branch.items()}
    ts, tc, vs, vc = EVERY
    found = Effects.of(worlds(kind, z["k"][k[tc, vc]], z["ts"][ts], z["vs"][vs], torch.tensor(c, dtype=torch.float64)))
    same(found, true_effects(model), atol=1e-12, rtol=1e-12)


def branches(seed: int, classes: int = CLASSES) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z_k, z_t, z_v (8, C) and c (,)."""
    draw = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(3, 8, classes, generator=draw, dtype=torch.float64)
    return z[0], z[1], z[2], torch.randn((), generator=draw, dtype=torch.float64)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_closed_forms_of_form_b(seed):
    z_k, z_t, z_v, c = branches(seed)
    s_t, s_v, s_c = z_t.sigmoid(), z_v.sigmoid(), c.sigmoid()
    rubi = Effects.of(worlds("rubi", z_k, z_t, z_v, c))
    near = {"atol": 1e-9, "rtol": 1e-9}
    expected = {"nde_t": c * s_c * (s_t - s_c), "nde_v": c * s_c * (s_v - s_c), "interaction": c * (s_t - s_c) * (s_v - s_c)}
    same(rubi, expected | {"indirect": (z_k - c) * s_t * s_v, "te": z_k * s_t * s_v - c * s_c * s_c}, **near)
    odds = [torch.stack([-one[:, 0], one[:, 0]], 1) for one in (z_k, z_t, z_v)]  # two classes that speak with opposite signs
    total = Effects.of(worlds("sum", *odds, torch.zeros((), dtype=torch.float64)))
    log_odds = {name: getattr(total, name)[:, 1] - getattr(total, name)[:, 0] for name in ("te", "nde_t", "nde_v", "interaction", "indirect")}
    k, t, v = (one[:, 1] for one in odds)  # log sigmoid(s) - log sigmoid(-s) = s
    for name, value in {"te": k + t + v, "nde_t": t, "nde_v": v, "interaction": 0 * k, "indirect": k}.items():
        torch.testing.assert_close(log_odds[name], value, **near, msg=name)
    cf_vqa = torch.nn.functional.logsigmoid(z_k + z_t + z_v) - torch.nn.functional.logsigmoid(c + z_t + c)
    torch.testing.assert_close(Effects.of(worlds("sum", z_k, z_t, z_v, c)).indirect_past(text=True, image=False), cf_vqa, **near)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_identities_of_the_effects(kind, seed):
    z_k, z_t, z_v, c = branches(seed)
    found, one, near = Effects.of(worlds(kind, z_k, z_t, z_v, c)), torch.ones(8), {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(found.te, found.indirect + found.nde_tv, **near)
    torch.testing.assert_close(found.debiased(one, one), found.te - found.nde_t - found.nde_v, **near)
    torch.testing.assert_close(found.debiased(one, one), found.indirect + found.interaction, **near)
    for text, image in itertools.product((False, True), repeat=2):
        blocked = {(True, True): found.nde_tv, (True, False): found.nde_t, (False, True): found.nde_v}.get((text, image), 0 * found.te)
        torch.testing.assert_close(found.indirect_past(text=text, image=image), found.te - blocked, **near)
    alone = Effects.of(worlds(kind, z_k, z_t, None, c))
    torch.testing.assert_close(alone.te, fuse(kind, z_k, z_t) - fuse(kind, c, c), **near)
    same(alone, {"nde_v": 0 * z_k, "interaction": 0 * z_k, "nde_tv": alone.nde_t, "indirect": alone.indirect_past(text=True, image=False)}, **near)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_contexts_that_add_up_do_not_interact(seed):
    k, y = tables(seed)
    (ts, tc, vs, vc), o = EVERY, torch.zeros(16, dtype=torch.int64)
    text, image, core = y[:, 0, 0], y[0, :, 1], y[0, 0, :]

    def added(ts: Tensor, vs: Tensor, k: Tensor) -> Tensor:
        return text[ts] + image[vs] + core[k]

    full, blocked = k[tc, vc], k[o, o]
    found = Effects.of(Scores(added(ts, vs, full), added(o, o, blocked), added(ts, o, blocked), added(o, vs, blocked), added(ts, vs, blocked)))
    expected = {"nde_t": text[ts] - text[o], "nde_v": image[vs] - image[o], "interaction": 0 * found.te, "indirect": core[full] - core[blocked]}
    same(found, expected, atol=1e-12, rtol=1e-12)


def posterior(noise: float, rho_t: float, rho_v: float, known: Values) -> Tensor:
    """P(y | known) by going through every world of: polarities a, b; clean label [a != b], flipped with probability `noise`; cues that copy the label."""
    mass = torch.zeros(2, dtype=torch.float64)
    for a, b, flipped, agrees_t, agrees_v in itertools.product((0, 1), repeat=5):
        y = (a ^ b) ^ flipped
        world = {"a": a, "b": b, "ts": y if agrees_t else 1 - y, "vs": y if agrees_v else 1 - y}
        if all(world[name] == value for name, value in known.items()):
            mass[y] += (noise if flipped else 1 - noise) * (rho_t if agrees_t else 1 - rho_t) * (rho_v if agrees_v else 1 - rho_v)
    return mass / mass.sum()


@settings(deadline=None, max_examples=25)
@given(st.floats(0.01, 0.45), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_planted_effects_are_what_the_contexts_say_about_the_label(noise, rho_t, rho_v):
    """The direct effects of the planted benchmark: logit rho for each cue, no interaction, and logit(1 - noise) through the cores."""
    posts = [dict(zip(("a", "b", "ts", "vs"), values, strict=True)) for values in itertools.product((0, 1), repeat=4)]
    prior = posterior(noise, rho_t, rho_v, {}).log()

    def said(*names: str) -> Tensor:
        return effect(torch.stack([posterior(noise, rho_t, rho_v, {name: post[name] for name in names}).log() for post in posts]), prior)

    found = Effects(said("a", "b", "ts", "vs"), said("ts"), said("vs"), said("ts", "vs"))
    label = torch.ones(16, dtype=torch.int64)
    for name, rate, wants in (("nde_t", rho_t, "ts"), ("nde_v", rho_v, "vs"), ("indirect", 1 - noise, "")):
        signs = torch.tensor([1.0 if (post[wants] if wants else post["a"] ^ post["b"]) else -1.0 for post in posts], dtype=torch.float64)
        torch.testing.assert_close(on_label(getattr(found, name), label), signs * math.log(rate / (1 - rate)), atol=1e-9, rtol=1e-9, msg=name)
    torch.testing.assert_close(found.interaction, 0 * found.te, atol=1e-9, rtol=1e-9)
