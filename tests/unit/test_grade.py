from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.test_image_editors import picture

from causalroute import io, layout
from causalroute.config import Dataset, Editor, Source
from causalroute.counterfactual.build import build
from causalroute.counterfactual.grade import grade
from causalroute.counterfactual.pixels import pack_mask
from causalroute.counterfactual.sources import Sources
from causalroute.errors import UserError
from causalroute.stages import audit as audit_stage
from causalroute.stages import counterfactuals as counterfactuals_stage
from causalroute.stages import grade as grade_stage

CUES = (("#east", "#west"), ("#north", "#south"))
PLACE = (0.5, 0.5, 0.25)


def planted(root: Path, items: int = 100, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Manifest and truth of posts with a hashtag and a background that agree with the label nine times in ten."""
    random = np.random.default_rng(seed)
    rows, truth = [], []
    for i in range(items):
        label = i % 2
        text_cue, image_cue = (label if random.random() < 0.9 else 1 - label for _ in range(2))
        tag = CUES[text_cue][int(random.integers(2))]
        word = str(random.choice(["awful", "good"]))
        picture(*PLACE, warm=bool(image_cue)).save(root / f"{i}.png")
        rows.append({"id": f"p{i}", "split": "train" if i < items - 20 else "id", "text": f"{word} bus {tag}", "image": f"{i}.png", "label": label})
        spans = {"core_spans": [{"start": 0, "end": len(word)}], "cue_spans": [{"start": len(word) + 5, "end": len(word) + 5 + len(tag)}]}
        truth.append({"id": f"p{i}", "cue_text": text_cue, "cue_image": image_cue, **spans, "core_box": [16.0, 16.0, 48.0, 48.0], "image_size": 64})
    manifest = pl.DataFrame(rows).with_columns(
        label=pl.when(pl.col("split") == "train").then(pl.col("label")),
        attributes=pl.lit(None, pl.String),
        text_sha256=pl.col("text"),
        image_sha256=pl.col("id"),
    )
    return manifest, pl.DataFrame(truth)


def test_true_edits_get_full_marks_and_random_ones_do_not(tmp_path: Path) -> None:
    manifest, truth = planted(tmp_path)
    good = grade(build(manifest, Editor(text="truth", image="truth"), Sources(tmp_path, truth)), manifest, truth)
    text, image = good["text"], good["image"]
    assert (text["f1"], text["precision"], text["recall"], text["core_touched"]) == (1.0, 1.0, 1.0, 0.0)
    assert text["failed"] < 0.02
    assert (image["iou"], image["core_cut"], image["background_kept"]) == (1.0, 0.0, 0.0)
    assert image["failed"] < 0.02
    assert text["usable"] == image["usable"] == 1.0
    assert text["mask_ratio"] == pytest.approx(1 / 3)
    assert text["edit_distance"] == pytest.approx(1 / 3)
    bad = grade(build(manifest, Editor(text="random", image="random", z=2.0), Sources(tmp_path)), manifest, truth)
    assert bad["text"]["f1"] < 0.8
    assert bad["image"]["iou"] < 0.7
    assert bad["image"]["core_cut"] > 0.1


def test_a_swap_that_leaves_the_cue_has_failed_and_one_that_marks_the_core_destroys(tmp_path: Path) -> None:
    manifest, truth = planted(tmp_path, 40)
    table = build(manifest, Editor(text="truth", image="truth"), Sources(tmp_path, truth))
    texts = manifest["text"].to_list()
    unchanged = table.with_columns(pl.Series("t_swap", [[text, text] for text in texts]), pl.Series("v_donor", [[name, name] for name in table["id"]]))
    failed = grade(unchanged, manifest, truth)
    assert failed["text"]["failed"] == 1.0
    assert failed["image"]["same_background"] == failed["image"]["failed"] == 1.0
    spans = [[{"start": 0, "end": 3}]] * 40
    empty = pack_mask(np.eye(32, dtype=bool))
    cut = table.with_columns(pl.Series("context_spans", spans, dtype=table.schema["context_spans"]), pl.lit(empty).alias("mask"))
    destroyed = grade(cut, manifest, truth)
    assert destroyed["text"]["core_touched"] == 1.0
    assert destroyed["text"]["f1"] == 0.0
    assert destroyed["image"]["core_cut"] == 1.0


def test_edits_that_no_post_would_show_are_detected(tmp_path: Path) -> None:
    manifest, truth = planted(tmp_path)
    table = build(manifest, Editor(text="truth", image="truth"), Sources(tmp_path, truth))
    plain = grade(table, manifest, truth)["text"]["detectability"]
    odd = table.with_columns(pl.col("t_swap").list.eval(pl.element() + " edited"))
    assert plain < 0.7
    assert grade(odd, manifest, truth)["text"]["detectability"] == 1.0


def test_without_truth_the_rest_is_graded(tmp_path: Path) -> None:
    manifest, truth = planted(tmp_path, 40)
    table = build(manifest, Editor(text="truth", image="truth"), Sources(tmp_path, truth))
    found = grade(table, manifest, truth.clear())
    assert "f1" not in found["text"]
    assert "iou" not in found["image"]
    assert found["items"] == 40


def test_the_stages_run_from_the_manifest_to_the_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = layout.raw("toy")
    raw.mkdir(parents=True)
    manifest, truth = planted(raw, 80)
    io.write_parquet(layout.manifest("toy"), manifest)
    io.write_parquet(layout.truth("toy"), truth)
    io.write_json(layout.summary("toy"), {"classes": ["literal", "sarcastic"], "leaks": {"exact_text": 1}, "duplicates": {}})
    source = Source(kind="planted")
    dataset = Dataset(format="planted", task="sarcasm", classes=("literal", "sarcastic"), backbone="b", editor="e", methods=("erm",), sources=(source,))
    config = {"dataset": dataclasses.asdict(dataset), "audit": {"min_count": 5}, "backbone": {"kind": "encoder_pair", "text_model": "none"}}
    common = ["--dataset", "toy", "--config"]
    with pytest.raises(UserError, match="no counterfactuals to grade"):
        grade_stage.main([*common, io.canonical_json(config)])
    for name in ("random", "truth"):
        section = config | {"editor": {"text": name, "image": name}}
        assert counterfactuals_stage.main([*common, io.canonical_json(section), "--editor", name, "--backbone", "b"]) == 0
    first = layout.counterfactuals("toy", "random").read_bytes()
    section = config | {"editor": {"text": "random", "image": "random"}}
    counterfactuals_stage.main([*common, io.canonical_json(section), "--editor", "random", "--backbone", "b"])
    assert layout.counterfactuals("toy", "random").read_bytes() == first
    assert counterfactuals_stage.main([*common, io.canonical_json(config), "--editor", "reference"]) == 0
    assert layout.reference_image("toy").is_file()
    verdict = {"text": {"passed": True, "verdict": "passed", "reasons": []}, "image": {"passed": False, "verdict": "failed", "reasons": ["told"]}}
    io.write_json(layout.gate("toy", "truth"), verdict)
    assert grade_stage.main([*common, io.canonical_json(config)]) == 0
    graded = io.read_json(layout.reports("toy") / "counterfactuals.json")["editors"]
    assert set(graded) == {"random", "truth"}, "a verdict is no editor"
    assert graded["truth"]["gate"] == verdict
    assert "gate" not in graded["random"]
    assert grade_stage.main([*common, io.canonical_json(config), "--gated"]) == 0
    assert "gate" not in io.read_json(layout.reports("toy") / "counterfactuals.json")["editors"]["truth"]
    assert audit_stage.main([*common, io.canonical_json(config)]) == 0
    assert io.read_json(layout.reports("toy") / "audit.json")["leaks"] == {"exact_text": 1}
