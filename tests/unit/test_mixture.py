"""The causal mixture of experts: every setting changes something, effects and scores fit together."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from tests.unit.short_training import posts, small, trained

from causalroute import methods
from causalroute.methods.base import Posts
from causalroute.model.experts import CollapseAlarm
from causalroute.rng import torch_generator

__all__ = ["posts"]

BASE = {"temperature": 0.5, "context_steps": 20, "router": "rule", "reweight": False}
CHANGES = [
    ({}, {"ramp_start": 0.5, "ramp_end": 0.6}), ({}, {"ramp_end": 0.9}), ({}, {"folds": 3}), ({}, {"context_hidden": 8}), ({}, {"clip": 1.0}),
    ({}, {"context_steps": 30}),
    ({}, {"router": "learned"}), ({}, {"threshold": 3.0}), ({}, {"temperature": 0.0}), ({}, {"per_kind": 2}), ({}, {"rank": 2}), ({}, {"rank": 0}),
    ({}, {"top_k": 1}), ({}, {"top_k": 0}), ({}, {"own": 0.0}), ({}, {"te": 0.0}),
    ({"per_kind": 2}, {"balance": 1.0}), ({"per_kind": 3, "top_k": 1}, {"balancing": "bias"}), ({"per_kind": 2}, {"z": 1.0}),
    ({}, {"form": "B"}), ({}, {"direct": "text"}), ({}, {"direct": "none"}), ({}, {"reweight": True}), ({}, {"amount": "one"}), ({}, {"swaps": False}),
    ({"swaps": False}, {"subtract": 1.0}), ({}, {"router": "ce"}), ({}, {"router": "always"}), ({}, {"router": "constant"}),
    ({}, {"router": "random"}),
    ({"router": "learned"}, {"pretrain": 5}), ({"router": "learned"}, {"router_start": 0.9}), ({"router": "learned"}, {"residual": 2.0}),
    ({"router": "learned"}, {"ipw_clip": 1.0}), ({"router": "learned"}, {"balance": 1.0}), ({"router": "learned"}, {"z": 1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("common", "change"), CHANGES, ids=[json.dumps(change) for _, change in CHANGES])
def test_every_setting_of_the_mixture_changes_the_result(common, change, posts):
    data = small(posts["biased"])
    assert not torch.equal(mixture_answer(json.dumps(BASE | common), data), mixture_answer(json.dumps(BASE | common | change), data))


def mixture_answer(settings: str, data: Posts, known: dict[str, torch.Tensor] = {}) -> torch.Tensor:  # noqa: B006 - a cache
    if settings not in known:
        method, _ = trained("causal_moe", data, json.loads(settings), epochs=3)
        with torch.no_grad():
            answer = method.answer(data.inputs(data.valid))
        known[settings] = torch.cat([answer.p, answer.te, answer.gates], 1)
    return known[settings]


def test_no_setting_of_the_mixture_is_untested():
    tested = {key for _, change in CHANGES for key in change}
    assert tested == {field.name for field in dataclasses.fields(methods.load("causal_moe").Settings)}


@pytest.mark.slow
def test_the_mixture_shows_effects_gates_and_scores_that_fit_together(posts):
    data = posts["biased"]
    method, _ = trained("causal_moe", data, {"temperature": 0.3, "per_kind": 2, "top_k": 0}, epochs=3)
    inputs = data.inputs(data.valid)
    with torch.no_grad():
        answer = method.answer(inputs)
    prior = method.evidence.log_prior
    s = answer.p[:, 1].logit() - (prior[1] - prior[0])
    a = torch.nn.functional.softplus(method.amount)
    q_t, q_v = answer.gates[:, 1] + answer.gates[:, 3], answer.gates[:, 2] + answer.gates[:, 3]
    torch.testing.assert_close(answer.te[:, 1], s + a[0] * q_t * answer.nde_t[:, 1] + a[1] * q_v * answer.nde_v[:, 1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(answer.gates.sum(1), torch.ones(200))
    torch.testing.assert_close(answer.experts.sum(1), torch.ones(200))
    torch.testing.assert_close(answer.experts.unflatten(1, (4, 2)).sum(2), answer.gates, atol=1e-5, rtol=1e-4)
    assert answer.nde_t.abs().max() <= 5
    both = method.evidence_on(inputs).nde_tv
    torch.testing.assert_close(answer.nde_tv, both)
    contexts = torch.cat([inputs.t_s, inputs.v_s], 1)
    torch.testing.assert_close(answer.nde_tv, method.evidence.both.effects(contexts, method.settings.clip))


def test_the_mixture_treats_what_has_a_direct_effect_and_keeps_the_rest(posts):
    data = posts["biased"]
    views = dict(data.views)
    views["v_s"] = torch.randn(views["v_s"].shape, generator=torch_generator(0))
    method, _ = trained("causal_moe", dataclasses.replace(data, views=views), epochs=1)
    with torch.no_grad():
        gates = method.answer(dataclasses.replace(data, views=views).inputs(data.valid)).gates.mean(0)
    assert gates[1] > 0.8
    assert gates[2] + gates[3] < 0.1


def test_a_collapsed_expert_is_told_once(posts, caplog):
    data = posts["biased"]
    method, _ = trained("causal_moe", data, {"per_kind": 2, "router": "rule"}, epochs=1)
    with torch.no_grad():
        method.within.weight.zero_()
        method.within.bias.copy_(torch.tensor([20.0, 0.0] * 4))
        caplog.clear()
        method.alarm = CollapseAlarm()
        method.settle(data)
        assert not caplog.text, "one epoch is no collapse"
        for _ in range(2):
            method.settle(data)
    assert caplog.text.count("experts collapsed") == 1
    assert "both 1" in caplog.text
    assert "both 0" not in caplog.text


def test_a_bias_balances_the_experts_of_a_kind(posts):
    data = posts["biased"]
    method, _ = trained("causal_moe", data, {"per_kind": 4, "top_k": 1, "router": "always", "balance": 0.0, "balancing": "bias"}, epochs=1)
    inputs = data.inputs(data.train)
    with torch.no_grad():
        method.within.bias[12:] += torch.tensor([2.0, 0.0, 0.0, -2.0])
        log_gates = method.log_gates(inputs.t, inputs.v, method.evidence_on(inputs), None)
        h = method.encoder(inputs.t, inputs.v)
        loads = []
        for _ in range(500):
            routing, _ = method.routing(log_gates, h)
            loads.append(routing.counts[12:] / len(data.train))
            method._balanced(routing)
    assert loads[0].max() > 0.6
    assert loads[-1].max() < 0.3
    assert loads[-1].min() > 0.2


def test_weights_of_untreated_contexts_remove_their_direct_effect(posts):
    data = posts["biased"]
    method, _ = trained("causal_moe", data, {"router": "rule"}, epochs=1)
    rows = data.train[:50]
    found, y = method._known(rows), data.labels[rows]
    q_t, q_v = torch.zeros(50), torch.ones(50)
    prior = method.evidence.log_prior.exp()
    for row, weight in enumerate(method._importance(y, 1 - q_t, 1 - q_v, found).tolist()):
        odds = (prior[1] / prior[0]).item() * float(found.nde_t[row, 1].exp())
        p = odds / (1 + odds) if y[row] else 1 / (1 + odds)
        assert weight == pytest.approx(min(20.0, float(prior[y[row]]) / p), rel=1e-3)
    assert method._importance(y, q_t, 1 - q_v, found).tolist() == [1.0] * 50


def test_parts_of_selection_that_the_gate_rejects_are_left_out(posts):
    data = posts["biased"]
    method, history = trained("causal_moe", data, {"direct": "none", "router": "rule"}, epochs=1)
    assert [check.name for check in method.checks(data)] == ["factual"]
    assert history[-1]["valid/selection"] == history[-1]["valid/factual"]


@pytest.mark.slow
def test_a_side_without_accepted_swaps_is_neither_swapped_nor_weighed(posts):
    data = dataclasses.replace(posts["biased"], image_ok=torch.zeros_like(posts["biased"].image_ok))
    views = {**data.views, "v_s": torch.randn(data.views["v_s"].shape, generator=torch_generator(0))}
    settings = {"router": "rule", "te": 0.0, "own": 0.0, "rank": 0}
    a, b = (trained("causal_moe", each, settings, epochs=2)[0].encoder.state_dict() for each in (data, dataclasses.replace(data, views=views)))
    assert all(torch.equal(a[key], b[key]) for key in a), "its context is not looked at"
