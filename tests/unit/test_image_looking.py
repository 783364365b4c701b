"""Image editors that look at a model: each finds what the model's answer to the text hangs on, and says what it cannot work with."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit import tiny_models as tiny
from tests.unit.test_image_editors import GreenSeer
from tests.unit.test_lexicon import make

from causalroute.config import Backbone as Settings
from causalroute.config import Editor
from causalroute.counterfactual.image import attention, find, maps, occlusion, saliency, similarity, vanilla
from causalroute.counterfactual.image.answers import Answers, answers_of, text_directions
from causalroute.counterfactual.image.task import Task
from causalroute.counterfactual.sources import Sources
from causalroute.errors import UserError

TEXTS = ["the sun shines", "rain falls on my parade", "so much fun again", "coffee"] * 3


def settings(tmp_path: Path, kind: str) -> Settings:
    if kind in ("clip", "siglip"):
        folder = tiny.save_clip(tmp_path / kind) if kind == "clip" else tiny.save_siglip(tmp_path / kind)
        return Settings(kind="dual_encoder", model=str(folder), batch_size=4)
    image = {"vit": lambda: tiny.save_vit(tmp_path / kind, pooler=True), "mobilenet": lambda: tiny.save_mobilenet(tmp_path / kind), "none": str}[kind]
    return Settings(kind="encoder_pair", text_model=str(tiny.save_bert(tmp_path / "bert")), image_model=str(image()), batch_size=4)


def task(tmp_path: Path, kind: str, **more: Any) -> Task:
    """Twelve posts with noise for images, beside a tiny model with random weights."""
    names = tiny.pictures(tmp_path / "images", len(TEXTS))
    posts = make(TEXTS, [0, 1] * (len(TEXTS) // 2))
    random = np.random.default_rng(0)
    widths = (16, 16) if kind == "vit" else (16, 1280)
    features = [random.normal(size=(len(TEXTS), width)).astype(np.float32) for width in widths]
    sources = Sources(tmp_path / "images", backbone=(settings(tmp_path, kind), "tiny"), features=lambda ids: (features[0], features[1]), **more)
    return Task(posts, TEXTS, lambda row: Image.open(tmp_path / "images" / names[row]), sources, 0.3, 16, 0)


def pixels_of(answers: Answers, asked: Task, rows: list[int]) -> torch.Tensor:
    return torch.stack([answers.backbone.preprocess(maps.squeeze(asked.image(row))) for row in rows])


def test_every_editor_of_the_settings_has_its_module() -> None:
    named = set(typing.get_args(typing.get_type_hints(Editor)["image"]))
    assert {*find.BLIND, *find.LOOKING} == named
    assert not set(find.BLIND) & set(find.LOOKING)
    modules = {"saliency": saliency, "attention": attention, "similarity": similarity, "occlusion": occlusion}
    assert all(callable(modules[name].heat_of) for name in find.LOOKING)


@pytest.mark.parametrize(("kind", "module"), [("clip", attention), ("siglip", attention), ("vit", attention), ("clip", similarity), ("siglip", similarity)])
def test_heat_has_a_cell_per_patch_and_depends_on_the_row_alone(tmp_path: Path, kind: str, module: Any) -> None:
    asked = task(tmp_path, kind)
    answers = answers_of(asked)
    heat = module.heat_of(answers)
    together = heat(pixels_of(answers, asked, [0, 1, 2]), [0, 1, 2])
    assert together.shape == (3, 4, 4)
    assert (together >= 0).all()
    assert together.flatten(1).max(1).values.min() > 0
    assert torch.allclose(heat(pixels_of(answers, asked, [2]), [2])[0], together[2], atol=1e-6)
    swapped = heat(pixels_of(answers, asked, [0, 1, 2]), [1, 2, 3])
    assert not torch.allclose(swapped, together), "another text, another map"


@pytest.mark.parametrize("name", find.LOOKING)
def test_masks_do_not_depend_on_threads(tmp_path: Path, name: str) -> None:
    one, two = (find._looking(task(tmp_path, "clip", threads=threads), name) for threads in (1, 3))
    assert (one[0] == two[0]).all()
    assert one[0].shape == (12, 16, 16)
    assert one[1].shape == (12, 16, 16, 3)


def test_rollout_is_the_naive_one() -> None:
    torch.manual_seed(0)
    layers = [(torch.rand(2, 3, 5, 5), torch.randn(2, 3, 5, 5)) for _ in range(3)]
    layers[-1][1][1, :, 1:] = 0  # the second item pools its first token alone
    found = attention.rollout(layers)
    for item, pooled in enumerate((range(5), [0])):
        naive = np.eye(5)
        for weights, gradient in layers:
            mean = np.zeros((5, 5))
            for head in range(3):
                mean += np.abs(weights[item, head].numpy() * gradient[item, head].numpy()) / 3
            naive = naive + mean @ naive
        assert found[item].numpy() == pytest.approx((naive - np.eye(5))[list(pooled)].mean(axis=0), rel=1e-4)


def test_attention_is_silent_where_the_answer_does_not_hang_on_the_image(tmp_path: Path) -> None:
    asked = task(tmp_path, "clip")
    answers = answers_of(asked)
    blind = Answers(answers.backbone, answers.encode, torch.zeros_like(answers.directions), answers.scores, True)
    assert attention.heat_of(blind)(pixels_of(answers, asked, [0]), [0]).abs().max() == 0


def test_attention_reads_the_weights_that_the_tower_used(tmp_path: Path) -> None:
    """Both layers of the tower, each once, rows that sum to one."""
    answers = answers_of(task(tmp_path, "vit"))
    tower: Any = answers.backbone.image_model  # type: ignore[attr-defined]
    layers = attention.Layers(tower, tower)
    image = torch.randn(2, 3, 32, 32)
    found = layers.weights(lambda: answers.encode(image.clone().requires_grad_(True)).sum())
    assert [weights.shape for weights, _ in found] == [(2, 2, 17, 17)] * 2
    assert torch.allclose(found[0][0].sum(-1), torch.ones(2, 2, 17), atol=1e-5)


@pytest.mark.slow
def test_a_tower_without_attention_and_a_pair_without_shared_space_are_told(tmp_path: Path) -> None:
    answers = answers_of(task(tmp_path, "mobilenet"))
    with pytest.raises(UserError, match="needs a vision transformer"):
        attention.heat_of(answers)
    with pytest.raises(UserError, match="no space for both"):
        similarity.heat_of(answers)


def test_what_a_looking_editor_lacks_is_told(tmp_path: Path) -> None:
    whole = task(tmp_path, "none")
    with pytest.raises(UserError, match="no image tower"):
        answers_of(whole)
    backbone = settings(tmp_path, "mobilenet")
    for sources, match in ((Sources(tmp_path), "needs a backbone"), (Sources(tmp_path, backbone=(backbone, "tiny")), "needs the factual features")):
        with pytest.raises(UserError, match=match):
            answers_of(Task(whole.posts, TEXTS, whole.image, sources, 0.3, 16, 0))


def test_patches_like_the_text_are_hot_and_generic_texts_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    text = torch.tensor([[1.0, 0.0, 0.0]])
    monkeypatch.setattr(similarity, "text_directions", lambda backbone, texts: torch.tensor([[0.0, 0.0, 1.0]]))
    patches = torch.zeros(1, 4, 3)
    patches[0, 0, 2], patches[0, 1, 1], patches[0, 2, 0], patches[0, 3] = 5.0, 5.0, 5.0, torch.tensor([1.0, 0.0, 1.0])
    backbone: Any = SimpleNamespace(image_features=lambda pixels: (None, patches), model=SimpleNamespace())
    answers = Answers(backbone, lambda pixels: pixels, text, lambda rows, features: (features[:, 0], features[:, 0]), True)
    heat = similarity.heat_of(answers)(torch.zeros(1, 3, 4, 4), [0])
    assert heat[0].tolist() == [[0.0, 0.0], [1.0, 0.0]]


def regions(pixels: torch.Tensor) -> torch.Tensor:
    """Brightness of the left and of the right half: (B, 2)."""
    width = pixels.shape[-1] // 2
    return torch.stack([pixels[..., :width].mean((1, 2, 3)), pixels[..., width:].mean((1, 2, 3))], 1)


def half_seer(scores: Callable[[list[int], torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Answers:
    return Answers(GreenSeer(), regions, torch.zeros(1, 2), scores, False)  # type: ignore[arg-type]


def test_double_occlusion_keeps_what_needs_the_text() -> None:
    """The left half counts beside the text alone (a mediator), the right half counts always (a shortcut)."""
    answers = half_seer(lambda rows, found: (5 * found[:, 0] + 7 * found[:, 1], 7 * found[:, 1]))
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    heat = occlusion.heat_of(answers)(pixels, [0, 0])
    grid = occlusion.WINDOWS + occlusion.SPAN - 1
    assert heat.shape == (2, grid, grid)
    assert heat[..., : grid // 2 - 1].mean() > 5 * heat[..., grid // 2 + 1 :].mean()


def test_double_occlusion_is_the_naive_loop() -> None:
    answers = half_seer(lambda rows, found: (found[:, 0] * found[:, 1], found[:, 1]))
    pixels = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
    grid, cell = occlusion.WINDOWS + occlusion.SPAN - 1, 24 // (occlusion.WINDOWS + occlusion.SPAN - 1)
    total, count = np.zeros((grid, grid)), np.zeros((grid, grid))

    def score(image: torch.Tensor) -> tuple[float, float]:
        left, right = regions(image[None])[0].tolist()
        return left * right, right

    both, alone = score(pixels)
    for top in range(occlusion.WINDOWS):
        for left in range(occlusion.WINDOWS):
            hidden = pixels.clone()
            place = slice(top * cell, (top + occlusion.SPAN) * cell), slice(left * cell, (left + occlusion.SPAN) * cell)
            hidden[:, place[0], place[1]] = pixels.mean((1, 2), keepdim=True)
            both_without, alone_without = score(hidden)
            cells = slice(top, top + occlusion.SPAN), slice(left, left + occlusion.SPAN)
            total[cells] += abs((both - both_without) - (alone - alone_without))
            count[cells] += 1
    assert occlusion.occlude(answers, pixels, 0).numpy() == pytest.approx(total / count, rel=1e-3, abs=1e-7)


def test_the_vanilla_head_answers_with_the_text_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vanilla, "STEPS", 60)
    random = np.random.default_rng(0)
    text, image = (torch.from_numpy(random.normal(2.0, 3.0, (80, 4))).float() for _ in range(2))
    head = vanilla.train_vanilla(make(["x"] * 80, [0, 1] * 40), text, image, 0)
    both, alone = head.answers([0, 1, 2], image[:3])
    mean_text = vanilla.Vanilla(head.head, torch.zeros_like(head.text), head.image, head.mean, head.scale)
    chosen = head.head(torch.cat([head.text, head.image], 1))[:3].max(1).values
    assert torch.allclose(both, chosen, atol=1e-4)
    assert not torch.allclose(both, alone)
    assert torch.allclose(mean_text.answers([5], image[5:6])[0], mean_text.answers([5], image[5:6])[1])
    probe = image[:3].clone().requires_grad_(True)
    with_text, without = head.answers([0, 1, 2], probe)
    (gradient,) = torch.autograd.grad((with_text - without).sum(), probe)
    assert torch.allclose(gradient, head.gradients()[:3], atol=1e-5)


def test_text_directions_do_not_depend_on_neighbours(tmp_path: Path) -> None:
    from causalroute.features.backbone import load_backbone

    backbone = load_backbone(settings(tmp_path, "clip"), "tiny")
    texts = tiny.sentences(9)
    together = text_directions(backbone, texts)
    alone = torch.cat([text_directions(backbone, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(9), atol=1e-5)


def test_a_broken_image_ends_the_search_at_once() -> None:
    """And no more batches than a few are held at a time."""
    opened = []

    def image(row: int) -> Image.Image:
        opened.append(row)
        if row == 3:
            raise UserError("broken")
        return Image.new("RGB", (64, 64))

    seer = GreenSeer()
    seer.image_batch = 2
    with pytest.raises(UserError, match="broken"):
        maps.find_cores(seer, image, 1000, lambda pixels, rows: pixels.abs().sum(1), 0.3, 16, threads=2)  # type: ignore[arg-type]
    assert len(opened) < 24
