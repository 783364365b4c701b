"""The search itself: planted cues and nothing else, nothing where nothing is planted, test labels unread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.unit.test_image_editors import picture

from causalroute.audit import audit, search
from causalroute.audit.explained import accuracy, cut, entropy, quantiles, uncertainty
from causalroute.audit.posts import Posts
from causalroute.config import Audit
from causalroute.errors import UserError

SUMMARY = {"classes": ["literal", "sarcastic"], "leaks": {"exact_text": 3}, "duplicates": {"exact_text": 4}}
NONE = Path("nowhere")
WORDS = ["bread", "rain", "bus", "good", "awful", "market", "very"]


def frame(rho: float, items: int = 900, seed: int = 0, root: Path | None = None) -> pl.DataFrame:
    """Posts whose hashtag (and background, with a `root`) agrees with the label with probability rho; words know nothing."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(items):
        label = int(random.integers(2))
        cues = [label if random.random() < rho else 1 - label for _ in range(2)]
        words = " ".join(random.choice(WORDS, 4).tolist())
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


def one(found: dict[str, Any], name: str, part: str = "shortcuts") -> dict[str, Any]:
    return next(cue for cue in found[part] if cue["cue"] == name)


def marked(posts: pl.DataFrame, label: int, every: int, words: str) -> pl.DataFrame:
    """`words` at the end of each `every`-th post of a class."""
    where = (pl.col("label") == label) & (pl.int_range(pl.len()) % every == 0)
    return posts.with_columns(text=pl.col("text") + pl.when(where).then(pl.lit(f" {words}")).otherwise(pl.lit("")))


def test_it_finds_the_planted_hashtags_and_nothing_else() -> None:
    found = audit(frame(0.9), SUMMARY, Audit(), NONE)
    assert cues(found) == {"#east", "#north"}
    assert found["associations"] == []
    assert found["found"] == {"shortcuts": 2, "associations": 0}
    east = one(found, "#east")
    assert east["class"] == "literal"
    assert east["share"] == pytest.approx(0.9, abs=0.05)
    assert east["share_without"] == pytest.approx(0.1, abs=0.05)
    assert east["valid_share"] == pytest.approx(0.9, abs=0.08)
    assert east["log_odds"] == pytest.approx(2 * np.log(9), abs=0.8)
    assert east["log10_p"] < east["log10_q"] <= east["log10_p_bonferroni"]
    assert found["probes"]["surface"]["low"] > 0.85
    assert found["tests"]["passed"] == {"fwer": found["tests"]["pairs_explained_by_a_token"] + 2, "fdr": found["tests"]["passed"]["fdr"]}
    assert (found["leaks"], found["duplicates"]) == (SUMMARY["leaks"], SUMMARY["duplicates"])


def test_a_cue_explains_what_theory_says() -> None:
    """A cue that agrees with a fair label in 9 of 10 cases takes 1 - H(.9) / H(.5) = .531 of its entropy."""
    found = audit(frame(0.9, 3000), SUMMARY, Audit(), NONE)
    assert one(found, "#east")["explains"] == pytest.approx(0.531, abs=0.05)
    assert one(found, "#east")["accuracy_alone"] == pytest.approx(0.9, abs=0.02)
    assert found["joint"]["explained"] == pytest.approx(0.531, abs=0.05)
    without = {drop["without"]: drop for drop in found["joint"]["without"]}
    assert without["hashtag"]["explained"] == pytest.approx(0.0, abs=0.02)
    assert without["#east"]["drop"] == pytest.approx(0.0, abs=0.02), "#north tells the same"


def test_posts_to_look_at_hold_the_cue() -> None:
    east = one(audit(frame(0.9), SUMMARY, Audit(examples=2), NONE), "#east")
    assert len(east["examples"]) == 2
    assert all("#east" in post["text"] for post in east["examples"])
    assert one(audit(frame(0.9), SUMMARY, Audit(examples=0), NONE), "#east")["examples"] == []


