"""ONNX files of heads against torch: every method, every size of batch, and what cannot be exported."""

from __future__ import annotations

import builtins
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from tests.conftest import ROOT
from tests.unit import random_weights
from tests.unit.random_weights import CLASSES
from torch import Tensor, nn

from causalroute import methods
from causalroute.errors import UserError
from causalroute.evaluation.calibration import soften
from causalroute.evaluation.predict import FIELDS, Weights
from causalroute.methods.base import Inputs
from causalroute.serving import onnx as exported
from causalroute.serving.onnx_graph import open_session, save, to_onnx

pytestmark = pytest.mark.slow

REFUSED = {
    "majority": "the same of every post",
    "bag_of_words": "the texts of posts",
    "zero_shot": "scored answers of a multimodal LLM",
    "zero_shot_debiased": "scored answers of a multimodal LLM",
    "zero_shot_generated": "replies of a multimodal LLM",
    "lora_moe": "inside a multimodal LLM",
    "token_moe": "features of single tokens",
    "rewrite_detector": "published rewrites",
}
EXPORTED = [name for name in methods.names() if name not in REFUSED]
QUICK = ("erm", "causal_moe")
"""The others are slow tests."""
VARIANTS = tuple(f"causal_moe@{name}" for name in ("form_b", "learned", "no_experts", "soft_top1", "soft_dense", "subtract1", "constant", "random"))
MIXTURES: list[dict[str, Any]] = [
    {},
    {"form": "B", "temperature": 0.5, "top_k": 1},
    {"router": "learned", "top_k": 0, "per_kind": 2},
    {"router": "always", "rank": 0, "subtract": 1.0, "direct": "text"},
    {"router": "random", "per_kind": 4, "balancing": "bias", "amount": "one"},
]
SIZES = {"t": 5, "v": 4, "t_s": 5, "v_s": 4, "k": 3}


def features(rows: int, names: list[str], seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 1.5 * torch.randn(rows, SIZES[name], generator=generator) for name in names}


@torch.no_grad()
def expected(weights: Weights, temperatures: list[float], raw: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """By the very code that evaluates, seed by seed."""
    inputs = Inputs(**{name: weights.standard.apply(name, x.half()) for name, x in raw.items()}, texts=[])  # type: ignore[arg-type]
    answers = [weights.restore(seed).answer(inputs) for seed in weights.seeds]
    p = np.stack([soften(answer.p.double().numpy(), t) for answer, t in zip(answers, temperatures, strict=True)])
    best = p.mean(0).argmax(-1)
    chosen = p[:, np.arange(len(best)), best]
    found = {"probabilities": p.mean(0), "spread": chosen.std(0, ddof=1) if len(p) > 1 else np.zeros(len(best))}
    for name in FIELDS[1:]:
        if getattr(answers[0], name) is not None:
            found[name] = np.mean([getattr(answer, name).double().numpy() for answer in answers], axis=0)
    return found


def ran(path: Path, raw: dict[str, Tensor]) -> dict[str, np.ndarray]:
    session = open_session(path)
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: x.numpy() for name, x in raw.items()}), strict=True))


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, atol=2e-5, rtol=1e-4, err_msg=name)


class Together(nn.Module):
    """Heads of many methods in one graph, which costs less than a graph for each."""

    def __init__(self, heads: list[exported.Head]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(("t", "v", "t_s", "v_s"), features, strict=True))
        return tuple(value for head in self.heads for value in head(*(given[name] for name in head.inputs)))


def together(weights: list[Weights], path: Path) -> None:
    """Exports all heads as one graph and compares every output on batches of 1, 7 and 64 posts."""
    heads = [exported.Head(one, [1.7]) for one in weights]
    names = [f"{number} {one.method} {output}" for number, (one, head) in enumerate(zip(weights, heads, strict=True)) for output in head.outputs]
    sides = ["t", "v", "t_s", "v_s"]
    save(to_onnx(Together(heads), tuple(features(3, sides).values()), sides, names), path, {})
    for rows in (1, 7, 64):
        raw, want = features(rows, sides), {}
        for number, (one, head) in enumerate(zip(weights, heads, strict=True)):
            seen = expected(one, [1.7], raw)
            assert list(seen) == head.outputs
            want |= {f"{number} {one.method} {name}": value for name, value in seen.items()}
        assert_same(ran(path, raw), want)


