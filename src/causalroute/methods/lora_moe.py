"""The causal mixture inside a multimodal LLM: LoRA experts in the layers of its language model, routed by the gate of `causal_moe`.

    y   = W x + sum_e w_e (alpha / R) B_e A_e x        in every linear map of the language model's layers; W and the vision tower frozen (mllm/adapters.py)
    S   = H s(x; w)                                    s the state where the model would answer, H a linear class head
    w                                                  from the gate through causalroute.routing; evidence and gate as in `causal_moe`, fitted on the cached
                                                       features of the frozen model before the first step
    L   = mean over x, x_T, x_V, x_TV of u CE(S), weighted 1, r q_T, r q_V, r q_TV
          + own * CE(S with one expert alone) on one of x and the swaps of the sides that it treats, both drawn at random in every step (+ balance)

A pass is made for those posts only whose weight in it is not 0. Passes of `pass_size` posts follow one another, and each is differentiated before the next
begins: memory is that of one. Base weights are neither in checkpoints nor in the weights file.
Letters: B batch, E experts, C classes, D width of the language model, R rank, r ramp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from causalroute.config import section
from causalroute.errors import UserError
from causalroute.methods.base import Answer, Inputs, Origin, Posts, Raw, Reader, Shape
from causalroute.methods.mediated import Mediated
from causalroute.model import gates
from causalroute.model.accumulate import Part, summed
from causalroute.model.effects import effect, to_scores
from causalroute.model.evidence import Found
from causalroute.model.layers import linear
from causalroute.model.losses import cross_entropy, ramp, swap_weights
from causalroute.routing import load_balance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalroute.mllm.adapters import Adapters

EDITOR = "dataset"
READS = "posts"
PAIRS = (("t", "v"), ("t", "v_swap"), ("t_swap", "v"), ("t_swap", "v_swap"))
"""x, x_V, x_T, x_TV: the order of `swap_weights`."""


@section
class Settings:
    """Settings of the mixture inside a multimodal LLM."""

    ramp_start: float = 0.1
    """share of steps before the swap terms set in"""
    ramp_end: float = 0.4
    """share of steps from which they count fully"""
    folds: int = 4
    """cross-fitting folds of the context heads"""
    context_hidden: int = 32
    """hidden units of a context head"""
    context_steps: int = 200
    """most training steps of the context heads; the held-out loss chooses among them"""
    clip: float = 5.0
    """largest direct effect, log-odds"""
    router: Literal["rule", "mediated", "always", "constant", "oracle"] = "mediated"
    """rule: treat a side with a direct effect; mediated: unless its swap turns the label; others: controls"""
    reweight: bool = True
    """weigh posts by p(y) / p(y | contexts that are not treated)"""
    threshold: float = 0.8
    """log-odds of the direct effect above which a side is treated"""
    temperature: float = 0.0
    """softness of the rule in log-odds; 0 is the hard rule"""
    ipw_clip: float = 20.0
    """largest inverse-probability weight, of `reweight` and of the mediated rule's heads"""
    per_kind: int = 1
    """experts of each of the kinds keep, text, image, both"""
    top_k: int = 2
    """experts per post; 0: all of them, weighted"""
    rank: int = 8
    """R of an adapter"""
    alpha: float = 16.0
    """scale of an adapter times its rank"""
    dropout: float = 0.0
    """of what an adapter sees"""
    tokens: Literal["all", "own"] = "all"
    """which tokens an expert acts on: all, or of text and image those alone that its kind treats (the question and the answer see every expert)"""
    targets: tuple[str, ...] = ()
    """last parts of the names of the linear maps that get adapters, such as [q_proj, v_proj]; none: all in the language model's layers"""
    own: float = 1.0
    """weight of the loss of one expert alone, drawn anew in every step"""
    swaps: bool = True
    """counterfactual training; off: cross-entropy on the posts alone"""
    balance: float = 0.01
    """weight of the load-balance loss among experts of a kind, where there are several"""
    z: float = 0.001
    """weight of the z-loss of the choice among them, likewise"""
    lr: float = 0.2
    """peak learning rate in units of train.lr"""
    pass_size: int = 8
    """posts per forward pass"""
    checkpointing: bool = True
    """keep the inputs of layers alone and compute the rest again in the backward pass"""

    def __post_init__(self) -> None:
        if self.top_k > 4 * self.per_kind:
            raise ValueError(f"top_k = {self.top_k} exceeds the {4 * self.per_kind} experts (4 kinds, per_kind = {self.per_kind})")
        if self.rank < 1 or self.pass_size < 1:
            raise ValueError("rank and pass_size must be at least 1")


def open_posts(ids: Sequence[str], origin: Origin) -> Reader:
    """What reads the posts `ids`."""
    from causalroute.mllm.posts import open_reader

    return open_reader(ids, origin.dataset, origin.name, origin.backbone, origin.editor, origin.held_out)


