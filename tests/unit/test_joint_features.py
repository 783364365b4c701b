"""Joint features of a pair of views: read from the files, picked with the views, and used by every method that looks at both sides at once."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import polars as pl
import pytest
import torch
from tests import simulated
from tests.unit.short_training import trained
from torch import Tensor
from torch.nn import functional

from causalroute import io, layout, methods
from causalroute.errors import UserError
from causalroute.evaluation.predict import VIEWS, Weights
from causalroute.methods.base import Method, Posts, Shape
from causalroute.methods.swapping import own_and_swapped
from causalroute.model import consistency, gates
from causalroute.model.layers import Encoder, Predictor, linear
from causalroute.pairs import NAME_OF
from causalroute.rng import torch_generator
from causalroute.stages import evaluate, train
from causalroute.training.data import ALL_VIEWS, TRAIN_VIEWS, Files, Standard, load_posts

pytestmark = pytest.mark.slow

TEXT, IMAGE, JOINT, TRAIN, VALID = 5, 4, 3, 400, 400
UNIMODAL = {"majority", "bag_of_words", "text_only", "image_only", "late_fusion"}
UNTRAINED = {"zero_shot", "zero_shot_debiased", "zero_shot_generated", "lora_moe", "token_moe", "rewrite_detector"}
"""They read answers, raw posts, rewrites, or tokens, which a backbone with joint features does not keep; tests of their own hold them."""
FUSING = sorted(set(methods.names()) - UNIMODAL - UNTRAINED)
SETTINGS = {
    "causal_moe": [{}, {"router": "learned", "pretrain": 5}, {"router": "ce"}, {"router": "random"}, {"per_kind": 2}],
    "irm": [{"penalty": 10.0}],  # the default needs more steps
}
ROLES = {"train": "train", "valid": "valid"}


def told_by_the_pair(name: str) -> Posts:
    """Posts whose label stands in the joint features alone, also in those of swaps, which keep it."""
    g, items = torch_generator(0, "joint"), TRAIN + VALID
    y = torch.randint(2, (items,), generator=g)

    def noise(*shape: int) -> Tensor:
        return torch.randn(items, *shape, generator=g)

    def telling(*shape: int) -> Tensor:
        k = noise(*shape, JOINT)
        k[..., 0] = 0.3 * k[..., 0] + (2.0 * y - 1).view(-1, *[1 for _ in shape])
        return k

    views = {"t": noise(TEXT), "v": noise(IMAGE), "t_s": noise(TEXT), "v_s": noise(IMAGE), "t_swap": noise(2, TEXT), "v_swap": noise(2, IMAGE)}
    views |= {"k": telling(), "k_s": noise(JOINT), "k_swap_t": telling(2), "k_swap_v": telling(2), "k_swap_tv": telling(2, 2)}
    roles = dict(methods.load(name).Method.split_roles)
    splits = [roles["train"]] * TRAIN + [roles["valid"]] * VALID
    words = ["dull", "calm", "grey", "bright"]
    texts = [f"a {words[a]} day {words[b]}" for a, b in torch.randint(4, (items, 2), generator=g).tolist()]
    flags = torch.ones(items, dtype=torch.bool)
    return Posts([f"p{i}" for i in range(items)], splits, texts, y, 2, views, flags, flags, roles)


def accuracy(method: Method, posts: Posts, text: str = "t", image: str = "v") -> float:
    with torch.no_grad():
        return (method.answer(posts.inputs(posts.valid, text, image, swap=1)).p.argmax(1) == posts.labels[posts.valid]).float().mean().item()


@pytest.mark.parametrize(("name", "settings"), [(name, each) for name in FUSING for each in SETTINGS.get(name, [{}])], ids=str)
def test_what_fuses_both_sides_reads_the_joint_feature(name: str, settings: dict) -> None:
    posts = told_by_the_pair(name)
    method, _ = trained(name, posts, settings, epochs=15)
    assert any(key.endswith("joint.weight") for key in method.state_dict())
    assert accuracy(method, posts) > 0.9
    assert accuracy(method, posts, "t_swap", "v_swap") > 0.85
    mute = dataclasses.replace(posts, views={key: value for key, value in posts.views.items() if not key.startswith("k")})
    with pytest.raises(ValueError, match="joint features"):
        method.answer(mute.inputs(mute.valid))
    assert accuracy(trained(name, mute, settings, epochs=2)[0], mute) < 0.6


@pytest.mark.parametrize("name", sorted(UNIMODAL))
def test_what_looks_at_single_sides_does_not(name: str) -> None:
    posts = told_by_the_pair(name)
    if methods.load(name).Method.gradient:
        method, _ = trained(name, posts, epochs=5)
    else:
        method = methods.load(name).Method(methods.settings_of(name, {}), Shape(TEXT, IMAGE, 2, 8, 0.1, JOINT), torch_generator(0))
        method.prepare(posts, torch_generator(1))
    assert 0.4 < accuracy(method, posts) < 0.6
    assert not any("joint" in key for key in method.state_dict())


def numbered(items: int = 7, texts: int = 3, images: int = 2) -> Posts:
    """Every feature says which it is: t and v (row, swap), k (row, swap of the text, swap of the image), swaps counted from 1, the view itself 0."""
    rows = torch.arange(float(items))

    def coded(*swaps: int) -> Tensor:
        grid = [torch.arange(1.0, count + 1) if count else torch.zeros(1) for count in swaps]
        return torch.cartesian_prod(rows, *grid).view(items, *filter(None, swaps), 1 + len(swaps))

    views = {"t": coded(0), "v": coded(0), "t_swap": coded(texts), "v_swap": coded(images), "t_s": coded(0), "v_s": coded(0)}
    views |= {"k": coded(0, 0), "k_s": coded(0, 0), "k_swap_t": coded(texts, 0), "k_swap_v": coded(0, images), "k_swap_tv": coded(texts, images)}
    flags = torch.ones(items, dtype=torch.bool)
    return Posts([""] * items, ["train"] * items, [""] * items, torch.zeros(items).long(), 2, views, flags, flags)


def test_inputs_hold_the_joint_feature_of_their_own_pair() -> None:
    posts, rows = numbered(), torch.tensor([4, 1, 6])
    for text, image, swap in itertools.product(("t", "t_swap"), ("v", "v_swap"), (0, 1)):
        found = posts.inputs(rows, text, image, swap)
        assert torch.equal(found.k, torch.cat([found.t, found.v[:, 1:]], 1))
        assert found.k[:, 0].tolist() == [4, 1, 6]
        assert found.k[0, 1:].tolist() == [(swap + 1) * (text == "t_swap"), (swap + 1) * (image == "v_swap")]
    posts.views["k_s"][:] = 99.0
    assert posts.inputs(rows, "t_s", "v_s").k.eq(99).all()
    with pytest.raises(ValueError, match=r"\(t_s, v\)"):
        posts.inputs(rows, "t_s", "v")
    with pytest.raises(ValueError, match=r"\(t_c, v_c\)"):
        posts.inputs(rows, "t_c", "v_c")


def test_own_and_swapped_draw_one_pair_of_swaps_for_sides_and_joint_features() -> None:
    posts, rows = numbered(), torch.tensor([0, 5, 2, 3, 3])
    t, v, k = own_and_swapped(posts, rows, torch_generator(3))
    assert k is not None
    assert k.shape == (2, 2, 5, 3)
    for i, j in itertools.product(range(2), repeat=2):
        assert torch.equal(k[i, j], torch.cat([t[i], v[j][:, 1:]], 1))
    assert t[1, :, 1].unique().numel() > 1
    mute = dataclasses.replace(posts, views={name: value for name, value in posts.views.items() if not name.startswith("k")})
    again = own_and_swapped(mute, rows, torch_generator(3))
    assert torch.equal(again[0], t)
    assert torch.equal(again[1], v)
    assert again[2] is None
    g = torch_generator(3)
    assert torch.equal(t[1, :, 1] - 1, torch.randint(3, (5,), generator=g).float())
    assert torch.equal(v[1, :, 1] - 1, torch.randint(2, (5,), generator=g).float())


def test_a_grid_with_joint_features_is_every_pair_of_views() -> None:
    g = torch_generator(0)
    net = Predictor(TEXT, IMAGE, 2, 8, 0.0, g, JOINT)
    t, v, k = torch.randn(2, 6, TEXT, generator=g), torch.randn(3, 6, IMAGE, generator=g), torch.randn(2, 3, 6, JOINT, generator=g)
    grid, hidden = net.grid(t, v, None, k), net.encoder.grid(t, v, k=k)
    weight = torch.cat([net.encoder.text.weight, net.encoder.image.weight, net.encoder.joint.weight], 1)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(grid[i, j], net(t[i], v[j], k=k[i, j]))
        torch.testing.assert_close(hidden[i, j], functional.gelu(torch.cat([t[i], v[j], k[i, j]], 1) @ weight.T + net.encoder.text.bias))
    assert weight.abs().max() <= (TEXT + IMAGE + JOINT) ** -0.5
    for missing in (lambda: net(t[0], v[0]), lambda: net.grid(t, v)):
        with pytest.raises(ValueError, match=f"width {JOINT}"):
            missing()


def test_without_joint_features_there_is_no_such_layer_and_no_other_draw() -> None:
    g, by_hand = torch_generator(1), torch_generator(1)
    encoder = Encoder(TEXT, IMAGE, 8, 0.1, g)
    assert set(encoder.state_dict()) == {"text.weight", "text.bias", "image.weight"}
    text = linear(TEXT, 8, by_hand, fan_in=TEXT + IMAGE)
    image = linear(IMAGE, 8, by_hand, bias=False, fan_in=TEXT + IMAGE)
    assert torch.equal(encoder.text.weight, text.weight)
    assert torch.equal(encoder.image.weight, image.weight)
    assert torch.equal(g.get_state(), by_hand.get_state())
    router = gates.Router(TEXT, IMAGE, 2, 8, g)
    assert {key.split(".")[0] for key in router.state_dict()} == {"text", "image", "inner", "outer"}
    old = {"text_dim": 5, "image_dim": 4, "classes": 2, "hidden": 8, "dropout": 0.1}
    assert Shape(**old).saved() == old
    assert Shape(**Shape(**old, joint_dim=3).saved()).joint_dim == 3
    for name in FUSING:
        method = methods.load(name).Method(methods.settings_of(name, {}), Shape(**old), torch_generator(0))
        assert not any(key.endswith("joint.weight") for key in method.state_dict())


def test_the_reference_model_sees_the_joint_feature_of_the_swapped_pair() -> None:
    g = torch_generator(4)
    t, y = torch.randn(600, 3, generator=g), torch.randint(2, (600,), generator=g)
    k = (2.0 * y - 1)[:, None] + 0.1 * torch.randn(600, 2, generator=g)
    right = consistency.reference_answers(t, t, y, torch.zeros(600, 2), (t, t), 16, torch_generator(5), (k, -k, k))
    assert [round(kind.float().mean().item(), 1) for kind in right] == [1.0, 0.0, 1.0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with simulated features, joint ones among them."""
    monkeypatch.chdir(tmp_path)
    simulated.write(train=200, valid=60, test=20)
    g = torch_generator(0, "files")
    add("factual", {"k": (JOINT,)}, g)
    for editor in ("estimated", "truth"):
        add(editor, {"k_s": (JOINT,), "k_c": (JOINT,), "k_swap_t": (2, JOINT), "k_swap_v": (2, JOINT), "k_swap_tv": (2, 2, JOINT)}, g)
    return tmp_path


