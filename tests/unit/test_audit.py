from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_image_editors import picture

from causalroute.audit import audit, probes, tests
from causalroute.config import Audit
from causalroute.errors import UserError

SUMMARY = {"classes": ["literal", "sarcastic"], "leaks": {"exact_text": 3}, "duplicates": {"exact_text": 4}}
NONE = Path("nowhere")


def frame(rho: float, items: int = 900, seed: int = 0, root: Path | None = None) -> pl.DataFrame:
    """Posts whose hashtag (and background, with a `root`) agrees with the label with probability rho; words know nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(items):
        label = int(random.integers(2))
        cues = [label if random.random() < rho else 1 - label for _ in range(2)]
        words = " ".join(random.choice(["bread", "rain", "bus", "good", "awful", "market", "very"], 4).tolist())
        text = f"{words} {('#east', '#north')[cues[0]]}"
        image = None
        if root is not None:
            image = f"{i}.png"
            picture(*random.uniform(0.4, 0.6, 2), 0.2, warm=bool(cues[1]), side=32).save(root / image)
        split = "train" if i < items * 2 // 3 else "valid" if i < items * 5 // 6 else "id"
        rows.append({"id": f"p{i}", "split": split, "text": text, "image": image, "label": label if split != "id" else None, "text_sha256": text})
    return pl.DataFrame(rows, schema_overrides={"image": pl.String}).with_columns(attributes=pl.lit(None, pl.String))


def cues(found: dict[str, Any], part: str = "shortcuts") -> set[str]:
    return {cue["cue"] for cue in found[part]}


def test_it_finds_the_planted_hashtags_and_nothing_else() -> None:
    found = audit(frame(0.9), SUMMARY, Audit(), NONE)
    assert cues(found) == {"#east", "#north"}
    assert found["associations"] == []
    east = next(cue for cue in found["shortcuts"] if cue["cue"] == "#east")
    assert east["class"] == "literal"
    assert east["share"] == pytest.approx(0.9, abs=0.05)
    assert east["valid_share"] == pytest.approx(0.9, abs=0.08)
    assert east["log_odds"] == pytest.approx(2 * np.log(9), abs=0.8)
    assert found["probes"]["surface tokens"]["low"] > 0.85
    assert (found["leaks"], found["duplicates"]) == (SUMMARY["leaks"], SUMMARY["duplicates"])


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_nothing_where_nothing_is_planted(seed: int) -> None:
    found = audit(frame(0.5, seed=seed), SUMMARY, Audit(), NONE)
    assert found["shortcuts"] == []
    assert found["associations"] == []
    assert found["probes"]["text"]["accuracy"] < 0.58


def test_it_finds_the_colour_of_the_background(tmp_path: Path) -> None:
    found = audit(frame(0.9, 240, root=tmp_path), SUMMARY, Audit(min_count=10), tmp_path)
    images = [cue for cue in found["shortcuts"] if cue["kind"] == "image"]
    assert images[0]["cue"] in ("warmth", "greenness")
    assert next(cue for cue in images if cue["cue"] == "warmth")["auc"] > 0.8
    assert found["probes"]["image statistics"]["low"] > found["probes"]["image statistics"]["majority"]
    assert {"width", "height", "aspect"}.isdisjoint(cue["cue"] for cue in images)


def test_labels_of_test_posts_change_nothing() -> None:
    posts = frame(0.9, 400)
    other = posts.with_columns(label=pl.when(pl.col("split") == "id").then(1).otherwise(pl.col("label")))
    assert audit(posts, SUMMARY, Audit(), NONE) == audit(other, SUMMARY, Audit(), NONE)


def test_a_placeholder_and_a_kind_are_cues() -> None:
    posts = frame(0.5)
    marked = pl.when((pl.col("label") == 1) & (pl.int_range(pl.len()) % 4 == 0)).then(pl.lit(" <num>")).otherwise(pl.lit(""))
    code = pl.concat_str(pl.lit(" emoji_"), pl.int_range(pl.len()))
    shouted = pl.when((pl.col("label") == 0) & (pl.int_range(pl.len()) % 3 == 0)).then(code).otherwise(pl.lit(""))
    found = audit(posts.with_columns(text=pl.col("text") + marked + shouted), SUMMARY, Audit(), NONE)
    assert cues(found) >= {"<num>", "has emoji"}
    assert "has number" not in cues(found)
    num = next(cue for cue in found["shortcuts"] if cue["cue"] == "<num>")
    assert (num["in_class"], num["share"], num["valid_share"]) == (num["posts"], 1.0, 1.0)


def test_attribute_words_are_associations_with_a_probe_of_their_own() -> None:
    posts = frame(0.5).with_columns(attributes=pl.when(pl.col("label") == 1).then(pl.lit("sign street")).otherwise(pl.lit("dog street")))
    found = audit(posts, SUMMARY, Audit(), NONE)
    assert cues(found, "associations") == {"sign", "dog"}
    assert found["probes"]["attributes"]["accuracy"] == 1.0


def test_one_class_is_told() -> None:
    with pytest.raises(UserError, match="fewer than two classes"):
        audit(frame(0.9, 60).with_columns(label=pl.lit(1)), SUMMARY, Audit(), NONE)


@given(st.integers(1, 30), st.integers(1, 30), st.data())
@settings(max_examples=40, deadline=None)
def test_presence_is_fishers_test(first: int, second: int, data: st.DataObject) -> None:
    from scipy.stats import fisher_exact

    a, b = data.draw(st.integers(0, first)), data.draw(st.integers(0, second))
    tested = tests.presence(np.array([[a], [b]], dtype=float), np.array([first, second], dtype=float))
    table = [[a, first - a], [b, second - b]]
    tails = [fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    assert 10 ** tested.log10_p[0] == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-6)
    assert tested.tests == 1


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_rank_is_mann_whitney(seed: int) -> None:
    from scipy.stats import mannwhitneyu

    random = np.random.default_rng(seed)
    values, labels = random.integers(0, 6, (40, 1)).astype(float), np.arange(40) % 2
    tested = tests.rank(values, labels, 2)
    expected = mannwhitneyu(values[labels == tested.label[0], 0], values[labels != tested.label[0], 0], use_continuity=False, method="asymptotic")
    assert 10 ** tested.log10_p[0] == pytest.approx(expected.pvalue, rel=1e-6)
    assert tested.effect[0] == pytest.approx(expected.statistic / 400)


def test_with_three_classes_each_is_tested_against_the_rest() -> None:
    counts = np.array([[0.0, 30.0], [0.0, 5.0], [90.0, 5.0]])
    tested = tests.presence(counts, np.array([100.0, 100.0, 100.0]))
    assert tested.label.tolist() == [2, 0]
    assert tested.tests == 6


def test_folds_are_stratified_and_keep_equal_texts_together() -> None:
    labels = np.array([0] * 70 + [1] * 30)
    groups = [f"g{i // 2}" for i in range(100)]
    fold = probes.assign_folds(labels, groups, 4, 0)
    assert all(fold[i] == fold[i + 1] for i in range(0, 100, 2))
    sizes = [int(((fold == f) & (labels == 1)).sum()) for f in range(4)]
    assert max(sizes) - min(sizes) <= 2
    assert (fold == probes.assign_folds(labels, groups, 4, 0)).all()


def test_the_wilson_interval_is_the_textbook_one() -> None:
    found = probes.score(8, 10, np.array([0] * 6 + [1] * 4))
    assert (found["accuracy"], found["majority"], found["items"]) == (0.8, 0.6, 10)
    assert (found["low"], found["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
