"""Writes the trained head of a method, all seeds and the preprocessing of its features, as one ONNX file that runs without torch.

    x  -> (half(x) - mean) / std                         the features as they are stored and standardised for training
    p  = mean over seeds s of softmax(log p_s / T_s)     T the temperatures of `evaluation.calibration`
    spread = standard deviation over seeds of p_s of the class with the largest p

Every expert is computed for every post and the ones that were not chosen get weight 0: the same sums as the routed ones, without sizes that depend on
the data. The file is checked against torch before it appears, and equal inputs give equal bytes.
Letters: B posts, C classes, E experts, S seeds, Dt, Dv and Dk widths of text, visual and joint features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from causalroute import methods
from causalroute.errors import UserError
from causalroute.evaluation.calibration import FLOOR, soften
from causalroute.evaluation.predict import FIELDS, Weights
from causalroute.io import atomic, canonical_json
from causalroute.methods.base import Answer, Inputs, Method
from causalroute.model.experts import Experts, dense_weights
from causalroute.provenance import code_hash
from causalroute.rng import torch_generator
from causalroute.routing import Routing
from causalroute.serving.onnx_graph import open_session, require_packages, save, to_onnx
from causalroute.variants import module_of

LARGEST = 1e-4
"""Difference of probabilities to torch from which on an export is refused."""
FEATURES = ("t", "v", "t_s", "v_s", "k")
"""What a graph can take, in this order."""
BEYOND = {
    "texts": "the texts of posts",
    "told": "scored answers of a multimodal LLM",
    "replies": "replies of a multimodal LLM",
    "raw": "posts themselves, their tokens or their rewrites",
}
"""What a method may look at that no graph has."""
FURTHER = {
    "posts": "it trains inside a multimodal LLM and reads posts, not cached features alone",
    "tokens": "it reads features of single tokens, not of whole sides alone",
    "rewrites": "it reads the texts of posts, and published rewrites",
}
"""What methods read (`methods.reads`) that no graph is fed with."""
INSTEAD = "export a method that reads cached features alone, such as erm or causal_moe"


def export(weights: Weights, temperatures: Sequence[float], classes: Sequence[str], path: Path, *, notes: Mapping[str, str] = {}) -> None:
    """Writes the head of a trained method as one ONNX file.

    Inputs are `t` (B, Dt) and, where the backbone has a visual side, `v` (B, Dv), raw as the backbone gives them; of methods that look at contexts also
    `t_s` and `v_s`, of backbones that read pairs `k`. Outputs are `probabilities` (B, C), `spread` (B,) and, as far as the method has them, `te`, `nde_t`,
    `nde_v`, `nde_tv` (B, C), `gates` (B, 4) and `experts` (B, E), means over seeds.

    Args:
        weights: of a training job.
        temperatures: one for each seed, or one for all.
        classes: names, in the order of the labels.
        path: of the file, which replaces one that is there.
        notes: further metadata, such as `backbone`.

    Raises:
        UserError: packages are missing, the arguments do not fit the weights, the method cannot be a graph, or the graph does not say what torch says.
    """
    require_packages()
    head = Head(weights, temperatures)
    metadata = _metadata(weights, head.temperatures, classes, notes)
    example = tuple(_random(weights, head.inputs, 3).values())
    try:
        proto = to_onnx(head, example, head.inputs, head.outputs)
    except RuntimeError as error:  # the base class of all that the tracer and the converter raise
        raise UserError(f"{weights.method!r} cannot be written as an ONNX graph: {_first_line(error)}", fix=INSTEAD) from error
    with atomic(path) as temporary:
        save(proto, temporary, metadata)
        difference = float(np.max([parity(weights, temperatures, temporary, rows) for rows in (1, 64)]))
        if not difference <= LARGEST:  # NaN as well
            what = f"the exported graph differs from torch by {difference:.2g} in a probability; {LARGEST:g} is the most"
            raise UserError(what, where=str(path), fix="train again if the weights hold extreme numbers; else try other versions of torch and onnxruntime")


@torch.no_grad()
def parity(weights: Weights, temperatures: Sequence[float], path: Path, rows: int = 64) -> float:
    """Largest absolute difference of the file's probabilities to those of torch, on random features.

    Args:
        weights: that the file was made of.
        temperatures: likewise.
        path: of the file.
        rows: B.

    Raises:
        UserError: packages are missing, or the temperatures do not fit the weights.
    """
    session = open_session(path)
    fed = _random(weights, [one.name for one in session.get_inputs()], rows)
    (found,) = session.run(["probabilities"], {name: value.numpy() for name, value in fed.items()})
    standard = {name: weights.standard.apply(name, value.half()) for name, value in fed.items()}
    inputs = Inputs(**_with_sides(standard, rows), texts=[])
    scales = _temperatures(weights, temperatures)
    wanted = [soften(weights.restore(seed).answer(inputs).p.double().numpy(), scale) for seed, scale in zip(weights.seeds, scales, strict=True)]
    return float(np.abs(found - np.mean(wanted, axis=0)).max())


class Head(nn.Module):
    """All seeds of a method behind the preprocessing of their features: what is traced.

    Raises:
        UserError: the method cannot be a graph, or the temperatures do not fit.
    """

    def __init__(self, weights: Weights, temperatures: Sequence[float]) -> None:
        super().__init__()
        self.temperatures = _temperatures(weights, temperatures)
        _check_name(weights)
        self.seeds = nn.ModuleList(_plain(weights.restore(seed)) for seed in weights.seeds)
        one, asked = _tried(weights)
        self.inputs = [name for name in FEATURES if name in asked]
        self.fields = [name for name in FIELDS[1:] if getattr(one, name) is not None]
        self.outputs = ["probabilities", "spread", *self.fields]
        for name, value in weights.standard.tensors().items():
            self.register_buffer(name, value)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Raw features in the order of `inputs` -> `outputs`."""
        standard = {name: self._standardised(name, x) for name, x in zip(self.inputs, features, strict=True)}
        inputs = Inputs(**_with_sides(standard, features[0].shape[0]), texts=[])
        answers = [method.answer(inputs) for method in self.seeds]  # type: ignore[operator]
        p = torch.stack([(a.p.clamp_min(FLOOR).log() / scale).softmax(-1) for a, scale in zip(answers, self.temperatures, strict=True)])  # (S, B, C)
        mean = p.mean(0)
        chosen = p.gather(2, mean.argmax(-1, keepdim=True).expand(len(answers), -1, 1))[..., 0]  # (S, B)
        spread = ((chosen - chosen.mean(0)).square().sum(0) / max(len(answers) - 1, 1)).sqrt()
        return mean, spread, *(torch.stack([getattr(answer, name) for answer in answers]).mean(0) for name in self.fields)

    def _standardised(self, name: str, x: Tensor) -> Tensor:
        mean, std = getattr(self, f"{name[0]}_mean"), getattr(self, f"{name[0]}_std")
        return (x.half().float() - mean) / std