def add(views: str, shapes: dict[str, tuple[int, ...]], g: torch.Generator) -> None:
    """Random joint features, far from standardised, into a feature file."""
    path = layout.features("sim", "b", views)
    tensors, metadata = io.read_tensors(path)
    items = len(tensors.get("rows", tensors.get("t")))
    tensors |= {name: (2 * torch.randn(items, *shape, generator=g) + 5).half() for name, shape in shapes.items()}
    io.write_tensors(path, tensors, metadata)


def test_files_round_trip_standardised_with_the_factual_train_posts(folder: Path) -> None:
    files = Files.of("sim", "b", "estimated", "truth")
    posts, standard = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=ROLES, views=ALL_VIEWS)
    factual, edited, held = (io.read_tensors(path)[0] for path in (files.factual, files.views, files.held))
    assert {name for name in posts.views if name.startswith("k")} == set(NAME_OF.values())
    mean, std = factual["k"][:200].float().mean(0), factual["k"][:200].float().std(0, correction=0)
    torch.testing.assert_close((standard.k_mean, standard.k_std), (mean, std))
    torch.testing.assert_close(posts.views["k"][:], (factual["k"][:260].float() - mean) / std)
    place = {row: at for at, row in enumerate(edited["rows"].tolist())}
    for name, stored in {
        "k_s": edited["k_s"],
        "k_swap_tv": edited["k_swap_tv"],
        "k_held_swap_tv": held["k_swap_tv"],
        "k_held_swap_v": held["k_swap_v"],
    }.items():
        assert posts.views[name].shape == (260, *stored.shape[1:])
        torch.testing.assert_close(posts.views[name][207], (stored[place[207]].float() - mean) / std)
    again, _ = load_posts(files, ["valid"], simulated.CLASSES, roles=ROLES, views=ALL_VIEWS, standard=Standard(**standard.tensors()))
    assert torch.equal(again.views["k_swap_t"][:], posts.views["k_swap_t"][200:])


