"""The re-sampled OOD split: words lose what they said in train, shares of classes stay, nothing of train gets in."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from causalroute import layout
from causalroute.config import Columns, Dataset, Source, Splits
from causalroute.data.manifest import prepare
from causalroute.data.resample import TERM, choose, correlations, evidence, with_ood
from causalroute.errors import UserError
from causalroute.io import read_json

WORDS = ("bus", "tree", "road", "cup", "lamp", "door", "river", "stone")


def posts(count: int = 1600, seed: int = 0) -> pl.DataFrame:
    """Words that go with the label in train and in test alike: each class says its own half of WORDS three times out of four."""
    random = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        label = int(random.random() < 0.4)
        own, other = WORDS[4 * label : 4 * label + 4], WORDS[4 * (1 - label) : 4 * (1 - label) + 4]
        text = " ".join(str(random.choice(own if random.random() < 0.65 else other)) for _ in range(3))
        rows.append({"id": f"p{n}", "split": ("train", "train", "id", "valid")[n % 4], "text": f"{text} !", "label": label})
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int8})


def probe(frame: pl.DataFrame) -> dict[str, float]:
    """Accuracy of a bag of words, fitted on train, by split."""
    words = TfidfVectorizer(token_pattern=TERM)
    train = frame.filter(split="train")
    fit = LogisticRegression().fit(words.fit_transform(train["text"]), train["label"])
    return {split: fit.score(words.transform(part["text"]), part["label"]) for split in ("id", "ood") if (part := frame.filter(split=split)).height}


def test_words_say_nothing_any_more() -> None:
    frame = with_ood(posts())
    found = probe(frame)
    assert found["id"] > 0.7
    assert found["ood"] < found["id"] - 0.15
    tests, ood = frame.filter(split="id"), frame.filter(split="ood")
    assert ood["label"].mean() == pytest.approx(tests["label"].mean(), abs=0.02), "every class keeps its share"
    assert ood.height > 50
    e = evidence(frame, ood)
    for label in (0, 1):
        assert -1.0 < e[ood["label"].to_numpy() == label].mean() <= 0.0


def test_only_test_posts_are_taken_and_all_stay_where_they_were() -> None:
    before, frame = posts(), with_ood(posts())
    assert frame.filter(pl.col("split") != "ood").equals(before)
    ood = frame.filter(split="ood")
    originals = ood.select(id=pl.col("id").str.strip_suffix("~ood")).join(before, on="id", how="left", maintain_order="left")
    assert originals["split"].unique().to_list() == ["id"]
    assert ood.select("text", "label").equals(originals.select("text", "label"))


def test_the_choice_depends_on_no_order_and_on_no_post_outside_train_and_test() -> None:
    chosen = with_ood(posts()).filter(split="ood")["id"].to_list()
    assert with_ood(posts()[::-1]).filter(split="ood")["id"].to_list() == chosen
    changed = posts().with_columns(text=pl.when(pl.col("split") == "valid").then(pl.lit("river")).otherwise("text"))
    assert with_ood(changed).filter(split="ood")["id"].to_list() == chosen


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8), st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_the_choice_is_the_least_agreement_of_its_size(first: list[float], second: list[float]) -> None:
    found, labels = np.array(first + second), np.array([0] * len(first) + [1] * len(second))
    shares = [sum(total <= 0 for total in itertools.accumulate(sorted(values))) / len(values) for values in (first, second)]
    sizes = [int(min(shares) * len(values) + 1e-9) for values in (first, second)]
    if not min(sizes):
        with pytest.raises(UserError):
            choose(found, labels)
        return
    rows = choose(found, labels)
    assert [int((labels[rows] == label).sum()) for label in (0, 1)] == sizes
    for label, values in ((0, first), (1, second)):
        mine = found[rows[labels[rows] == label]]
        assert mine.mean() <= 1e-12
        assert mine.sum() == pytest.approx(min(sum(some) for some in itertools.combinations(values, len(mine))), abs=1e-9)


def test_correlations_are_those_of_a_naive_loop() -> None:
    random = np.random.default_rng(0)
    held, labels = random.integers(0, 2, (30, 4)), random.integers(0, 3, 30)
    found = correlations(held, labels, 3)
    for word, label in itertools.product(range(4), range(3)):
        inside, outside = held[labels == label][:, word], held[labels != label][:, word]
        wanted = np.log((inside.sum() + 1) / (len(inside) + 2)) - np.log((outside.sum() + 1) / (len(outside) + 2))
        assert found[word, label] == pytest.approx(wanted)


def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(UserError, match="no OOD split can be made"):
        choose(np.array([0.5, 1.0, -1.0, -2.0]), np.array([0, 0, 1, 1]))
    with pytest.raises(UserError, match="no word is in 10 train posts"):
        with_ood(posts(16))
    clash = posts().with_columns(id=pl.when(pl.col("id") == "p0").then(pl.lit(with_ood(posts()).filter(split="ood")["id"][0])).otherwise("id"))
    with pytest.raises(UserError, match="another post's copy"):
        with_ood(clash)


def test_prepare_writes_the_split_and_hides_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout.raw("d").mkdir(parents=True)
    frame = posts(800)
    extra: list[dict[str, Any]] = [{"id": "o", "split": "ood", "text": "published", "label": 0}]
    rows = [row | {"label": ("bad", "good")[row["label"]]} for row in [*frame.iter_rows(named=True), *extra]]
    (layout.raw("d") / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = Dataset(
        format="table", task="classification", classes=("bad", "good"), backbone="x", editor="x", methods=(), table="t.jsonl",
        sources=(Source(kind="local", path="x"),), columns=Columns(id="id", split="split", image=""), splits=Splits(ood="resampled"),
    )  # fmt: skip
    prepare(settings, "d")
    manifest, tests = pl.read_parquet(layout.manifest("d")), pl.read_parquet(layout.test_labels("d"))
    ood = manifest.filter(split="ood")
    assert ood["label"].null_count() == ood.height == tests.filter(split="ood").height > 20
    assert ood["pair"].null_count() == ood.height, "the same post twice is no pair"
    assert tests.filter(split="id").height == 200
    assert "overlay" not in manifest.columns
    assert pl.read_csv(layout.dropped("d")).rows() == [("o", "replaced_split", "t.jsonl, line 801")]
    assert read_json(layout.summary("d"))["ood"] == "resampled"
    assert ood["id"].to_list() == with_ood(frame).filter(split="ood")["id"].to_list()
