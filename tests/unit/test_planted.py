"""The planted benchmark keeps its promises: rule, rates, spans, boxes, effects, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from causalroute.config import Planted
from causalroute.data.planted import CLASSES, SPLITS, benchmark, captions, generate, grammar, render
from causalroute.errors import UserError
from causalroute.rng import generator

SMALL = Planted(train=12, valid=6, test=8)
TASKS = pytest.mark.parametrize("task", sorted(CLASSES))
SEEDS = st.integers(0, 2**32)
COUNT = 800


@pytest.fixture(scope="module", params=sorted(CLASSES))
def table(request: pytest.FixtureRequest) -> tuple[str, pl.DataFrame]:
    """Rows without images: COUNT posts of every split."""
    numbers = Planted(train=COUNT, valid=10, test=COUNT)
    return request.param, pl.DataFrame([row for row, _ in benchmark.posts(numbers, request.param)], schema=benchmark.SCHEMA)


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def within(hits: int, n: int, p: float) -> bool:
    """Five standard deviations around a binomial mean."""
    return abs(hits - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9


@TASKS
def test_same_settings_give_the_same_bytes(task: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        generate(SMALL, task, tmp_path / name)
    generate(dataclasses.replace(SMALL, seed=1), task, tmp_path / "other")
    first = digest(tmp_path / "first")
    assert first == digest(tmp_path / "second")
    assert first["posts.parquet"] != digest(tmp_path / "other")["posts.parquet"]
    assert len(first) == 1 + sum(benchmark.sizes(SMALL).values())


def test_a_second_run_replaces_an_interrupted_one(tmp_path: Path) -> None:
    generate(SMALL, "sarcasm", tmp_path / "whole")
    generate(SMALL, "sarcasm", tmp_path / "cut")
    (tmp_path / "cut" / "posts.parquet").unlink()
    (tmp_path / "cut" / "images" / "train" / "train-00003.png").write_bytes(b"half a pict")
    generate(SMALL, "sarcasm", tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_files_agree_with_the_table(tmp_path: Path) -> None:
    generate(SMALL, "sentiment", tmp_path)
    posts = pl.read_parquet(tmp_path / "posts.parquet")
    assert dict(posts.schema) == {name: pl.DataFrame(schema=benchmark.SCHEMA).schema[name] for name in benchmark.SCHEMA}
    assert posts["id"].n_unique() == len(posts)
    assert posts["split"].unique(maintain_order=True).to_list() == list(SPLITS)
    for path in posts["image"]:
        with Image.open(tmp_path / path) as image:
            assert image.size == (render.SIZE, render.SIZE)
            assert image.mode == "RGB"


def test_more_posts_leave_the_others_as_they_are() -> None:
    few = {row["id"]: row for row, _ in benchmark.posts(SMALL, "sarcasm")}
    many = {row["id"]: row for row, _ in benchmark.posts(dataclasses.replace(SMALL, train=20, test=9), "sarcasm")}
    assert all(many[name] == row for name, row in few.items())


def test_labels_follow_the_rule(table: tuple[str, pl.DataFrame]) -> None:
    task, posts = table
    for row in posts.iter_rows(named=True):
        ruled = CLASSES[task][benchmark.true_label(task, row["core_text"], row["core_image"])]
        assert (row["label"] != ruled) == row["noisy"]
    assert not posts.filter(~pl.col("split").is_in(benchmark.NOISY_SPLITS))["noisy"].any()
    train = posts.filter(pl.col("split") == "train")
    assert within(int(train["noisy"].sum()), COUNT, Planted.label_noise)


@pytest.mark.parametrize(("a", "b", "sarcasm", "sentiment"), [(1, 1, 0, 2), (1, -1, 1, 1), (-1, 1, 1, 1), (-1, -1, 0, 0)])
def test_rule(a: int, b: int, sarcasm: int, sentiment: int) -> None:
    assert benchmark.true_label("sarcasm", a, b) == sarcasm
    assert benchmark.true_label("sentiment", a, b) == sentiment


def test_classes_and_polarities_are_balanced(table: tuple[str, pl.DataFrame]) -> None:
    task, posts = table
    for split in ("train", "id", "ood", "neutral", "oracle_train"):
        part = posts.filter(pl.col("split") == split)
        for name in CLASSES[task]:
            assert within(int((part["label"] == name).sum()), COUNT, 1 / len(CLASSES[task]))
        for side in ("core_text", "core_image"):
            assert within(int((part[side] == 1).sum()), COUNT, 0.5)


@pytest.mark.parametrize("side", ["text", "image"])
def test_cues_follow_rho_and_effects_the_frequencies(table: tuple[str, pl.DataFrame], side: str) -> None:
    task, posts = table
    names = CLASSES[task]
    rates = {"train": 0.9, "id": 0.9, "ood": 0.1, "neutral": 1 / len(names), "oracle_train": 1 / len(names)}
    for split, rate in rates.items():
        part = posts.filter(pl.col("split") == split)
        label = np.array([names.index(name) for name in part["label"]])
        cue = part[f"cue_{side}"].to_numpy()
        assert within(int((label == cue).sum()), COUNT, rate)
        for y in range(len(names)):
            for c in range(len(names)):
                pair = (label == y) & (cue == c)
                effects = set(part[f"effect_{side}"].to_numpy()[pair].round(4).tolist())
                hits, shown = pair.sum(), (cue == c).sum()
                p, base = hits / shown, (label == y).mean()
                empirical = math.log(p / (1 - p)) - math.log(base / (1 - base))
                assert len(effects) == 1
                assert abs(effects.pop() - empirical) < 4 * math.sqrt(1 / hits + 1 / (shown - hits) + 1 / len(part))


def test_cues_are_independent_of_each_other_and_of_the_core(table: tuple[str, pl.DataFrame]) -> None:
    task, posts = table
    train = posts.filter((pl.col("split") == "train") & ~pl.col("noisy"))
    for name in CLASSES[task]:
        own = CLASSES[task].index(name)
        part = train.filter(pl.col("label") == name)
        both = int(((part["cue_text"] == own) & (part["cue_image"] == own)).sum())
        assert within(both, len(part), 0.81)
    for side in ("core_text", "core_image"):
        if task == "sarcasm":
            part = train.filter(pl.col("cue_text") == 1)
            assert within(int((part[side] == 1).sum()), len(part), 0.5)


@settings(deadline=None)
@given(r=st.floats(0.01, 0.99))
def test_effect_has_the_closed_form(r: float) -> None:
    assert benchmark.direct_effect(True, r, 2) == pytest.approx(math.log(r / (1 - r)), abs=1e-9)
    assert benchmark.direct_effect(False, r, 2) == pytest.approx(-math.log(r / (1 - r)), abs=1e-9)
    assert benchmark.direct_effect(True, r, 3) == pytest.approx(math.log(r / ((1 - r) / 2)), abs=1e-9)
    for classes in (2, 3, 5):
        assert benchmark.direct_effect(True, 1 / classes, classes) == pytest.approx(0, abs=1e-9)
        assert benchmark.direct_effect(False, 1 / classes, classes) == pytest.approx(0, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, polarity=st.sampled_from([1, -1]), cue=st.integers(0, 2))
def test_spans_point_at_the_words(seed: int, polarity: int, cue: int) -> None:
    post = grammar.post(generator(seed), polarity, cue)
    core = [post.text[start:end] for start, end in post.core]
    tags = [post.text[start:end] for start, end in post.cue]
    assert core
    assert set(core) <= set(grammar.ADJECTIVES[polarity])
    assert len(set(tags)) == grammar.HASHTAGS_PER_POST
    assert set(tags) <= set(grammar.HASHTAGS[cue])
    tokens = re.findall(r"#?\w+|[^\w\s]", post.text)
    polar = {word for words in grammar.ADJECTIVES.values() for word in words}
    assert sorted(core) == sorted(token for token in tokens if token in polar)
    assert sorted(tags) == sorted(token for token in tokens if token.startswith("#"))
    assert set(tokens) <= set(grammar.words())
    assert "  " not in post.text


def test_grammar_is_rich_and_its_words_do_not_overlap() -> None:
    bodies = {grammar.sentence(generator(7, i), 1).text for i in range(3000)}
    assert len(bodies) > 2900
    lists = [*grammar.ADJECTIVES.values(), *grammar.HASHTAGS]
    assert sum(map(len, lists)) == len({word for words in lists for word in words})
    slots = {token for options in grammar.SLOTS.values() for option in options for token in option.split()}
    frames = {token for frame in grammar.TEMPLATES for token in re.sub(r"\{\w+\}", " ", frame).split()}
    assert not (slots | frames) & {word for words in lists for word in words}


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, polarity=st.sampled_from([1, -1]), family=st.integers(0, 2))
def test_the_box_holds_the_whole_face_and_nothing_else_changes(seed: int, polarity: int, family: int) -> None:
    scene = render.draw_scene(generator(seed), polarity, family, render.POSTS)
    with_face, without = (np.asarray(render.render(scene, face=shown)).astype(int) for shown in (True, False))
    changed = np.abs(with_face - without).max(axis=2) > render.TRACE
    x0, y0, x1, y1 = scene.box
    ys, xs = np.nonzero(changed)
    assert 0 <= x0 <= xs.min() <= xs.max() < x1 <= render.SIZE
    assert 0 <= y0 <= ys.min() <= ys.max() < y1 <= render.SIZE
    assert changed.sum() > 0.5 * (x1 - x0) * (y1 - y0)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, polarity=st.sampled_from([1, -1]))
def test_another_background_leaves_the_face_as_it_is(seed: int, polarity: int) -> None:
    rng = generator(seed)
    scene = render.draw_scene(rng, polarity, 0, render.POSTS)
    other = dataclasses.replace(scene, background=render.draw_background(rng, 1))
    a, b = (np.asarray(render.render(s)).astype(int) for s in (scene, other))
    ys, xs = np.mgrid[: render.SIZE, : render.SIZE]
    inside = (xs + 0.5 - scene.face.x) ** 2 + (ys + 0.5 - scene.face.y) ** 2 < (scene.face.radius - 3) ** 2
    assert np.abs(a - b)[inside].max() <= render.TRACE
    assert (a[~inside] != b[~inside]).any()


@pytest.mark.parametrize("family", range(3))
def test_background_colours_stay_in_their_family(family: int) -> None:
    def hue(colour: render.Colour) -> float:
        import colorsys

        return colorsys.rgb_to_hsv(*(c / 255 for c in colour))[0]

    low, high = render.FAMILIES[family]
    for seed in range(50):
        for colour in render.draw_background(generator(seed), family).colours:
            assert low - 0.01 <= hue(colour) <= high + 0.01 or (low == 0 and hue(colour) > 0.99)


def test_hints_are_wrong_as_often_as_the_style_says() -> None:
    faces = [render.draw_face(generator(3, i), 1, render.POSTS) for i in range(2000)]
    hints = [hint for face in faces for hint in (face.brows, face.marks)]
    assert within(hints.count(-1), len(hints), render.POSTS.shown * render.POSTS.wrong)
    assert within(sum(face.occluder is not None for face in faces), len(faces), render.POSTS.occluded)
    assert all(face.brows == face.marks == -1 for face in (render.draw_face(generator(4, i), -1, render.CLEAN) for i in range(50)))


def test_captions_tell_the_face_but_no_label() -> None:
    forbidden = {name for names in CLASSES.values() for name in names} - {"neutral"}
    known = set(captions.vocabulary())
    smiles = 0
    for index in range(200):
        item = captions.captioned(5, index)
        words = {token for text in item.captions for token in re.findall(r"#?\w+|[^\w\s]", text)}
        polarity = item.scene.face.polarity
        assert words <= known
        assert not words & forbidden
        assert not words & {*grammar.ADJECTIVES[-polarity], *captions.FACES[-polarity]}
        smiles += polarity == 1
    assert within(smiles, 200, 0.5)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("irony", {}, "no task 'irony'"),
        ("sarcasm", {"rho_text": 1.0}, "rho_text is 1.0"),
        ("sarcasm", {"rho_image": -0.1}, "rho_image is -0.1"),
        ("sarcasm", {"label_noise": 0.5}, "label_noise is 0.5"),
        ("sarcasm", {"valid": 0}, "a split of the planted benchmark is empty"),
    ],
)
def test_wrong_numbers_are_told(task: str, change: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        generate(dataclasses.replace(SMALL, **change), task, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_generator_does_not_load_torch() -> None:
    code = "import sys, causalroute.data.planted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(Path(benchmark.__file__).parents[3])}, check=False).returncode == 0
