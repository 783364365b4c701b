"""The stage and the sections that tell what the audit found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.test_audit import SUMMARY, frame

from causalroute import io, layout
from causalroute.audit import audit
from causalroute.config import Audit
from causalroute.report import shortcuts
from causalroute.report.audit_page import render
from causalroute.stages import audit as stage


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, posts: pl.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    io.write_parquet(layout.manifest("toy"), posts)
    io.write_json(layout.summary("toy"), SUMMARY | {"dropped": {"no_content": 7}})
    dataset = {"format": "table", "table": "t.csv", "task": "sarcasm", "classes": SUMMARY["classes"], "backbone": "b", "editor": "e", "methods": ["erm"]}
    config = {"dataset": dataset | {"sources": [{"kind": "planted"}]}, "audit": settings}
    assert stage.main(["--dataset", "toy", "--config", io.canonical_json(config)]) == 0
    return dict(io.read_json(layout.reports("toy") / "audit.json"))


def test_the_stage_quotes_posts_in_the_page_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = frame(0.9, 400)
    found = run_stage(tmp_path, monkeypatch, posts, {"min_count": 10})
    assert found["leaks"] == SUMMARY["leaks"]
    texts = dict(posts.select("id", "text").iter_rows())
    page = (layout.audit_page("toy")).read_text()
    written = (layout.reports("toy") / "audit.json").read_text()
    quoted = [name for cue in found["shortcuts"] for name in cue["examples"]]
    assert len(quoted) == 6
    assert all(texts[name] in page and texts[name] not in written for name in quoted)
    assert "Left out while preparing: 7 no content." in page


def test_settings_reach_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_stage(tmp_path, monkeypatch, frame(0.9, 400), {"control": "fdr", "alpha": 0.01, "min_count": 300, "examples": 1})
    assert found["shortcuts"] == [], "no cue is held by 300 posts"
    assert (found["tests"]["control"], found["tests"]["alpha"]) == ("fdr", 0.01)


def test_the_section_tells_control_pairs_and_what_all_explain() -> None:
    found = audit(frame(0.9), SUMMARY, Audit(control="fdr"), Path("nowhere"))
    section = shortcuts.section(found, {})
    assert section is not None
    told = "\n".join(section.sentences)
    assert "Benjamini-Hochberg: false discovery rate 0.05" in told
    assert "pairs of tokens that tell no more than one of their tokens" in told
    assert "Together the shortcuts explain" in told
    assert "without `hashtag`" in told
    assert section.tables[0].header[-1] == "explains"
    assert section.tables[0].rows[0][-1].endswith(" %")
    plain = "\n".join(shortcuts.section(audit(frame(0.9), SUMMARY, Audit(), Path("nowhere")), {}).sentences)  # type: ignore[union-attr]
    assert "Bonferroni: family-wise 0.05, log10 p below -" in plain


def test_posts_that_all_share_a_text_have_no_fold_to_learn_from() -> None:
    """One group of twins is judged as a whole; nothing is left to learn from, and the class shares stand."""
    found = audit(frame(0.9, 120).with_columns(text=pl.lit("the same")), SUMMARY, Audit(min_count=5), Path("nowhere"))
    assert found["shortcuts"] == []
    assert found["probes"]["text"]["explained"] == pytest.approx(0.0)
    assert found["joint"]["cues"] == 0
    assert "None that chance would not explain" in render(found, "twins")


def test_the_base_of_what_is_explained_is_told() -> None:
    found = audit(frame(0.9), SUMMARY, Audit(), Path("nowhere"))
    assert found["label_entropy_bits"] == pytest.approx(1.0, abs=0.01)
    assert sum(found["labels"].values()) == found["items"]["train"]
