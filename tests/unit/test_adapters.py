"""LoRA experts in a frozen multimodal LLM: what they add, what they leave alone."""

from __future__ import annotations

import sys

import peft
import pytest
import torch
from PIL import Image
from tests.unit.tiny_posts import tiny

from causalroute.errors import UserError
from causalroute.mllm.adapters import Adapters, Plan
from causalroute.mllm.model import Batch, Mllm
from causalroute.rng import torch_generator

KINDS = ("llava", "qwen2_5_vl", "mllama")
MAPS = {"llava": 14, "qwen2_5_vl": 14, "mllama": 19}
"""Linear maps of the language model's layers that read its tokens: 7 in each of two; of Llama 3.2 Vision three, one of which has 2 that read the image."""
PLAN = Plan(experts=4, rank=4, alpha=8.0, dropout=0.0)


@pytest.fixture(scope="module", params=KINDS)
def mllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    return tiny(tmp_path_factory.mktemp("mllm") / request.param, request.param)


def batch_of(mllm: Mllm, count: int = 3) -> Batch:
    """Posts of different length and colour."""
    return mllm.collate([mllm.chat("joy " * (1 + place), Image.new("RGB", (24, 24), (80 * place, 40, 0))) for place in range(count)])


def experts(mllm: Mllm, plan: Plan = PLAN, seed: int = 0) -> Adapters:
    """Adapters that say something from the start."""
    generator = torch_generator(seed)
    found = Adapters(mllm.network, plan, generator)
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if ".up." in name:
                weight.copy_(torch.empty(weight.shape).normal_(0, 0.3, generator=generator))
    return found


def one_hot(expert: int, count: int = 3) -> torch.Tensor:
    return torch.eye(PLAN.experts)[expert].expand(count, -1)


@torch.no_grad()
def test_without_weight_the_model_is_the_frozen_one_to_the_bit(mllm):
    batch = batch_of(mllm)
    frozen = mllm.states(batch)
    names = [name for name, _ in mllm.network.named_modules()]
    adapters = experts(mllm)
    with adapters.routed(torch.zeros(3, 4)):
        assert torch.equal(mllm.states(batch), frozen)
    with adapters.routed(one_hot(1)):
        assert not torch.allclose(mllm.states(batch), frozen, atol=1e-3)
    assert torch.equal(mllm.states(batch), frozen), "outside the context nothing is left of them"
    assert [name for name, _ in mllm.network.named_modules()] == names
    assert not hasattr(mllm.network, "peft_config")


@torch.no_grad()
def test_fresh_experts_say_nothing(mllm):
    batch = batch_of(mllm)
    frozen = mllm.states(batch)
    with Adapters(mllm.network, PLAN, torch_generator(0)).routed(torch.ones(3, 4)):
        assert torch.equal(mllm.states(batch), frozen)