@pytest.mark.parametrize(
    ("views", "expected"),
    [((), {"k"}), (("t_swap",), {"k", "k_swap_t"}), (("t_s", "v_s", "t_c"), {"k", "k_s"}), (TRAIN_VIEWS, {"k", "k_s", "k_swap_t", "k_swap_v", "k_swap_tv"})],
)
def test_only_the_pairs_of_the_wanted_views_are_read(views: tuple[str, ...], expected: set[str], folder: Path) -> None:
    posts, _ = load_posts(Files.of("sim", "b", "estimated"), ["train", "valid"], simulated.CLASSES, roles=ROLES, views=views)
    assert {name for name in posts.views if name.startswith("k")} == expected


def test_features_that_do_not_fit_are_told(folder: Path) -> None:
    files, wanted = Files.of("sim", "b", "estimated"), {"splits": ["train", "valid"], "classes": simulated.CLASSES, "roles": ROLES}
    _, standard = load_posts(files, **wanted)
    bare = Standard(**{name: value for name, value in standard.tensors().items() if not name.startswith("k")})
    assert set(bare.tensors()) == {"t_mean", "t_std", "v_mean", "v_std"}
    with pytest.raises(UserError, match="with joint ones k for a method trained without"):
        load_posts(files, **wanted, standard=bare)
    tensors, metadata = io.read_tensors(files.views)
    io.write_tensors(files.views, {name: value for name, value in tensors.items() if name != "k_swap_tv"}, metadata)
    with pytest.raises(UserError, match="the features hold no k_swap_tv"):
        load_posts(files, **wanted, views=TRAIN_VIEWS)
    tensors, metadata = io.read_tensors(files.factual)
    io.write_tensors(files.factual, {"t": tensors["t"], "v": tensors["v"]}, metadata)
    with pytest.raises(UserError, match="without joint ones k for a method trained with"):
        load_posts(files, **wanted, standard=standard)