@pytest.mark.slow
@pytest.mark.parametrize("control", ["fwer", "fdr"])
def test_it_finds_nothing_where_nothing_is_planted(control: Any) -> None:
    """Family-wise error, and under a global null the false discovery rate as well, is the share of audits that find anything: alpha .05 of them."""
    audits = (audit(frame(0.5, 500, seed), SUMMARY, Audit(control=control), NONE) for seed in range(20))
    assert sum(bool(found["shortcuts"] + found["associations"]) for found in audits) <= 3, "four or more of twenty have probability .016"
    found = audit(frame(0.5), SUMMARY, Audit(), NONE)
    assert found["probes"]["text"]["accuracy"] < 0.58
    assert found["joint"]["explained"] == pytest.approx(0.0, abs=0.01)
    assert found["joint"]["cues"] == 0


def test_it_finds_the_colour_of_the_background(tmp_path: Path) -> None:
    found = audit(frame(0.9, 240, root=tmp_path), SUMMARY, Audit(min_count=10), tmp_path)
    images = [cue for cue in found["shortcuts"] if cue["kind"] == "image"]
    assert {"warmth", "brightness"} <= {cue["cue"] for cue in images}, "warm and cool stripes differ in both"
    assert one(found, "warmth")["auc"] > 0.8
    assert one(found, "warmth")["median"] > one(found, "warmth")["median_rest"]
    assert found["probes"]["image statistics"]["low"] > found["probes"]["image statistics"]["majority"]
    assert {"width", "height", "aspect", "JPEG quality"}.isdisjoint(cue["cue"] for cue in images)


def test_labels_of_test_posts_change_nothing() -> None:
    posts = frame(0.9, 400)
    other = posts.with_columns(label=pl.when(pl.col("split") == "id").then(1).otherwise(pl.col("label")))
    assert audit(posts, SUMMARY, Audit(), NONE) == audit(other, SUMMARY, Audit(), NONE)


def test_a_placeholder_and_a_kind_are_cues() -> None:
    posts = marked(frame(0.5), 1, 4, "<num>")
    code = pl.concat_str(pl.lit(" emoji_"), pl.int_range(pl.len()))
    shouted = pl.when((pl.col("label") == 0) & (pl.int_range(pl.len()) % 3 == 0)).then(code).otherwise(pl.lit(""))
    found = audit(posts.with_columns(text=pl.col("text") + shouted), SUMMARY, Audit(), NONE)
    assert cues(found) >= {"<num>", "has emoji"}
    assert "has number" not in cues(found)
    num = one(found, "<num>")
    assert (num["in_class"], num["share"], num["valid_share"]) == (num["posts"], 1.0, 1.0)


def test_a_pair_is_listed_only_where_it_tells_more_than_its_words() -> None:
    posts = frame(0.5, 1500).with_columns(pl.col("text").str.replace(" #.*", ""))
    both = marked(marked(posts, 1, 3, "zebra crossing"), 0, 3, "crossing zebra")
    found = audit(both, SUMMARY, Audit(), NONE)
    assert {"zebra crossing", "crossing zebra"} <= cues(found, "associations")
    assert cues(found, "associations") <= {"zebra crossing", "crossing zebra"} | {f"{word} {other}" for word in WORDS for other in ("zebra", "crossing")}
    drowned = audit(marked(posts, 1, 3, "zebra crossing"), SUMMARY, Audit(), NONE)
    assert cues(drowned, "associations") == {"zebra", "crossing"}
    assert drowned["tests"]["pairs_explained_by_a_token"] >= 1


def test_a_text_that_recurs_is_one_observation() -> None:
    posts = frame(0.5, 600)
    spam = pl.when((pl.col("label") == 1) & (pl.int_range(pl.len()) % 5 == 0)).then(pl.lit("win a prize now")).otherwise(pl.col("text"))
    found = audit(posts.with_columns(text=spam), SUMMARY, Audit(), NONE)
    assert cues(found) | cues(found, "associations") == set()


