"""Several sources of planted posts: each cue plays its part, and the style tells the source to a reader but not to an editor."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from causalroute.config import Planted
from causalroute.data.planted import CLASSES, benchmark, captions, generate, render, sources
from causalroute.errors import UserError

KINDS = ("both", "none", "core_text", "core_image")
MIXED = Planted(train=2400, valid=8, test=2400, sources=KINDS)
LABELS = CLASSES["sarcasm"]


def rows(settings: Planted) -> pl.DataFrame:
    return pl.DataFrame([row for row, _ in benchmark.posts(settings, "sarcasm")], schema=benchmark.SCHEMA | {benchmark.SOURCE: pl.String})


@pytest.fixture(scope="module")
def posts() -> pl.DataFrame:
    return rows(MIXED).with_columns(y=pl.col("label").replace_strict(LABELS, [0, 1]))


def within(hits: int, n: int, p: float) -> bool:
    return abs(hits - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9


def part(posts: pl.DataFrame, split: str, kind: str) -> pl.DataFrame:
    return posts.filter((pl.col("split") == split) & (pl.col(benchmark.SOURCE) == kind))


def test_every_source_has_its_share(posts: pl.DataFrame) -> None:
    for split in ("train", "id", "ood", "neutral"):
        assert [part(posts, split, kind).height for kind in KINDS] == [600] * 4


def test_labels_follow_what_the_cue_means_in_the_source(posts: pl.DataFrame) -> None:
    for row in posts.filter(~pl.col("noisy")).iter_rows(named=True):
        text, image = row["core_text"], row["core_image"]
        if row[benchmark.SOURCE] == "core_text" and row["cue_text"] == 1:
            text = -text
        if row[benchmark.SOURCE] == "core_image" and row["cue_image"] == 1:
            image = -image
        assert row["y"] == int(text != image)


@pytest.mark.parametrize(("split", "shortcut"), [("train", 0.9), ("id", 0.9), ("ood", 0.1), ("neutral", 0.5), ("oracle_train", 0.5)])
def test_a_cue_agrees_with_the_label_only_where_it_is_a_shortcut(posts: pl.DataFrame, split: str, shortcut: float) -> None:
    for kind in KINDS:
        chosen = part(posts, split, kind)
        for side, role in zip(("text", "image"), sources.ROLES[kind], strict=True):
            rate = shortcut if role == "shortcut" else 0.5
            assert within(int((chosen["y"] == chosen[f"cue_{side}"]).sum()), chosen.height, rate), (kind, side)
            effects = chosen[f"effect_{side}"].abs().unique().to_list()
            assert effects == pytest.approx([abs(math.log(rate / (1 - rate)))] * len(effects), abs=1e-5)


def test_a_core_cue_without_the_word_says_nothing_and_with_it_everything(posts: pl.DataFrame) -> None:
    chosen = part(posts, "neutral", "core_text")
    for polarity in (1, -1):
        for cue in (0, 1):
            cell = chosen.filter((pl.col("core_text") == polarity) & (pl.col("cue_text") == cue))
            assert within(int(cell["y"].sum()), cell.height, 0.5), "text alone does not give the label"
            image = cell.filter(pl.col("core_image") == 1)["y"].unique().to_list()
            assert len(image) == 1, "with the face it does"


@pytest.mark.slow
def test_a_biased_core_cue_is_reversed_in_ood() -> None:
    biased = rows(dataclasses.replace(MIXED, core_bias=0.75)).with_columns(y=pl.col("label").replace_strict(LABELS, [0, 1]))
    for split, rate in (("train", 0.75), ("ood", 0.25), ("neutral", 0.5)):
        chosen = part(biased, split, "core_image")
        assert within(int((chosen["y"] == chosen["cue_image"]).sum()), chosen.height, rate)


def test_handle_and_frame_are_those_of_the_source_or_hidden() -> None:
    for style, agreeing in (("shown", 1.0), ("hidden", 0.25)):
        settings = dataclasses.replace(MIXED, style=style, train=400)
        found = [benchmark.draw(settings, "sarcasm", "train", index) for index in range(400)]
        frames = [scene.frame == KINDS.index(row[benchmark.SOURCE]) for row, scene in found]
        handles = [sources.HANDLES[scene.frame or 0] in row["text"].split() for row, scene in found]
        assert within(sum(frames), 400, agreeing)
        assert all(handles), "text and image agree about the style"


def test_spans_hold_behind_a_handle(posts: pl.DataFrame) -> None:
    for row in posts.head(300).iter_rows(named=True):
        assert all(row["text"][span["start"]] == "#" for span in row["cue_spans"])
        assert re.search(r"(^|\s)@\w+(\s|$)", row["text"])


def test_frames_differ_and_leave_the_inside_alone() -> None:
    _, scene = benchmark.draw(MIXED, "sarcasm", "train", 0)
    plain = np.asarray(render.render(dataclasses.replace(scene, frame=None)))
    framed = [np.asarray(render.render(dataclasses.replace(scene, frame=style))) for style in range(len(render.FRAMES))]
    inner = slice(render.FRAME, render.SIZE - render.FRAME)
    assert all((image[inner, inner] == plain[inner, inner]).all() for image in framed)
    assert len({image.tobytes() for image in framed}) == len(render.FRAMES) == len(sources.HANDLES)


def test_one_kind_of_source_several_times_keeps_them_apart() -> None:
    same = rows(dataclasses.replace(MIXED, sources=("both",) * 4, train=8, test=8))
    assert same[benchmark.SOURCE].unique().sort().to_list() == ["0 both", "1 both", "2 both", "3 both"]


def test_without_sources_nothing_changes(tmp_path: Path) -> None:
    generate(Planted(train=4, valid=2, test=2), "sarcasm", tmp_path)
    assert benchmark.SOURCE not in pl.read_parquet(tmp_path / "posts.parquet").columns
    assert benchmark.draw(Planted(), "sarcasm", "train", 0)[1].frame is None


def test_captions_know_handles_and_frames_where_asked() -> None:
    known = set(captions.vocabulary(True))
    plain, styled = captions.captioned(5, 3), captions.captioned(5, 3, True)
    assert plain.scene == dataclasses.replace(styled.scene, frame=None)
    texts = [text for index in range(100) for text in captions.captioned(5, index, True).captions]
    assert {token for text in texts for token in re.findall(r"#?\w+|[^\w\s]", text)} <= known
    assert within(sum("@" in text for text in texts), len(texts), captions.HANDLE_SHARE)
    assert not {"@", "newsdesk"} & set(captions.vocabulary())


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("sentiment", {}, "sources of task 'sentiment'"),
        ("sarcasm", {"sources": KINDS + KINDS[:1]}, "5 sources"),
        ("sarcasm", {"core_bias": 1.0}, "core_bias is 1.0"),
    ],
)
def test_wrong_sources_are_told(task: str, change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        generate(dataclasses.replace(MIXED, **change), task, tmp_path)
