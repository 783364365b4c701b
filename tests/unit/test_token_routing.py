"""Routing of single tokens: sums against naive loops, what the modality mask lets through, and that padding is nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from causalroute.model.experts import Experts
from causalroute.model.tokens import States, TokenRouter, TokenTrunk, mixture, sparse, token_sums
from causalroute.rng import torch_generator

B, LT, LV, DT, DV, H, R, C = 3, 4, 5, 6, 7, 8, 2, 3
LENGTHS = ([4, 2, 3], [5, 5, 1])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sides(seed: int = 1) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Text and image tokens of B posts, of different lengths."""
    text, image = (torch.arange(most) < torch.tensor(lengths)[:, None] for most, lengths in zip((LT, LV), LENGTHS, strict=True))
    return (noise(B, LT, DT, seed=seed), text), (noise(B, LV, DV, seed=seed + 1), image)


def trunk() -> TokenTrunk:
    return TokenTrunk((DT, DV), H, 0.0, torch_generator(0, "trunk")).requires_grad_(False)


def experts(per_kind: int = 1) -> Experts:
    found = Experts(H, R, 4 * per_kind, C, torch_generator(0, "experts"))
    found.up.data = noise(*found.up.shape, seed=3)
    return found.requires_grad_(False)


def router(per_kind: int = 1, top_k: int = 0, masked: bool = True) -> TokenRouter:
    return TokenRouter(torch.arange(4).repeat_interleave(per_kind), top_k, masked)


def gates(seed: int = 5) -> Tensor:
    return noise(B, 4, seed=seed).log_softmax(-1)


def one_by_one(states: States, weights: Tensor, adapters: Experts) -> Tensor:
    """S of the module's docstring, token by token."""
    number, rows = iter(weights), []
    for post in range(B):
        total = torch.zeros(H)
        for place in range(LT + LV):
            if states.mask[post, place]:
                h, w = states.h[post, place], next(number)
                moved = sum(w[e] * functional.gelu(adapters.down[e] @ h) @ adapters.up[e] for e in range(len(w)))
                total = total + states.attention[post, place] * (h + moved)
        rows.append(adapters.head(total))
    return torch.stack(rows)


@pytest.mark.parametrize(("per_kind", "top_k", "masked"), [(1, 0, True), (1, 0, False), (2, 2, True), (2, 1, False), (3, 0, True)])
def test_the_mixture_is_that_of_a_loop_over_tokens(per_kind: int, top_k: int, masked: bool) -> None:
    states, adapters, route = trunk()(noise(B, H), *sides()), experts(per_kind), router(per_kind, top_k, masked)
    within = nn.Linear(H, 4 * per_kind).requires_grad_(False) if per_kind > 1 else None
    found, weights = route(gates(), states, within, None)
    assert len(weights) == int(states.mask.sum())
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    s, z = mixture(adapters, states, weights, route.forced())
    torch.testing.assert_close(s, one_by_one(states, weights, adapters))
    if top_k:
        assert (weights > 0).sum(1).max() <= top_k
        torch.testing.assert_close(sparse(adapters, states, found), s)
    for e, acting in enumerate(route.forced().T):
        firm = functional.one_hot(acting[states.sides[states.mask]], 4 * per_kind).float()
        torch.testing.assert_close(z[:, e], one_by_one(states, firm, adapters))


def test_views_are_computed_together_as_they_are_alone() -> None:
    (text, text_in), (image, image_in) = sides()
    other_text, other_image = sides(seed=20)[0][0], sides(seed=30)[1][0]
    h, route, adapters = noise(2, 2, B, H), router(), experts()
    grid = trunk().grid(h, (torch.stack([text, other_text]), torch.stack([text_in] * 2)), (torch.stack([image, other_image]), torch.stack([image_in] * 2)))
    _, weights = route(gates(), grid, None, None)
    s, z = mixture(adapters, grid, weights, route.forced())
    for a, one_text in enumerate((text, other_text)):
        for b, one_image in enumerate((image, other_image)):
            alone = trunk()(h[a, b], (one_text, text_in), (one_image, image_in))
            torch.testing.assert_close(grid.attention[a, b], alone.attention)
            _, own = route(gates(), alone, None, None)
            expected = mixture(adapters, alone, own, route.forced())
            torch.testing.assert_close((s[a, b], z[a, b]), expected)


