"""The gate: good swaps pass, bad ones fail for the right reason, and what cannot be told is undecided."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.unit.gate_posts import SETTINGS, judged, posts

from causalroute import io, layout
from causalroute.config import Gate
from causalroute.counterfactual.gate import _even, failures, gate
from causalroute.counterfactual.judged import judged_posts
from causalroute.errors import UserError
from causalroute.report import grades
from causalroute.stages import gate as gate_stage

SECTION = {"dataset": {"format": "planted", "task": "sarcasm", "classes": ["literal", "sarcastic"], "backbone": "b", "editor": "e", "methods": ["erm"]}}
FAULTS = [("destroyed", "lose the label", "min_label_kept"), ("idle", "change nothing", "max_cue_left"), ("odd", "told from real", "max_auc")]
CONFIG = io.canonical_json({"dataset": SECTION["dataset"] | {"sources": [{"kind": "planted"}]}, "gate": dataclasses.asdict(SETTINGS)})


@pytest.fixture(scope="module")
def good() -> dict[str, dict[str, object]]:
    return gate(judged(), SETTINGS)


def test_good_swaps_pass_on_both_sides(good: dict[str, dict[str, object]]) -> None:
    for side in ("text", "image"):
        found = good[side]
        assert (found["passed"], found["verdict"], found["reasons"], found["undecided"]) == (True, "passed", [], [])
        assert found["cue_left"]["value"] < -0.8
        assert found["label_kept"]["value"] > 0.8
        assert found["detectability"]["value"] < 0.7
        assert found["usable"]["value"] == 1.0
    leakage = good["text"]["leakage"]
    assert leakage["t"]["value"] > 0.8
    assert leakage["t_s"]["value"] > 0.8
    assert leakage["t_c"]["low"] < 0.5 < leakage["t_c"]["high"], "the core of one side alone tells nothing in an exclusive-or"
    assert good["text"]["mask_ratio"] == {"p10": 0.25, "p25": 0.25, "p50": 0.25, "p75": 0.25, "p90": 0.25}
    assert good["image"]["edit_distance"] is None


@pytest.mark.parametrize("side", ["text", "image"])
@pytest.mark.parametrize(("bad", "reason", "key"), FAULTS)
def test_bad_swaps_fail_on_their_side_alone(side: str, bad: str, reason: str, key: str) -> None:
    found = gate(judged(1500 if bad == "destroyed" else 700, bad=bad, side=side), SETTINGS)
    other = {"text": "image", "image": "text"}[side]
    assert not found[side]["passed"]
    assert any(reason in sentence and f"gate.{key}" in sentence for sentence in found[side]["reasons"])
    assert found[other]["verdict"] == "passed"
    assert failures(found) == [f"{side}: {sentence}" for sentence in found[side]["reasons"]]


def test_a_looser_bar_lets_an_editor_pass() -> None:
    sample = judged(bad="odd")
    assert not gate(sample, SETTINGS)["text"]["passed"]
    assert gate(sample, dataclasses.replace(SETTINGS, max_auc=1.0))["text"]["passed"]


def test_destroyed_swaps_fail_even_where_the_donors_cue_gives_the_label_away_backwards() -> None:
    """With a cue that is nearly always right, the label can be read off a swap from its cue alone: a plain held-out accuracy would pass such swaps."""
    found = gate(judged(1500, bad="destroyed", trust=0.93), SETTINGS)["text"]
    assert found["leakage"]["swap"]["value"] < 0.15
    assert found["label_kept"]["high"] < SETTINGS.min_label_kept


def test_destroyed_swaps_of_few_posts_do_not_pass() -> None:
    found = gate(judged(700, bad="destroyed", seed=1), SETTINGS)["text"]
    assert (found["passed"], found["verdict"]) == (True, "undecided")
    assert "conflicting cues" in found["undecided"][0]


def test_too_few_swaps_and_unreadable_labels_are_undecided() -> None:
    few = judged_posts(*posts(120), SETTINGS)
    found = gate(few, dataclasses.replace(SETTINGS, min_posts=200))
    assert (found["text"]["passed"], found["text"]["verdict"]) == (True, "undecided")
    assert "120 posts" in found["text"]["undecided"][0]
    manifest, table, factual, views = posts(300)
    noise = manifest.with_columns(pl.Series("label", np.random.default_rng(3).integers(2, size=300), dtype=pl.Int8))
    hidden = gate(judged_posts(noise, table, factual, views, SETTINGS), SETTINGS)["text"]
    assert hidden["verdict"] == "undecided"
    assert hidden["passed"]
    assert len(hidden["undecided"]) == 2


@pytest.mark.slow
def test_unusable_swaps_are_not_judged_and_nothing_is_asked_of_an_absent_side() -> None:
    manifest, table, factual, views = posts(1500)
    views["t_swap"][::2] = 99.0
    half = table.with_columns(text_ok=pl.int_range(table.height) % 2 == 1)
    found = gate(judged_posts(manifest, half, factual, views, SETTINGS), SETTINGS)["text"]
    assert (found["verdict"], found["swapped"]) == ("passed", 750)
    bare = manifest.with_columns(pl.lit(None, pl.String).alias("image"))
    absent = gate(judged_posts(bare, table.with_columns(image_ok=pl.lit(False)), factual, views, SETTINGS), SETTINGS)["image"]
    assert (absent["passed"], absent["undecided"]) == (True, ["there is no visual side"])


@pytest.mark.parametrize(("words", "passed"), [("other", True), ("own", False)])
def test_flips_must_read_as_another_class(words: str, passed: bool) -> None:
    manifest, table, factual, views = posts(240)
    tags = {True: "#north", False: "#west"}
    wanted = (manifest["label"] == 1) if words == "own" else (manifest["label"] == 0)
    texts = [text[: text.index("#")] + tags[bool(one)] for text, one in zip(manifest["text"], wanted, strict=True)]
    flipped = table.with_columns(pl.Series("t_flip", texts))
    found = gate(judged_posts(manifest, flipped, factual, views, SETTINGS), SETTINGS)["text"]["flip"]
    assert found["passed"] == passed
    assert found["items"] == 240
    assert (found["read_as_other"]["value"] > 0.8) == passed
    some = flipped.with_columns(t_flip=pl.when(pl.int_range(240) < 5).then("t_flip"))
    assert gate(judged_posts(manifest, some, factual, views, SETTINGS), SETTINGS)["text"]["flip"]["verdict"] == "undecided"


def test_weights_even_out_classes_and_cells() -> None:
    labels = np.array([0] * 80 + [1] * 20)
    cells = labels * 4 + np.r_[np.zeros(60), np.ones(20), np.zeros(20)].astype(int)
    weight = _even(labels, cells)
    assert weight[labels == 0].sum() == pytest.approx(weight[labels == 1].sum())
    assert weight[:60].sum() == pytest.approx(weight[60:80].sum())
    rare = _even(np.zeros(1000, dtype=int), np.r_[np.zeros(999), 1].astype(int))
    assert rare[-1] / rare.mean() < 20, "a single post must not be the whole lesson"


def test_only_labelled_posts_are_looked_at_and_at_most_so_many() -> None:
    manifest, table, factual, views = posts(200)
    hidden = manifest.with_columns(
        split=pl.when(pl.int_range(200) < 40).then(pl.lit("id")).otherwise("split"), label=pl.when(pl.int_range(200) >= 60).then("label")
    )
    found = judged_posts(hidden, table, factual, views, SETTINGS)
    assert found.rows["id"].to_list() == [f"p{i}" for i in range(60, 200)]
    capped = judged_posts(manifest, table, factual, views, dataclasses.replace(SETTINGS, posts=30))
    rows = [int(name[1:]) for name in capped.rows["id"]]
    assert rows == sorted(rows)
    assert len(rows) == 30
    assert np.array_equal(capped.views["t"], factual["t"][rows])


def test_files_that_do_not_belong_together_are_refused() -> None:
    manifest, table, factual, views = posts(80)
    with pytest.raises(UserError, match="other counterfactuals"):
        judged_posts(manifest, table.reverse(), factual, views, SETTINGS)
    with pytest.raises(UserError, match="two classes"):
        judged_posts(manifest.with_columns(label=pl.lit(1, pl.Int8)), table, factual, views, SETTINGS)
    with pytest.raises(ValueError, match="folds"):
        Gate(folds=1)


def test_the_stage_repeats_itself_and_the_report_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    manifest, table, factual, views = posts(400, bad="odd")
    io.write_parquet(layout.manifest("toy"), manifest)
    io.write_parquet(layout.counterfactuals("toy", "e"), table)
    metadata = {"ids_sha256": io.sha256_bytes(*(name.encode() for name in manifest["id"]))}
    io.write_tensors(layout.features("toy", "b", "factual"), {name: torch.tensor(x).half() for name, x in factual.items()}, metadata)
    tensors = {name: torch.tensor(x) if name == "rows" else torch.tensor(x).half() for name, x in views.items()}
    io.write_tensors(layout.features("toy", "b", "e"), tensors, metadata)
    arguments = ["--dataset", "toy", "--editor", "e", "--backbone", "b", "--config", CONFIG]
    assert gate_stage.main(arguments) == 0
    assert "e fails the gate; text: swaps are told from real posts" in capsys.readouterr().err
    first = layout.gate("toy", "e").read_bytes()
    assert gate_stage.main(arguments) == 0
    assert layout.gate("toy", "e").read_bytes() == first
    shown = grades.section({"editors": {"e": {"text": {}, "image": {}, "gate": io.read_json(layout.gate("toy", "e"))}}}, "image")
    assert shown is not None
    assert shown.tables[0].title == "Gate"
    assert [row[:3] for row in shown.tables[0].rows] == [("e", "text", "failed"), ("e", "image", "passed")]
    assert any("`e`, text: failed (swaps are told" in sentence for sentence in shown.sentences)
    io.write_tensors(layout.features("toy", "b", "e"), tensors, {"ids_sha256": "other"})
    with pytest.raises(UserError, match="another manifest"):
        gate_stage.main(arguments)