@pytest.mark.parametrize("name", ["erm", "text_only", "bag_of_words", "double_swap", "subtraction", "causal_moe"])
def test_weights_and_predictions_of_every_view(name: str, folder: Path) -> None:
    head = ["--dataset", "sim", "--method", name, "--seeds", "0-0"]
    assert train.main([*head, "--config", simulated.config(train={"epochs": 2, "batch_size": 64, "lr": 0.01, "hidden": 16}, method={})]) == 0
    assert evaluate.main([*head, "--config", simulated.config(evaluate={}, method={})]) == 0
    out = layout.run("sim", name, 0, 0)
    weights = Weights(out / "weights.safetensors")
    assert weights.shape.joint_dim == JOINT
    assert json.loads(io.read_tensors(out / "weights.safetensors")[1]["shape"])["joint_dim"] == JOINT
    frame = pl.read_parquet(out / "predictions.parquet")
    files = Files.of("sim", "b", "estimated", "truth")
    posts, _ = load_posts(files, ["valid", "id"], simulated.CLASSES, roles=ROLES, views=ALL_VIEWS, standard=weights.standard)
    method = weights.restore(0)
    for view, pair in list(VIEWS.items())[: 1 if name == "bag_of_words" else None]:
        with torch.no_grad():
            p = method.answer(posts.inputs(torch.arange(len(posts.ids)), *pair)).p
        shown = pl.DataFrame({"id": posts.ids}).join(frame.filter(pl.col("view") == view), on="id", maintain_order="left")["p"].to_list()
        torch.testing.assert_close(torch.tensor(shown), p, atol=1e-5, rtol=1e-4)
