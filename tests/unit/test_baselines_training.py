"""Every baseline trained for a moment: it learns, repeats, and leaves behind what its answers need."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from tests.unit.short_training import posts, shape, small, trained

from causalroute import methods
from causalroute.config import Train
from causalroute.evaluation.predict import Weights
from causalroute.methods.base import Posts
from causalroute.training import job
from causalroute.training.data import Standard

__all__ = ["posts"]
BASELINES = (
    "late_fusion", "multi_view", "label_smoothing", "lff", "poe", "lmh", "rubi", "clue_text", "clue_image", "gear", "jtt", "dfr", "irm", "moe", "subtraction",
    "supcon", "counterfactual_augmentation",
)  # fmt: skip


def test_all_baselines_are_methods() -> None:
    assert set(BASELINES) <= set(methods.names())
    assert not set(methods.HELPERS) & set(methods.names())


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns(name: str, posts: dict[str, Posts]) -> None:
    data = posts["biased"]
    method, history = trained(name, data, {"penalty": 10.0} if name == "irm" else {}, epochs=10)
    with torch.no_grad():
        p = method.answer(data.inputs(data.valid)).p
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
    hits = (p.argmax(1) == data.labels[data.valid]).float().mean().item()
    assert hits > 0.85
    assert history[-1]["valid/factual"] == pytest.approx(hits)
    expected = ["factual", "text", "image", "both"] if name in ("supcon", "counterfactual_augmentation") else ["factual"]
    assert [check.name for check in method.checks(data)] == expected


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_repeats_to_the_bit(name: str, posts: dict[str, Posts]) -> None:
    data = small(posts["biased"])
    first, history = trained(name, data, epochs=1)
    second, again = trained(name, data, epochs=1)
    assert history == again
    state = second.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("name", ["lff", "lmh", "clue_text", "dfr", "supcon", "subtraction"])
def test_the_weights_file_holds_what_answers_need_and_no_more(name: str, posts: dict[str, Posts], tmp_path: Path) -> None:
    data, found = small(posts["biased"]), shape(posts["biased"])
    standard = Standard(torch.zeros(found.text_dim), torch.ones(found.text_dim), torch.zeros(found.image_dim), torch.ones(found.image_dim))
    job.run(job.Job(name, {}, Train(epochs=2, hidden=8), range(2), tmp_path / "out", tmp_path / "events", "key"), data, standard)
    weights = Weights(tmp_path / "out" / "weights.safetensors")
    method = weights.restore(1)
    kept = {key.removeprefix("seed1/") for key in weights.tensors if key.startswith("seed1/")}
    assert kept == set(method.kept())
    assert not any(key.startswith(method.training_only) for key in kept)
    history = [line.split(",") for line in (tmp_path / "out" / "history.csv").read_text().splitlines()]
    column = history[0].index("valid/factual")
    chosen = json.loads((tmp_path / "out" / "selection.json").read_text())["seed1"]["epoch"]
    accuracy = next(float(row[column]) for row in history[1:] if row[0] == str(chosen) and row[1] == "1")
    with torch.no_grad():
        hits = (method.answer(data.inputs(data.valid)).p.argmax(1) == data.labels[data.valid]).float().mean().item()
    assert hits == pytest.approx(accuracy, abs=1e-5)


@pytest.mark.filterwarnings("ignore:std")  # of no column, where probes are standardised
@pytest.mark.parametrize("name", [name for name in BASELINES if name != "clue_image"])
def test_a_side_without_features_is_taken(name: str, posts: dict[str, Posts]) -> None:
    data = small(posts["biased"])
    views = {key: value if key.startswith("t") else value[..., :0] for key, value in data.views.items()}
    _, history = trained(name, dataclasses.replace(data, views=views, image_ok=torch.zeros_like(data.image_ok)), epochs=2)
    assert all(math.isfinite(row["train/loss"]) for row in history)