@dataclass(frozen=True)
class Term:
    """One pair of views of a batch, as far as it counts in the loss."""

    name: str
    raw: Raw
    labels: Tensor
    """(b,)"""
    routes: Callable[[Tensor], Tensor]
    """weights (p, E) of the experts on some of the posts (p,): made anew for each pass, for its gradient ends the graph that it came through"""
    weights: Tensor
    """(b,) of the posts in the loss"""


class Method(Mediated):
    """See the module."""

    def __init__(self, settings: Settings, shape: Shape, generator: Generator) -> None:
        super().__init__(settings, shape, generator)
        self.pace = settings.lr
        self.bias = None
        if settings.per_kind > 1:
            self.within = linear(shape.text_dim + shape.image_dim, 4 * settings.per_kind, generator)
        self.mediate("I", generator)
        self.adapters: Adapters | None = None
        self.head: nn.Linear | None = None
        self.device = torch.device("cpu")

    def attach(self, reader: Reader, generator: Generator) -> None:
        """Puts adapters and a class head, which train, to the frozen model."""
        from causalroute.mllm.adapters import Adapters, Plan

        if len({parameter.device for parameter in reader.network.parameters()}) > 1:
            raise UserError("training wants the model on one device", where="params.yaml: backbones.<name>.mllm.device", fix="name one: cuda, cuda:1 or cpu")
        set_ = self.settings
        plan = Plan(4 * set_.per_kind, set_.rank, set_.alpha, set_.dropout, set_.targets, set_.checkpointing)
        self.adapters = Adapters(reader.network, plan, generator)
        self.head = linear(reader.width, self.shape.classes, generator)
        self.device = reader.device
        for module in (self.head, self.within):
            if module is not None:
                module.to(self.device)

    def _parts(self) -> tuple[Adapters, nn.Linear]:
        if self.adapters is None or self.head is None:
            fix = "give the data set a backbone of kind mllm, or take the method out of its `methods`"
            raise UserError("lora_moe trains inside a multimodal LLM, and got none", where="methods.lora_moe", fix=fix)
        return self.adapters, self.head

    def _routes(self, inputs: Inputs, found: Found) -> tuple[Tensor, Tensor, Any]:
        """Log-gates (B, 4), weights of the experts (B, E), and the routing."""
        log_gates = self.log_gates(inputs.t, inputs.v, found, inputs.sources)
        features = torch.cat([inputs.t, inputs.v], 1)
        routing, weights = self.routing(log_gates.to(self.device), features.to(self.device))
        return log_gates, weights, routing

    def _routes_of(self, posts: Posts, raw: Raw, places: Tensor) -> Tensor:
        """Weights of the experts (p, E) on some of the train posts of a term."""
        rows = raw.rows[places]
        return self._routes(posts.inputs(rows, raw.text, raw.image, raw.swap), self._known(rows))[1]

    def _pass(self, batch: Any, reader: Reader, routes: Tensor, learning: bool) -> Tensor:
        """S of the posts of one pass, (b, C)."""
        adapters, head = self._parts()
        with adapters.routed(self._at_tokens(routes, batch), learning=learning):
            states = reader.states(batch)
        scores: Tensor = head(states)
        return scores

    def _at_tokens(self, routes: Tensor, batch: Any) -> Tensor:
        """Weights (b, L, E) that are 0 where an expert that treats the other side alone would act; (b, E) where all act everywhere."""
        if self.settings.tokens == "all":
            return routes
        text, image = (side.to(routes) for side in self.treats)  # (E,)
        elsewhere = batch.image.to(routes)[..., None] * text * (1 - image) + batch.text.to(routes)[..., None] * image * (1 - text)
        return routes[:, None] * (1 - elsewhere)

    def loss(self, posts: Posts, rows: Tensor, progress: float, generator: Generator) -> dict[str, Tensor]:
        """The terms of the module's L."""
        self._parts()
        set_, found = self.settings, self._known(rows)
        strength = ramp(progress, set_.ramp_start, set_.ramp_end) * set_.swaps
        swap = int(torch.randint(min(posts.views[name].shape[1] for name in ("t_swap", "v_swap")), (), generator=generator))
        seed = int(torch.randint(2**62, (), generator=generator))
        terms = [*self._mixed(posts, rows, found, strength, swap), *self._own(posts, rows, strength, swap, generator)]
        parts = {term.name: torch.zeros((), device=self.device) for term in terms}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):  # peft's dropout draws from the global generator
            torch.manual_seed(seed)
            loss = summed(self._passes(terms, parts), [p for p in self.parameters() if p.requires_grad])
        if self.within is not None:
            features = torch.cat([posts.views["t"][rows], posts.views["v"][rows]], 1).to(self.device)
            parts["balance"] = self._balanced(posts.inputs(rows), found, features)
            loss = loss + parts["balance"]
        return {"loss": loss, **parts}

    def _mixed(self, posts: Posts, rows: Tensor, found: Found, strength: float, swap: int) -> Iterator[Term]:
        """x and its swaps under the weights of the router; a swap comes with those posts alone that it counts for."""
        text, image = posts.text_ok[rows].float(), posts.image_ok[rows].float()
        q_t, q_v, q_tv = gates.switches(self.log_gates(posts.views["t"][rows], posts.views["v"][rows], found, posts.sources_of(rows)).exp())
        importance = self._importance(posts.labels[rows], (1 - q_t) * text, (1 - q_v) * image, found)
        weights = swap_weights(q_t * text, q_v * image, q_tv * text * image, strength) * importance  # (2, 2, B)
        for pair, weight in zip(PAIRS, (weights / weights.sum()).flatten(0, 1), strict=True):
            kept = weight.nonzero().flatten()
            if len(kept):
                raw = _raw(posts, rows[kept], pair, swap)
                yield Term("s", raw, posts.labels[raw.rows], partial(self._routes_of, posts, raw), weight[kept])

    def _own(self, posts: Posts, rows: Tensor, strength: float, swap: int, generator: Generator) -> Iterator[Term]:
        """One expert alone, on x or on swaps of the sides that it treats, each as likely as it weighs in the mixture's loss."""
        if not self.settings.own:
            return
        expert = int(torch.randint(len(self.kinds), (), generator=generator))
        text, image = (bool(side[expert]) for side in self.treats)
        chances = torch.tensor([1.0, strength * image, strength * text, strength * (text and image)])
        pair = PAIRS[int(torch.multinomial(chances, 1, generator=generator))]
        ok = torch.ones(len(rows), dtype=torch.bool)
        for view, accepted in zip(pair, (posts.text_ok, posts.image_ok), strict=True):
            ok &= accepted[rows] if view.endswith("_swap") else True
        kept = rows[ok]
        if len(kept):
            alone = functional.one_hot(torch.tensor([expert]), len(self.kinds)).float().to(self.device)
            weights = torch.full((len(kept),), self.settings.own / len(kept))
            yield Term("own", _raw(posts, kept, pair, swap), posts.labels[kept], lambda places: alone.expand(len(places), -1), weights)

    def _passes(self, terms: list[Term], parts: dict[str, Tensor]) -> Iterator[Part]:
        """The losses of all passes; their values are added up in `parts`."""
        for term in terms:
            raw = term.raw
            for places, batch in raw.reader.passes(raw.rows, raw.text, raw.image, raw.swap, self.settings.pass_size):
                yield partial(self._part, term, places, batch, parts)

    def _part(self, term: Term, places: Tensor, batch: Any, parts: dict[str, Tensor]) -> Tensor:
        scores = self._pass(batch, term.raw.reader, term.routes(places), learning=True)
        loss = (cross_entropy(scores, term.labels[places].to(self.device)) * term.weights[places].to(self.device)).sum()
        parts[term.name] += loss.detach()
        return loss

    def _balanced(self, inputs: Inputs, found: Found, features: Tensor) -> Tensor:
        """What keeps experts of a kind in use."""
        assert self.within is not None, "one expert of a kind needs no choice"
        _, _, routing = self._routes(inputs, found)
        z = self.within(features).unflatten(-1, (4, -1)).logsumexp(-1)
        total: Tensor = self.settings.balance * load_balance(routing) + self.settings.z * z.square().mean()
        return total

    def answer(self, inputs: Inputs) -> Answer:
        """S, and beside it TE with the effects as they are, effects, gates and weights."""
        found = self.evidence_on(inputs)
        log_gates, routes, _ = self._routes(inputs, found)
        s = self._score(inputs.raw, routes)
        g, nde = log_gates.exp(), (found.nde_t, found.nde_v, found.nde_tv)
        q_t, q_v, _ = gates.switches(g)
        total = s + q_t[:, None] * to_scores(found.nde_t) + q_v[:, None] * to_scores(found.nde_v)
        return Answer(s.softmax(-1), effect(total, self.evidence.log_prior), *nde, gates=g, experts=routes.cpu())

    def _score(self, raw: Raw | None, routes: Tensor) -> Tensor:
        """(B, C) on the CPU."""
        self._parts()
        if raw is None:
            raise ValueError("the posts come without their reader")
        scores = torch.zeros(len(raw.rows), self.shape.classes)
        for places, batch in raw.reader.passes(raw.rows, raw.text, raw.image, raw.swap, self.settings.pass_size):
            scores[places] = self._pass(batch, raw.reader, routes[places.to(self.device)], learning=False).cpu()
        return scores

    def scores(self, inputs: Inputs, generator: Generator | None = None) -> Tensor:
        """S."""
        return self.answer(inputs).p.clamp_min(1e-30).log()


def _raw(posts: Posts, rows: Tensor, pair: tuple[str, str], swap: int) -> Raw:
    if posts.reader is None:
        raise ValueError("the posts come without their reader")
    return Raw(posts.reader, rows, *pair, swap)