def _temperatures(weights: Weights, temperatures: Sequence[float]) -> list[float]:
    found = [float(one) for one in temperatures]
    if len(found) not in (1, len(weights.seeds)) or not all(0 < one < float("inf") for one in found):
        fix = "give one positive temperature for each seed, or one for all (evaluation.calibration.fit_temperatures)"
        raise UserError(f"{len(found)} temperatures {found} for {len(weights.seeds)} seeds", where=weights.method, fix=fix)
    return found * len(weights.seeds) if len(found) == 1 else found


def _check_name(weights: Weights) -> None:
    """Refuses what its settings tell, before weights are restored."""
    if why := FURTHER.get(methods.reads(weights.method)):
        raise UserError(f"{weights.method!r} cannot be exported: {why}", fix=INSTEAD)
    if weights.settings.get("router") == "oracle":
        raise UserError(f"{weights.method!r} cannot be exported: its gate is told the true source of every post", fix=INSTEAD)


class _Watched(Inputs):
    """Inputs that note which of their parts a method looks at."""

    def __getattribute__(self, name: str) -> Any:
        if name in FEATURES or name in BEYOND:
            super().__getattribute__("__dict__").setdefault("seen", set()).add(name)
        return super().__getattribute__(name)


@torch.no_grad()
def _tried(weights: Weights) -> tuple[Answer, set[str]]:
    """An answer to random features, and the inputs that a graph needs for it.

    Raises:
        UserError: it wants more than features.
    """
    fed = _random(weights, _sides(weights) | {"t_s", "v_s"}, 2)
    inputs, method, answer = _Watched(**_with_sides(fed, 2), texts=["", ""]), weights.restore(weights.seeds[0]), None
    with suppress(UserError):  # it misses something, and has asked for it before
        answer = method.answer(inputs)
    seen: set[str] = vars(inputs).get("seen", set())
    beyond = [what for name, what in BEYOND.items() if name in seen]
    if seen == {"texts"} and not method.factual_only:
        raise UserError(f"{weights.method!r} cannot be exported: it says the same of every post, whatever its features", fix=INSTEAD)
    if beyond:
        raise UserError(f"{weights.method!r} cannot be exported: it looks at {beyond[0]}, not at cached features alone", fix=INSTEAD)
    assert answer is not None, "a method that got what it looked at answers"
    return answer, _sides(weights) | (seen & {"t_s", "v_s"})