@torch.no_grad()
def test_one_expert_with_weight_one_is_peft_with_that_adapter_alone(mllm, tmp_path):
    batch, adapters = batch_of(mllm), experts(mllm)
    other = tiny(tmp_path / "copy", mllm.network.config.model_type)
    linear = [name for name, module in other.network.named_modules() if "language_model.layers" in name and isinstance(module, torch.nn.Linear)]
    targets = [name for name in linear if not name.endswith(("cross_attn.k_proj", "cross_attn.v_proj"))]
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets), other.network, adapter_name="one")
    layers = [module for module in other.network.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert len(layers) == len(adapters.layers) == MAPS[other.network.config.model_type]
    for own, layer in zip(adapters.layers, layers, strict=True):
        layer.lora_A["one"].weight.copy_(own["down"]["expert2"].weight)
        layer.lora_B["one"].weight.copy_(own["up"]["expert2"].weight)
    with adapters.routed(one_hot(2)):
        torch.testing.assert_close(mllm.states(batch), other.states(batch), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_every_post_has_weights_of_its_own(mllm):
    batch, adapters = batch_of(mllm), experts(mllm)
    weights = torch.rand(3, 4, generator=torch_generator(1))
    with adapters.routed(weights):
        together = mllm.states(batch)
    for post in range(3):
        with adapters.routed(weights[post].expand(3, -1)):
            torch.testing.assert_close(together[post], mllm.states(batch)[post], atol=1e-6, rtol=1e-6)
    with adapters.routed(weights[:2]), pytest.raises(ValueError, match="3 chats, but weights of 2"):
        mllm.states(batch)


@torch.no_grad()
def test_weights_may_differ_from_token_to_token(mllm):
    batch, adapters = batch_of(mllm), experts(mllm)
    weights = torch.rand(3, 4, generator=torch_generator(1))
    length = batch.text.shape[1]
    with adapters.routed(weights):
        everywhere = mllm.states(batch)
    with adapters.routed(weights[:, None].expand(-1, length, -1)):
        torch.testing.assert_close(mllm.states(batch), everywhere, atol=1e-6, rtol=1e-6)
    late = weights[:, None] * batch.text.float()[..., None]
    with adapters.routed(late):
        states = mllm.states(batch)
    frozen, before = mllm.states(batch), batch.text.float().cumsum(1) == 0
    torch.testing.assert_close(states[before], frozen[before], atol=1e-6, rtol=1e-6)
    assert (states[batch.text] - frozen[batch.text]).abs().max() > 1e-3


def gradients(adapters: Adapters, mllm: Mllm, weights: torch.Tensor) -> list[torch.Tensor]:
    """Of the squared states, taken outside the context, as the loop takes them."""
    with adapters.routed(weights, learning=True):
        states = mllm.states(batch_of(mllm))
    return list(torch.autograd.grad(states.square().sum(), [*adapters.parameters(), weights]))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(mllm, dropout):
    found = []
    for checkpointing in (True, False):
        adapters = experts(mllm, Plan(4, 4, 8.0, dropout, checkpointing=checkpointing))
        torch.manual_seed(0)
        found.append(gradients(adapters, mllm, torch.full((3, 4), 0.25, requires_grad=True)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in found[0])


def test_checkpointing_keeps_less(mllm):
    kept = []
    for checkpointing in (True, False):
        adapters, sizes = experts(mllm, Plan(4, 4, 8.0, 0.0, checkpointing=checkpointing)), []
        with (
            torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x),
            adapters.routed(one_hot(0), learning=True),
        ):
            mllm.states(batch_of(mllm))
        kept.append(sum(sizes))
    assert kept[0] < 0.25 * kept[1]


def test_passes_with_different_weights_are_computed_again_under_their_own(mllm):
    adapters, batch = experts(mllm), batch_of(mllm)
    apart = [torch.autograd.grad(_states(adapters, mllm, batch, expert), list(adapters.parameters()), allow_unused=True) for expert in (0, 1)]
    both = torch.autograd.grad(_states(adapters, mllm, batch, 0) + _states(adapters, mllm, batch, 1), list(adapters.parameters()), allow_unused=True)
    for a, b, c in zip(*apart, both, strict=True):
        found = [value for value in (a, b) if value is not None]
        if found:
            torch.testing.assert_close(sum(found), c)
    assert [name for name, a, b in zip(dict(adapters.named_parameters()), *apart, strict=True) if a is not None and b is not None] == []


def _states(adapters: Adapters, mllm: Mllm, batch: Batch, expert: int) -> torch.Tensor:
    with adapters.routed(one_hot(expert), learning=True):
        return mllm.states(batch).square().sum()


@torch.no_grad()
def test_two_sets_of_experts_share_a_network(mllm):
    batch, first = batch_of(mllm), experts(mllm)
    with first.routed(one_hot(0)):
        before = mllm.states(batch)
    second = experts(mllm, Plan(2, 3, 4.0, 0.0, ("q_proj", "v_proj")), seed=1)
    assert (second.names, len(second.layers)) == (["q_proj", "v_proj"], {"mllama": 5}.get(mllm.network.config.model_type, 4))
    with second.routed(torch.ones(3, 2)):
        assert not torch.allclose(mllm.states(batch), before, atol=1e-3)
    with first.routed(one_hot(0)):
        assert torch.equal(mllm.states(batch), before)


def test_experts_sit_in_the_language_model_alone_and_nothing_else_learns(mllm):
    adapters = Adapters(mllm.network, PLAN, torch_generator(0))
    assert adapters.names == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert {weight.dtype for weight in adapters.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in adapters.parameters())
    assert not any(weight.requires_grad for weight in mllm.network.parameters())
    language = {id(module) for module in mllm.network.get_decoder().layers.modules()}
    assert all(id(place.frozen) in language for place in adapters._places)


def test_first_weights_come_from_the_generator_alone(mllm):
    state = torch.get_rng_state()
    a, b = (Adapters(mllm.network, PLAN, torch_generator(3)).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, b[key]) for key, value in a.items())
    other = Adapters(mllm.network, PLAN, torch_generator(4)).state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in a.items())


def test_mistakes_are_told(mllm, monkeypatch):
    with pytest.raises(UserError, match=r"no linear map called 'query'(.|\n)*q_proj"):
        Adapters(mllm.network, Plan(4, 4, 8.0, 0.0, ("query", "q_proj")), torch_generator(0))
    with pytest.raises(UserError, match="no layers of a language model"):
        Adapters(mllm.network.get_decoder().layers[0].mlp, PLAN, torch_generator(0))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"causalroute\[mllm\]"):
        Adapters(mllm.network, PLAN, torch_generator(0))


@torch.no_grad()
def test_an_expert_without_weight_costs_nothing(mllm):
    adapters, batch, seen = experts(mllm), batch_of(mllm), []
    for name, module in adapters.named_modules():
        if ".up." in name:
            module.register_forward_hook(lambda module, inputs, output, name=name: seen.append(name.rpartition(".")[2]))
    with adapters.routed(torch.tensor([[0.0, 0.5, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])):
        mllm.states(batch)
    assert {name: seen.count(name) for name in sorted(set(seen))} == dict.fromkeys(("expert1", "expert3"), MAPS[mllm.network.config.model_type])


@pytest.mark.parametrize("settings", [{"dtype": "bfloat16"}, {"layer": 1}, {"layer": -2}], ids=str)
def test_experts_learn_in_half_precision_and_below_the_last_layer(settings, tmp_path):
    mllm = tiny(tmp_path / "model", **settings)
    adapters = experts(mllm)
    batch = batch_of(mllm)
    with adapters.routed(torch.full((3, 4), 0.25), learning=True):
        answer = mllm.read(batch).answer
    found = torch.autograd.grad(answer.square().sum(), list(adapters.parameters()), allow_unused=True)
    reached = [value is not None and bool(value.abs().sum() > 0) for value in found]
    below = len(reached) // 2  # the maps of the first of two layers
    assert all(reached[:below])
    assert any(reached[below:]) == ("layer" not in settings)
    assert {value.dtype for value in found if value is not None} == {torch.float32}
