"""A source of kind table: the table and what it names, nothing else of the folder; and the OOD test that is made where it can be."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tests.unit.small_posts import write_table
from tests.unit.test_resample import posts

from causalroute import layout
from causalroute.config import Dataset, Source, Splits
from causalroute.data import shifts
from causalroute.data.sources import fetch
from causalroute.data.sources.table import files, is_current, materialise
from causalroute.errors import UserError
from causalroute.io import read_json


def dataset(*sources: Source, ood: str = "published") -> Dataset:
    return Dataset(
        format="table", task="classification", classes=("a", "b"), backbone="x", editor="x", methods=(), table="posts.csv", sources=sources,
        splits=Splits(ood=ood),  # type: ignore[arg-type]
    )  # fmt: skip


def test_only_the_table_and_its_images_are_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    source = Source(kind="table", path=str(write_table(mine, 20)), images="image")
    (mine / "huge.bin").write_bytes(b"x" * 1000)
    (mine / "images" / "unused.png").write_bytes(b"x")
    (mine / "images" / "p3.png").unlink()
    fetch(dataset(source), "d")
    brought = {path.relative_to(layout.raw("d")).as_posix() for path in layout.raw("d").rglob("*") if path.is_file()}
    assert brought == {"posts.csv", *(f"images/p{number}.png" for number in range(20) if number != 3)}
    record = read_json(layout.source("d"))
    assert record["sources"][0]["origin"] == str(mine / "posts.csv")
    assert is_current(source, record)
    (mine / "huge.bin").write_bytes(b"y")
    assert is_current(source, record), "what the table does not name is none of its business"
    picture = mine / "images" / "p4.png"
    picture.write_bytes(picture.read_bytes()[:-1] + b"?")
    assert not is_current(source, record), "the same size, other bytes"
    fetch(dataset(source), "d")
    assert is_current(source, read_json(layout.source("d")))
    (mine / "posts.csv").write_text((mine / "posts.csv").read_text() + "one more,,positive\n")
    assert not is_current(source, read_json(layout.source("d")))


def test_images_cannot_leave_their_root(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "link.png").symlink_to(tmp_path / "secret.png")
    (mine / "posts.csv").write_text(f"text,image\na,../secret.png\nb,{tmp_path}/secret.png\nc,link.png\n")
    assert list(files(Source(kind="table", path=str(mine / "posts.csv"), images="image"))) == ["posts.csv"]


def test_images_may_lie_below_another_root(tmp_path: Path) -> None:
    path = write_table(tmp_path / "photos", 6).rename(tmp_path / "posts.csv")
    source = Source(kind="table", path=str(path), images="image", root=str(tmp_path / "photos"))
    materialise(source, dataset(source), tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6
    assert list(files(Source(kind="table", path=str(path), images="image"))) == ["posts.csv"]
    assert list(files(Source(kind="table", path=str(path)))) == ["posts.csv"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "nowhere.csv"}, "there is no such table"),
        ({"path": "posts.csv", "images": "pictur"}, "did you mean 'picture'"),
        ({"path": "posts.csv", "images": "picture", "root": "other"}, "an image is called 'posts.csv'"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("posts.csv").write_text("text,picture\na,posts.csv\n")
    Path("other").mkdir()
    Path("other/posts.csv").write_text("x")
    with pytest.raises(UserError, match=words):
        files(Source(kind="table", **source))  # type: ignore[arg-type]


def test_a_lfs_pointer_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path, 4)
    (tmp_path / "images" / "p1.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    source = Source(kind="table", path=str(path), images="image")
    with pytest.raises(UserError, match="Git LFS pointer"):
        materialise(source, dataset(source), tmp_path / "out")


def test_an_ood_test_is_made_where_it_can_be() -> None:
    settings = dataset(Source(kind="table", path="x"), ood="if_possible")
    plenty = posts(3000)
    made, _, told = shifts.shifted(plenty, None, settings)
    assert told == {"ood": "resampled"}
    assert made.filter(split="ood").height >= shifts.FEWEST
    few = posts(200)
    kept, _, why = shifts.shifted(few, None, settings)
    assert kept.equals(few)
    assert "could be chosen, 50 are needed" in why["ood"]
    silent, _, why = shifts.shifted(posts(16), None, settings)
    assert (silent.height, why["ood"]) == (16, "none: no word is in 10 train posts")


def test_published_ood_posts_stay_where_there_are_any() -> None:
    published = posts(3000).with_columns(split=pl.when(pl.col("id") == "p0").then(pl.lit("ood")).otherwise("split"))
    made, _, told = shifts.shifted(published, None, dataset(Source(kind="table", path="x"), ood="if_possible"))
    assert made.equals(published)
    assert told == {}
    assert not shifts.asked(dataset(Source(kind="table", path="x"), ood="if_possible"))
