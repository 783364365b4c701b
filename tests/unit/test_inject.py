"""Injected shortcuts: how often cues agree, which copies of a post there are, what is told of them; words and errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalroute.config import Dataset, Inject, parse
from causalroute.data import inject as module
from causalroute.data.inject import BARE, WORDS, cue_words, direct_effect, inject
from causalroute.data.planted import benchmark
from causalroute.errors import UserError
from causalroute.io import canonical_json

SETTINGS = Inject(rho_text=0.8, rho_image=0.7, seed=3)
RATES = {"train": (0.8, 0.7), "valid": (0.8, 0.7), "id": (0.8, 0.7), "ood": (0.2, 0.3), "neutral": (1 / 3, 1 / 3)}


def posts(count: int, visual: str = "image", text: str = "post number {}") -> pl.DataFrame:
    rows = [
        {
            "id": f"p{n}",
            "split": ("train", "id", "valid", "train")[n % 4],
            "text": text.format(n),
            "image": f"i/{n}.png" if visual == "image" and n % 5 else None,
            "attributes": f"tree {n}" if visual == "attributes" else None,
            "label": n % 3,
            "pair": None,
            "text_sha256": "old",
            "image_sha256": "sha",
            "group:mood": "calm",
        }
        for n in range(count)
    ]
    return pl.DataFrame(rows, schema_overrides={"image": pl.String, "attributes": pl.String, "pair": pl.String, "label": pl.Int8})


@pytest.fixture(scope="module")
def made() -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    return inject(posts(4000), SETTINGS, 3)


def test_cues_agree_as_often_as_the_split_says(made: tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]) -> None:
    known = made[0].join(made[1], on="id")
    for split, rates in RATES.items():
        for side, rate in zip(("text", "image"), rates, strict=True):
            part = known.filter((pl.col("split") == split) & pl.col(f"cue_{side}").is_not_null())
            label, cue = part["label"].to_numpy().astype(int), part[f"cue_{side}"].to_numpy().astype(int)
            bound = 4 * math.sqrt(rate * (1 - rate) / part.height)
            assert abs((cue == label).mean() - rate) < bound, (split, side)
            wrong = (cue - label)[cue != label] % 3
            assert abs((wrong == 1).mean() - 0.5) < 2 / math.sqrt(len(wrong)), "another class is drawn uniformly"
    both = known.filter(pl.col("cue_image").is_not_null() & (pl.col("split") == "train"))
    agrees = [(both[f"cue_{side}"] == both["label"]).to_numpy() for side in ("text", "image")]
    assert abs(np.corrcoef(*agrees)[0, 1]) < 4 / math.sqrt(both.height), "given the label the two cues are drawn apart"


def test_every_test_post_is_in_four_splits_and_train_posts_once_beside_their_bare_copy(made: tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]) -> None:
    frame, before = made[0], posts(4000)
    assert frame["split"].value_counts(name="n").sort("split").rows() == [
        ("clean", 1000), ("id", 1000), ("neutral", 1000), ("ood", 1000), ("oracle_train", 2000), ("oracle_valid", 1000), ("train", 2000), ("valid", 1000),
    ]  # fmt: skip
    tests = before.filter(split="id")["id"].to_list()
    for split in ("ood", "neutral", "clean"):
        part = frame.filter(split=split)
        assert part["id"].to_list() == [f"{name}~{split}" for name in tests]
        assert part["pair"].to_list() == tests
    assert frame.filter(split="oracle_valid")["id"].to_list() == [f"{name}~oracle" for name in before.filter(split="valid")["id"]]
    assert frame.filter(pl.col("split").is_in(["train", "valid", "id"]))["pair"].null_count() == 4000


def test_bare_copies_are_the_posts_themselves(made: tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]) -> None:
    bare = made[0].filter(pl.col("split").is_in(BARE))
    original = bare.select(id="pair").join(posts(4000), on="id", how="left", maintain_order="left")
    for column in ("text", "image", "attributes", "label", "text_sha256", "image_sha256", "group:mood"):
        assert bare[column].equals(original[column]), column
    assert bare["overlay"].null_count() == bare.height
    truth = bare.join(made[1], on="id")
    assert truth["cue_text"].null_count() == truth["cue_image"].null_count() == bare.height
    assert truth["effect_text"].abs().sum() == truth["effect_image"].abs().sum() == 0


@pytest.mark.parametrize("place", ["end", "front"])
@pytest.mark.parametrize("visual", ["image", "attributes", "none"])
def test_spans_are_where_the_words_stand(visual: str, place: str) -> None:
    frame, truth, told = inject(posts(60, visual), Inject(place=place), 3)  # type: ignore[arg-type]
    for row in frame.join(truth, on="id").filter(~pl.col("split").is_in(BARE)).iter_rows(named=True):
        (span,) = row["cue_spans"]
        assert row["text"][span["start"] : span["end"]] == told["hashtags"][row["cue_text"]]
        assert row["text"].startswith("#") == (place == "front")
        if visual == "attributes":
            (span,) = row["attribute_spans"]
            assert row["attributes"][span["start"] : span["end"]] == told["attribute_words"][row["cue_image"]]
            assert row["attributes"].endswith(f" tree {row['id'].split('~')[0][1:]}")
        else:
            assert row["overlay"] == (f"corner:{row['cue_image']}" if row["image"] else None)
    assert (set(told) - {"hashtags", "rho_text", "rho_image"}) == {"image": {"mark"}, "attributes": {"attribute_words"}, "none": set()}[visual]


def test_a_post_gets_the_same_cues_whatever_is_beside_it() -> None:
    whole, few = (inject(frame, SETTINGS, 3)[0] for frame in (posts(200), posts(200)[::-3]))
    same = few.join(whole, on="id", suffix="_whole")
    assert same.height == few.height
    assert same["text"].equals(same["text_whole"])
    assert same["overlay"].equals(same["overlay_whole"], null_equal=True)
    other = inject(posts(200), Inject(rho_text=0.8, rho_image=0.7, seed=4), 3)[0]
    assert not other["overlay"].equals(whole["overlay"], null_equal=True)


def test_words_that_some_post_uses_are_passed_over() -> None:
    taken = posts(60, "attributes").with_columns(text=pl.lit("a Granite wall"), attributes=pl.lit("basalts"))
    for seed in range(5):
        tags, words = cue_words(taken, 3, seed)
        assert len({*tags, *words}) == 6
        assert not {"granite", "basalt"} & {*tags, *words}
    with pytest.raises(UserError, match=r"3 cue words are left for 3 classes"):
        cue_words(taken.with_columns(text=pl.lit(" ".join(WORDS[4:]))), 3, 0)


def test_hashtags_are_written_as_the_corpus_writes_them() -> None:
    assert inject(posts(20, text="a # tag {}"), SETTINGS, 3)[2]["hashtags"][0].startswith("# ")
    assert inject(posts(20, text="a #tag # {}"), SETTINGS, 3)[2]["hashtags"][0][:2] != "# "


def test_an_empty_text_becomes_its_hashtag() -> None:
    frame, truth, told = inject(posts(20, text=""), SETTINGS, 3)
    row = frame.join(truth, on="id").row(0, named=True)
    assert row["text"] == told["hashtags"][row["cue_text"]]
    assert row["cue_spans"] == [{"start": 0, "end": len(row["text"])}]


def test_ids_of_copies_must_be_free() -> None:
    frame = posts(8).with_columns(id=pl.when(pl.col("id") == "p0").then(pl.lit("p1~ood")).otherwise("id"))
    with pytest.raises(UserError, match="'p1~ood' is that of another post's copy"):
        inject(frame, SETTINGS, 3)


@given(st.integers(2, 5), st.floats(0.05, 0.95), st.data())
def test_the_direct_effect_is_the_change_of_the_log_odds(classes: int, r: float, data: st.DataObject) -> None:
    shares = np.array(data.draw(st.lists(st.floats(0.1, 1.0), min_size=classes, max_size=classes)))
    shares /= shares.sum()
    label, cue = (data.draw(st.integers(0, classes - 1)) for _ in range(2))
    given_class = [r if cue == other else (1 - r) / (classes - 1) for other in range(classes)]
    posterior = given_class[label] * shares[label] / sum(p * share for p, share in zip(given_class, shares, strict=True))
    wanted = math.log(posterior / (1 - posterior)) - math.log(shares[label] / (1 - shares[label]))
    assert direct_effect(label, cue, r, shares) == pytest.approx(wanted, abs=1e-6)
    even = np.full(classes, 1 / classes)
    assert direct_effect(label, cue, r, even) == pytest.approx(benchmark.direct_effect(cue == label, r, classes), abs=1e-9)


DATASET = {
    "format": "table", "table": "t.csv", "task": "classification", "classes": ["a", "b"], "backbone": "x", "editor": "x", "methods": [], "sources": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"inject": {"rho_text": 1.0}}, "rho_text must lie strictly between 0 and 1"),
        ({"inject": {"rho_image": 0.0}}, "rho_image must lie strictly between 0 and 1"),
        ({"inject": {"mark": "frame"}}, "inject.mark: Input should be 'border', 'corner' or 'tint'"),
        ({"inject": {"marks": "tint"}}, "did you mean 'mark'"),
        ({"inject": {}, "splits": {"ood": "resampled"}}, "both make the split ood"),
        ({"inject": {}, "format": "planted"}, "of their own"),
        ({"splits": {"ood": "resampled"}, "format": "planted"}, "of their own"),
        ({"splits": {"ood": "reversed"}}, "splits.ood: Input should be 'published', 'resampled' or 'if_possible'"),
    ],
)
def test_settings_that_no_data_set_can_have(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as failure:
        parse(Dataset, canonical_json(DATASET | values))
    assert words in str(failure.value)


def test_copies_cover_the_splits_of_the_benchmark() -> None:
    made = {split for copies in module.COPIES.values() for split in copies}
    assert made == {*benchmark.SPLITS, "clean"}
