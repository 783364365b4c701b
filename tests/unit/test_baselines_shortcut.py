"""Where a shortcut is planted, the debiasing baselines do what their papers say."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch
from tests import simulated
from tests.unit.short_training import shape, trained
from torch import Tensor

from causalroute.config import Train
from causalroute.methods.base import Method, Posts, Shape
from causalroute.model.losses import cross_entropy
from causalroute.rng import torch_generator
from causalroute.training import loop
from causalroute.training.data import ALL_VIEWS, Files, load_posts
from causalroute.training.job import build

EPOCHS = 20


def toy(seed: int, rho: float, train: int, valid: int) -> Posts:
    """Text: a clear cue that agrees with the label with probability rho. Image: the core, right in some 84 % of cases."""
    g = torch_generator(seed, "toy")
    count = train + valid
    y = torch.randint(2, (count,), generator=g)
    cue = torch.where(torch.rand(count, generator=g) < rho, y, 1 - y)
    t, v = (torch.randn(count, 6, generator=g) for _ in range(2))
    t[:, 0] = 3 * (2.0 * cue - 1) + 0.3 * t[:, 0]
    v[:, 0] += 2.0 * y - 1
    never = torch.zeros(count, dtype=torch.bool)
    return Posts([f"p{i}" for i in range(count)], ["train"] * train + ["valid"] * valid, [""] * count, y, 2, {"t": t, "v": v}, never, never)


def accuracy(method: Method, posts: Posts, rows: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (method.answer(posts.inputs(rows)).p.argmax(1) == labels[rows]).float().mean().item()


def toy_accuracy(name: str, **settings: Any) -> tuple[float, float]:
    """ID and OOD accuracy on the toy."""
    posts, train = toy(0, 0.9, 800, 200), Train(epochs=15, lr=0.01, hidden=16)
    method = build(name, settings, Shape(6, 6, 2, 16, 0.0), 0)
    loop.advance(loop.start(method, posts, name, 0, train), posts, train, 0, save=lambda s: None, watch=lambda row: None)
    found = [toy(seed, rho, 600, 0) for seed, rho in ((1, 0.9), (2, 0.1))]
    identical, other = (accuracy(method, each, each.train, each.labels) for each in found)
    return identical, other


def test_a_perfect_bias_model_leaves_the_core_to_the_network() -> None:
    identical, erm = toy_accuracy("erm")
    assert identical > 0.85
    assert erm < 0.5
    for name in ("poe", "lmh"):
        assert toy_accuracy(name, bias="text")[1] > 0.7
        # A bias model that knows the core leaves the shortcut to the network.
        assert toy_accuracy(name, bias="image")[1] < 0.35
    assert toy_accuracy("clue_text", alphas=[1.0])[1] > erm + 0.1
    assert toy_accuracy("clue_image", alphas=[1.0])[1] < erm


Split = tuple[Posts, Posts, Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Exclusive-or posts with a cue on both sides; the test posts and their labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sim"))
        simulated.write(train=800, valid=200, test=300)
        files, roles = Files.of("sim", "b", "estimated"), {"train": "train", "valid": "valid"}
        posts, standard = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=roles, views=ALL_VIEWS)
        test, _ = load_posts(files, ["id", "ood"], simulated.CLASSES, roles=roles, views=ALL_VIEWS, standard=standard)
        labels = pl.read_parquet("data/sim/test.parquet").select("id", "label")
        known = pl.DataFrame({"id": test.ids}).join(labels, on="id", how="left", maintain_order="left")["label"]
        return posts, test, torch.tensor(known.to_list())


def measured(name: str, data: Split, known: dict[str, tuple[float, float]] = {}) -> tuple[float, float]:  # noqa: B006 - a cache
    if name not in known:
        posts, test, labels = data
        method, _ = trained(name, posts, epochs=EPOCHS)
        known[name] = (accuracy(method, test, test.rows("id"), labels), accuracy(method, test, test.rows("ood"), labels))
    return known[name]


@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("poe", 0.3),
        ("lmh", 0.3),
        ("gear", 0.3),
        ("irm", 0.2),
        ("lff", 0.1),
        ("dfr", 0.1),
        ("group_dro", 0.1),
        ("supcon", 0.4),
        ("counterfactual_augmentation", 0.4),
    ],
)
def test_debiasing_pays_where_the_shortcut_turns(name: str, margin: float, data: Split) -> None:
    identical, other = measured(name, data)
    erm_identical, erm_other = measured("erm", data)
    assert erm_identical > 0.95
    assert erm_other < 0.5
    assert identical > 0.8
    assert other > erm_other + margin


@pytest.mark.parametrize("name", ["multi_view", "label_smoothing", "moe"])
def test_plain_methods_keep_the_shortcut(name: str, data: Split) -> None:
    identical, other = measured(name, data)
    assert identical > 0.9
    assert other < 0.6


def test_an_additive_score_has_nothing_but_the_cues(data: Split) -> None:
    identical, other = measured("late_fusion", data)
    assert identical > 0.85
    assert other < 0.2


def test_lff_and_jtt_count_conflicting_posts_more(data: Split) -> None:
    posts, rows = data[0], data[0].train
    probe = build("group_dro", {}, shape(posts), 0)
    probe.prepare(posts, torch_generator(0))
    aligned = probe.groups[rows] % 4 == 3
    jtt = build("jtt", {"steps": 60}, shape(posts), 0)
    jtt.prepare(posts, torch_generator(0))
    weights = jtt.item_weights[rows]
    assert weights[~aligned].mean() > 1.5 * weights[aligned].mean()
    method, _ = trained("lff", posts, epochs=4)
    biased, debiased = method.averages[:, rows]
    weight = biased / (biased + debiased)
    assert weight[~aligned].mean() > 1.1 * weight[aligned].mean()


def test_label_smoothing_is_less_sure(data: Split) -> None:
    posts = data[0]
    inputs, y = posts.inputs(posts.train), posts.labels[posts.train]
    found = {}
    for name, settings in (("erm", {}), ("label_smoothing", {"smoothing": 0.3})):
        method, _ = trained(name, posts, settings, epochs=EPOCHS)
        with torch.no_grad():
            scores = method.scores(inputs)
        found[name] = (scores.softmax(1).amax(1).mean().item(), cross_entropy(scores, y).mean().item())
    assert found["label_smoothing"][0] < 0.9 < found["erm"][0]
    assert found["label_smoothing"][1] > found["erm"][1]