def test_mixtures_of_every_make_say_the_same_without_torch(tmp_path: Path) -> None:
    made = [random_weights.write(tmp_path / f"{number}.safetensors", "causal_moe", settings) for number, settings in enumerate(MIXTURES)]
    together(made, tmp_path / "all.onnx")


def listed() -> dict[str, dict[str, Any]]:
    """Every method that reads features, and the variants of params.yaml that answer by another graph."""
    variants = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["methods"]
    return {name: {} for name in EXPORTED} | {name: variants[name] for name in VARIANTS}


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in listed()])
def test_every_method_and_variant(tmp_path: Path, name: str) -> None:
    weights, path = random_weights.write(tmp_path / "w.safetensors", name, listed()[name]), tmp_path / "head.onnx"
    exported.export(weights, [0.8], CLASSES, path)
    sides = exported.Head(weights, [1.0]).inputs
    for rows in (1, 7, 64):
        raw = features(rows, sides)
        assert_same(ran(path, raw), expected(weights, [0.8], raw))


TEMPERATURES = [0.5, 1.0, 3.0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    """The file of three seeds of a mixture on a backbone that reads pairs."""
    folder = tmp_path_factory.mktemp("made")
    weights = random_weights.write(folder / "w.safetensors", "moe", {"top_k": 1}, (0, 2, 5), joint_dim=3)
    exported.export(weights, TEMPERATURES, CLASSES, folder / "deep" / "head.onnx", notes={"backbone": "openai/clip"})
    return weights, folder / "deep" / "head.onnx"


def test_several_seeds_of_a_backbone_that_reads_pairs(made: tuple[Weights, Path]) -> None:
    weights, path = made
    assert list(path.parent.iterdir()) == [path]
    for rows in (1, 7, 64):
        raw = features(rows, ["t", "v", "k"])
        assert_same(ran(path, raw), expected(weights, TEMPERATURES, raw))
    assert exported.parity(weights, TEMPERATURES, path) < 1e-5
    assert exported.parity(weights, [0.5, 1.0, 2.0], path) > 1e-3


def test_the_file_says_what_it_is(made: tuple[Weights, Path]) -> None:
    model = onnx.load(made[1])
    told = {one.key: one.value for one in model.metadata_props}
    assert {name: told[name] for name in ("method", "backbone")} == {"method": "moe", "backbone": "openai/clip"}
    assert {name: json.loads(told[name]) for name in ("classes", "seeds", "settings", "temperatures")} == {
        "classes": CLASSES, "seeds": [0, 2, 5], "settings": {"top_k": 1}, "temperatures": TEMPERATURES,
    }  # fmt: skip
    assert set(json.loads(told["versions"])) == {"causalroute", "torch", "onnx", "onnxscript"}
    assert re.fullmatch("[0-9a-f]{16}", told["code"])
    shapes = {one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in [*model.graph.input, *model.graph.output]}
    sizes = {"t": 5, "v": 4, "k": 3, "probabilities": 3, "experts": 4}
    assert shapes == {"spread": ["batch"]} | {name: ["batch", size] for name, size in sizes.items()}


def test_equal_weights_give_equal_bytes_without_paths(made: tuple[Weights, Path], tmp_path: Path) -> None:
    exported.export(made[0], TEMPERATURES, CLASSES, tmp_path / "again.onnx", notes={"backbone": "openai/clip"})
    first = made[1].read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == first
    for trace in (b".py", str(ROOT).encode(), str(tmp_path).encode(), str(made[1].parent).encode(), b"site-packages", b"stack_trace"):
        assert trace not in first


def test_features_are_rounded_as_the_store_rounds_them(made: tuple[Weights, Path]) -> None:
    raw = features(64, ["t", "v", "k"])
    stored = {name: x.half().float() for name, x in raw.items()}
    assert not any(torch.equal(raw[name], stored[name]) for name in raw)
    assert np.array_equal(ran(made[1], raw)["probabilities"], ran(made[1], stored)["probabilities"])


def test_a_backbone_without_images_needs_no_images(tmp_path: Path) -> None:
    weights = random_weights.write(tmp_path / "w.safetensors", "erm", image_dim=0)
    exported.export(weights, [2.0], CLASSES, tmp_path / "m.onnx")
    (t,) = features(7, ["t"]).values()
    assert_same(ran(tmp_path / "m.onnx", {"t": t}), expected(weights, [2.0], {"t": t, "v": t.new_zeros(7, 0)}) | {"spread": np.zeros(7)})


@pytest.mark.parametrize("name", REFUSED)
def test_what_reads_more_than_features_is_refused(tmp_path: Path, name: str) -> None:
    if name == "bag_of_words":
        weights = bag_of_words(tmp_path)
    else:
        weights = random_weights.write(tmp_path / "w.safetensors", name)
    with pytest.raises(UserError, match=f"{name}' cannot be exported: .*{REFUSED[name]}"):
        exported.export(weights, [1.0], CLASSES, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def bag_of_words(folder: Path) -> Weights:
    weights = random_weights.write(folder / "w.safetensors", "bag_of_words")
    weights._extra["0"] = {"words": json.dumps(["rain", "sun"])}
    weights.tensors |= {"seed0/weight": torch.ones(3, 2), "seed0/idf": torch.ones(2, dtype=torch.float64)}
    return weights


def test_an_oracle_gate_is_refused(tmp_path: Path) -> None:
    weights = random_weights.write(tmp_path / "w.safetensors", "causal_moe@oracle_gate", {"router": "oracle"})
    with pytest.raises(UserError, match="true source of every post"):
        exported.export(weights, [1.0], CLASSES, tmp_path / "m.onnx")


def test_a_method_whose_steps_depend_on_the_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(self: Any, inputs: Inputs, generator: Any = None) -> Tensor:
        z: Tensor = self.network(inputs.t)
        return z if z.max() > 0 else -z

    monkeypatch.setattr(methods.load("text_only").Method, "scores", scores)
    with pytest.raises(UserError, match="'text_only' cannot be written as an ONNX graph"):
        exported.export(random_weights.write(tmp_path / "w.safetensors", "text_only"), [1.0], CLASSES, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_graph_that_differs_from_torch_is_refused(made: tuple[Weights, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """A bias of the graph's classes is changed behind its back."""

    def bent(*_: Any) -> Any:
        model = onnx.load(made[1])
        head = next(one for one in model.graph.initializer if one.name.endswith("head.bias"))
        head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32([wrong, 0, 0]), head.name))
        return model

    monkeypatch.setattr(exported, "to_onnx", bent)
    (tmp_path / "m.onnx").write_bytes(b"the file before")
    with pytest.raises(UserError, match="differs from torch"):
        exported.export(made[0], TEMPERATURES, CLASSES, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == b"the file before"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("temperatures", [[], [1.0, 2.0], [0.0], [float("nan")], [float("inf")]])
def test_temperatures_must_fit(tmp_path: Path, temperatures: list[float]) -> None:
    with pytest.raises(UserError, match=r"temperatures .* for 1 seeds"):
        exported.export(random_weights.write(tmp_path / "w.safetensors", "erm"), temperatures, CLASSES, tmp_path / "m.onnx")


def test_classes_and_notes_must_fit(tmp_path: Path) -> None:
    weights = random_weights.write(tmp_path / "w.safetensors", "erm")
    with pytest.raises(UserError, match="2 class names"):
        exported.export(weights, [1.0], ["a", "b"], tmp_path / "m.onnx")
    with pytest.raises(UserError, match=r"notes \['classes'\]"):
        exported.export(weights, [1.0], CLASSES, tmp_path / "m.onnx", notes={"classes": "x"})


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_packages_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=re.escape("pip install 'causalroute[onnx]'")):
        exported.export(random_weights.write(tmp_path / "w.safetensors", "erm"), [1.0], CLASSES, tmp_path / "m.onnx")


def test_nothing_of_onnx_is_imported_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def watched(name: str, *rest: Any) -> Any:
        assert not name.startswith(("onnx", "torch.onnx"))
        return real(name, *rest)

    for name in ("causalroute.serving.onnx", "causalroute.serving.onnx_graph"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", watched)
    import causalroute.serving.onnx  # noqa: F401