def test_attribute_words_are_associations_with_a_probe_of_their_own() -> None:
    posts = frame(0.5).with_columns(attributes=pl.when(pl.col("label") == 1).then(pl.lit("sign street")).otherwise(pl.lit("dog street")))
    found = audit(posts, SUMMARY, Audit(), NONE)
    assert cues(found, "associations") == {"sign", "dog"}
    assert found["probes"]["attributes"]["accuracy"] == 1.0


def test_one_class_is_told() -> None:
    with pytest.raises(UserError, match="fewer than two classes"):
        audit(frame(0.9, 60).with_columns(label=pl.lit(1)), SUMMARY, Audit(), NONE)


@pytest.mark.parametrize(("key", "value"), [("alpha", 0.0), ("alpha", 1.0), ("folds", 1), ("min_count", 0), ("examples", -1)])
def test_settings_are_checked(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        Audit(**{key: value})


def test_three_classes_metadata_and_features() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(3, size=600)
    agree = random.random(600) < 0.7
    source = [("web", "phone", "watch")[label] if yes else "web" for label, yes in zip(labels, agree, strict=True)]
    hour = [str(float(label * 6 + random.normal())) if i % 9 else None for i, label in enumerate(labels)]
    note = [f"note {i} {'x' * int(i % 5)}" for i in range(600)]
    centres = np.eye(3)[labels] * agree[:, None] + 0.02 * random.normal(size=(600, 3))
    features = np.column_stack([centres, np.ones(600)])
    texts = [f"{random.choice(WORDS)} {random.choice(WORDS)} {i}" for i in range(600)]
    none: list[str | None] = [None] * 600
    metadata = {"source": source, "hour": hour, "note": note}
    ids, train = [str(i) for i in range(600)], np.ones(600, dtype=bool)
    posts = Posts(ids, texts, labels, ("a", "b", "c"), train, none, none, metadata, features)
    found = search(posts, none, Audit())  # type: ignore[arg-type]
    assert {"source=web", "source=phone", "source=watch", "hour"} <= cues(found)
    assert one(found, "source=phone")["class"] == "b"
    assert {cue["kind"] for cue in found["associations"]} == {"image cluster"}, "pictures of like content may be the meaning itself"
    assert {cue["kind"] for cue in found["shortcuts"]} == {"metadata"}
    assert not {"note", "note is filled"} & cues(found)
    assert found["probes"]["metadata"]["low"] > 0.6 > found["probes"]["text"]["accuracy"]
    assert found["probes"]["image features"]["low"] > 0.6
    assert found["items"] == {"train": 600, "valid": 0}


def test_uncertainty_is_mutual_information_over_entropy() -> None:
    from sklearn.metrics import mutual_info_score

    random = np.random.default_rng(3)
    labels, values = random.integers(3, size=4000), random.integers(4, size=4000)
    values = np.where(random.random(4000) < 0.4, labels, values)
    table = np.zeros((3, 4))
    np.add.at(table, (labels, values), 1)
    expected = mutual_info_score(labels, values) / entropy(table.sum(axis=1))
    assert uncertainty(table) == pytest.approx(expected, abs=6 / 8000 * 1.1)
    assert uncertainty(table) < expected
    assert uncertainty(np.eye(3) * 1000) == pytest.approx(1.0, abs=0.01)
    assert uncertainty(np.array([[5.0, 0.0], [7.0, 0.0]])) == 0.0
    assert accuracy(np.array([[8.0, 1.0], [2.0, 9.0]])) == 0.85


def test_numbers_are_cut_into_bins_of_equal_size() -> None:
    values = np.array([*range(100), np.nan], dtype=float)
    bins = cut(values, quantiles(values))
    assert np.bincount(bins[:-1]).tolist() == [10] * 10
    assert bins[-1] == 10
    assert len(quantiles(np.full(5, 2.0))) == 1