def _sides(weights: Weights) -> set[str]:
    """The sides of a post that the backbone has: a text, an image or attribute words, both together."""
    widths = {"t": weights.shape.text_dim, "v": weights.shape.image_dim, "k": weights.shape.joint_dim}
    return {name for name, width in widths.items() if width}


def _with_sides(features: Mapping[str, Tensor], rows: int) -> dict[str, Any]:
    """The features, and an empty visual side where there is none."""
    empty = {"v": features["t"].new_zeros(rows, 0), "v_s": features["t"].new_zeros(rows, 0)} if "v" not in features else {}
    return {**empty, **features}


def _plain(method: Method) -> Method:
    """The method, its mixture of experts as a sum over all of them."""
    for module in method.modules():
        if isinstance(module, Experts):
            module.sparse = partial(_mixture, module)  # type: ignore[method-assign]
            if not module.down.shape[1]:
                module.forward = partial(_alike, module)  # type: ignore[method-assign]
    return method


def _mixture(experts: Experts, h: Tensor, routing: Routing) -> Tensor:
    """`Experts.sparse` without parts whose sizes depend on the data: (B, H) -> (B, C)."""
    return (dense_weights(routing)[..., None] * experts(h)).sum(-2)


def _alike(experts: Experts, h: Tensor) -> Tensor:
    """Experts of rank 0, without products of width 0, which a graph cannot have: (B, H) -> (B, E, C)."""
    scores: Tensor = experts.head(h)
    return scores[:, None].expand(-1, experts.down.shape[0], -1)


def _random(weights: Weights, names: Sequence[str] | set[str], rows: int) -> dict[str, Tensor]:
    """Raw features (rows, D) of each name, spread as the train features are."""
    generator, scale = torch_generator(0, "onnx", str(rows)), weights.standard.tensors()
    found = {}
    for name in (name for name in FEATURES if name in names):
        mean, std = scale[f"{name[0]}_mean"], scale[f"{name[0]}_std"]
        found[name] = mean + std * torch.randn(rows, len(mean), generator=generator)
    return found


def _metadata(weights: Weights, temperatures: list[float], classes: Sequence[str], notes: Mapping[str, str]) -> dict[str, str]:
    if len(classes) != weights.shape.classes:
        raise UserError(f"{len(classes)} class names {list(classes)} for {weights.shape.classes} classes", where=weights.method, fix="name each class once")
    found = {
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "code": code_hash("causalroute.serving.onnx", f"causalroute.methods.{module_of(weights.method)}"),
        "method": weights.method,
        "seeds": json.dumps(weights.seeds),
        "settings": canonical_json(weights.settings),
        "temperatures": json.dumps(temperatures),
    }
    if taken := sorted(found.keys() & notes.keys()):
        raise UserError(f"the notes {taken} would hide what the export itself says", where="notes", fix="give them other names")
    return {**found, **notes}


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