def test_what_stands_behind_the_last_token_is_not_looked_at() -> None:
    (text, text_in), (image, image_in) = sides()
    answers = []
    for fill in (0.0, 100.0):
        padded = [torch.where(inside[..., None], x, fill) for x, inside in ((text, text_in), (image, image_in))]
        states = trunk()(noise(B, H), (padded[0], text_in), (padded[1], image_in))
        torch.testing.assert_close(states.attention.sum(-1), torch.ones(B))
        _, weights = router()(gates(), states, None, None)
        answers.append(torch.cat([part.flatten() for part in mixture(experts(), states, weights, router().forced())]))
    assert torch.equal(*answers)
    torch.testing.assert_close(token_sums([(padded[0], text_in)]), token_sums([(text, text_in)]))


def test_a_gate_reaches_the_tokens_of_the_side_that_it_treats() -> None:
    states = trunk()(noise(B, H), *sides())
    of_text = states.sides[states.mask] == 0
    for kind, kept in ((0, (0, 0)), (1, (1, 0)), (2, (0, 2)), (3, (3, 3))):
        firm = functional.one_hot(torch.full((B,), kind), 4).float().log()
        chosen = router()(firm, states, None, None)[1].argmax(1)
        assert (chosen[of_text].unique().tolist(), chosen[~of_text].unique().tolist()) == ([kept[0]], [kept[1]])
        assert router().forced()[:, kind].tolist() == list(kept)
        assert router(masked=False)(firm, states, None, None)[1].argmax(1).unique().tolist() == [kind]
    soft, q = router()(gates(), states, None, None)[1], gates().exp()
    posts = torch.arange(B)[:, None].expand(states.mask.shape)[states.mask]
    treated = torch.where(of_text, q[posts, 1] + q[posts, 3], q[posts, 2] + q[posts, 3])
    torch.testing.assert_close(torch.where(of_text, soft[:, 1], soft[:, 2]) + soft[:, 3], treated)
    assert not torch.where(of_text, soft[:, 2], soft[:, 1]).any()


def test_an_expert_that_debiases_one_side_learns_from_no_token_of_the_other() -> None:
    states, adapters = trunk()(noise(B, H), *sides()), experts(2).requires_grad_(True)
    within = nn.Linear(H, 8)
    bare = dataclasses.replace(states, h=states.h.detach().requires_grad_(True))
    route = router(2, 0)
    _, weights = route(gates(), bare, within, None)
    s, z = mixture(adapters, bare, weights, route.forced())
    for expert, side in ((2, 1), (3, 1), (4, 0), (5, 0)):  # text experts and patches, image experts and words
        assert not weights[bare.sides[bare.mask] == side][:, expert].any()
        adapters.zero_grad()
        z[:, expert].sum().backward(retain_graph=True)
        whole = adapters.down.grad[expert].clone()
        cut = dataclasses.replace(bare, attention=bare.attention * (bare.sides != side))
        adapters.zero_grad()
        mixture(adapters, cut, weights.detach(), route.forced())[1][:, expert].sum().backward()
        torch.testing.assert_close(adapters.down.grad[expert], whole)
    assert torch.isfinite(s).all()


def test_tokens_are_standardised_by_those_of_train_posts() -> None:
    (text, inside), _ = sides()
    parts = [(text[:1], inside[:1]), (text[1:], inside[1:])]
    one = trunk()
    one.fit("text", token_sums(parts))
    seen = text[inside]
    torch.testing.assert_close(one.text_mean, seen.mean(0))
    torch.testing.assert_close(one.text_std, seen.std(0, correction=0))
    one.fit("image", token_sums([(torch.ones(2, 3, DV), torch.ones(2, 3, dtype=torch.bool))]))
    assert torch.equal(one.image_std, torch.ones(DV)), "a feature that never varies is only centred"
