"""Experts inside a frozen language model: LoRA adapters (peft), each weighed per post by a router.

    y = W x + sum_e g_e (alpha / R) B_e A_e dropout(x)          in every linear map of attention and MLP of every layer of the language model

W stays as it is, and so does the vision tower; g = 0 is the frozen model. The adapted layers stand in the network only inside `Adapters.routed`, so that
several sets of adapters can share one network and nobody else notices them. With checkpointing a layer keeps its input alone and is computed again in the
backward pass, then under the weights that it was computed under before.

Letters: B chats, L tokens, E experts, R rank, Di and Do widths of a linear map.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from causalroute.errors import UserError

OF_IMAGES = ("cross_attn.k_proj", "cross_attn.v_proj")
"""Linear maps in the layers of a language model that read what the vision tower says, not its tokens (Llama 3.2 Vision): they stay as that tower does."""


@dataclass(frozen=True)
class Plan:
    """What the adapters are like."""

    experts: int
    """E"""
    rank: int
    """R"""
    alpha: float
    """their scale times R"""
    dropout: float
    """of what they see"""
    targets: tuple[str, ...] = ()
    """last parts of the names of the linear maps; none: all of the language model's layers"""
    checkpointing: bool = True
    """compute layers again in the backward pass instead of keeping what is inside them"""


@dataclass(frozen=True)
class Place:
    """A linear map of the network and what stands in its place while the experts are at work."""

    parent: nn.Module
    name: str
    frozen: nn.Module
    adapted: Any


class Adapters(nn.Module):
    """E adapters for a network; their weights are the only ones that this module holds.

    Args:
        network: a multimodal language model of transformers, frozen.
        plan: see there.
        generator: first weights: A_e uniform, B_e zero, so that every expert starts as the frozen model.

    Raises:
        UserError: peft is missing, or the network has no layers or linear maps of these names.
    """

    def __init__(self, network: nn.Module, plan: Plan, generator: Generator) -> None:
        super().__init__()
        self.plan, self._weights = plan, torch.empty(0, plan.experts)
        language = _language_model(network)
        self._blocks = list(language.layers)
        self._places = _injected(network, _targets(network, language, plan.targets), plan)
        self.layers = nn.ModuleList(nn.ModuleDict({"down": place.adapted.lora_A, "up": place.adapted.lora_B}) for place in self._places)
        self._draw(generator)
        for place in self._places:
            for expert in range(plan.experts):
                place.adapted.lora_B[_name(expert)].register_forward_hook(partial(self._weighed, expert))

    @torch.no_grad()
    def _draw(self, generator: Generator) -> None:
        """First weights, on the CPU wherever they lie: peft would take them from a global generator."""
        for place in self._places:
            for down, up in zip(place.adapted.lora_A.values(), place.adapted.lora_B.values(), strict=True):
                bound = down.weight.shape[1] ** -0.5
                down.weight.copy_(torch.empty(down.weight.shape).uniform_(-bound, bound, generator=generator))
                up.weight.zero_()

    def _weighed(self, expert: int, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """An expert's part (B, ..., Do) times its weight in each chat."""
        if len(self._weights) != len(output):
            raise ValueError(f"{len(output)} chats, but weights of {len(self._weights)}")
        weights = self._weights[..., expert].to(output)  # (B,) or (B, L)
        return output * weights.view(*weights.shape, *[1] * (output.dim() - weights.dim()))

    @contextmanager
    def routed(self, weights: Tensor, *, learning: bool = False) -> Iterator[None]:
        """Passes of the network inside see every expert times its weight (B, E), or one for each token (B, L, E); `learning` switches dropout and
        checkpointing on.

        An expert that no chat gives weight to is not computed: exact for what flows on, and its weights learn nothing in this pass.
        """
        used = [_name(expert) for expert, some in enumerate(weights.detach().ne(0).flatten(0, -2).any(0).tolist()) if some]

        def again() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return nullcontext(), self._placed(weights, used, learning)

        with ExitStack() as stack:
            stack.enter_context(self._placed(weights, used, learning))
            for block in self._blocks if learning and self.plan.checkpointing else []:
                stack.enter_context(_replaced(block, "forward", partial(checkpoint, block.forward, use_reentrant=False, context_fn=again)))
            yield

    @contextmanager
    def _placed(self, weights: Tensor, used: list[str], learning: bool) -> Iterator[None]:
        before, self._weights = self._weights, weights
        stood = [getattr(place.parent, place.name) for place in self._places]
        for place in self._places:
            place.adapted.lora_dropout.train(learning)
            place.adapted._active_adapter = used  # peft's set_adapter would also stop the others from learning
            setattr(place.parent, place.name, place.adapted)
        try:
            yield
        finally:
            self._weights = before
            for place, module in zip(self._places, stood, strict=True):
                setattr(place.parent, place.name, module)

    @property
    def names(self) -> list[str]:
        """Of the adapted linear maps, within their layers."""
        return sorted({place.name for place in self._places})


@contextmanager
def _replaced(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """An attribute of the object itself, put back or taken away again."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


def _name(expert: int) -> str:
    return f"expert{expert}"


def _language_model(network: Any) -> Any:
    """The part that has the layers."""
    found = network.get_decoder() if hasattr(network, "get_decoder") else None
    if not isinstance(getattr(found, "layers", None), nn.ModuleList):
        fix = "choose a model whose text decoder has `layers`, such as Qwen2.5-VL, LLaVA, InternVL, Gemma 3 or SmolVLM"
        raise UserError(f"no layers of a language model are found in {type(network).__name__}", where="methods.lora_moe", fix=fix)
    return found


def _targets(network: nn.Module, language: Any, wanted: tuple[str, ...]) -> list[str]:
    """Full names of the linear maps of the language model's layers that read its tokens, and of no other part."""
    inside = {id(module) for module in language.layers.modules() if isinstance(module, nn.Linear)}
    linear = [name for name, module in network.named_modules() if id(module) in inside and not name.endswith(OF_IMAGES)]
    found = [name for name in linear if not wanted or name.rpartition(".")[2] in wanted]
    if missing := sorted(set(wanted) - {name.rpartition(".")[2] for name in found}):
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise UserError(f"the language model has no linear map called {missing[0]!r}", where="methods.lora_moe.targets", fix=f"choose from {known}")
    return found


def _injected(network: Any, targets: list[str], plan: Plan) -> list[Place]:
    """peft's layers in place of the targets, taken out again."""
    peft = _peft()
    parents = {name: network.get_submodule(name.rpartition(".")[0]) for name in targets}
    frozen = {name: network.get_submodule(name) for name in targets}
    config = {"r": plan.rank, "lora_alpha": plan.alpha, "lora_dropout": plan.dropout, "target_modules": targets}
    with torch.random.fork_rng(devices=[]):
        for expert in range(plan.experts):
            peft.inject_adapter_in_model(peft.LoraConfig(**config), network, adapter_name=_name(expert))
            vars(network).pop("peft_config", None)  # of no use without peft's own model around the network, and it would be added to
    places = []
    for name in targets:
        adapted: Any = network.get_submodule(name)
        adapted.set_adapter([_name(expert) for expert in range(plan.experts)])
        places.append(Place(parents[name], name.rpartition(".")[2], frozen[name], adapted))
        setattr(parents[name], places[-1].name, frozen[name])
        for part in (adapted.lora_A, adapted.lora_B):
            part.float().requires_grad_()
    return places


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("adapters in a language model need the package peft", where="methods.lora_moe", fix="pip install 'causalroute[mllm]'") from error
    return peft
