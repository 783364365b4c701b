"""The pages that stay out of git: errors with their posts, costs of the machine; and what a committed page says of its making."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from tests.unit import synthetic_predictions as synthetic
from tests.unit.made_up_run import HOSTILE, METHODS, SEEDS, SOURCE, prepare
from tests.unit.test_gallery import Page
from tests.unit.test_report_sections import ALL, results

from causalroute import io, layout, plan
from causalroute.config import Config, Dataset, parse
from causalroute.errors import UserError
from causalroute.evaluation import scoring
from causalroute.evaluation.collect import chunks
from causalroute.report import costs, made, worst
from causalroute.stages import report as stage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole() -> scoring.Results:
    return results()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert stage.main(prepare(synthetic.dataset(METHODS))) == 0
    return folder


def said(found: scoring.Results, method: str, split: str) -> np.ndarray:
    answers = found.answers[method][split]
    return answers.items.p.mean(0).argmax(-1) == answers.items.labels


@pytest.mark.parametrize("split", ["id", "ood"])
def test_errors_are_told_apart_by_who_is_right(whole: scoring.Results, split: str) -> None:
    found = worst.kinds(whole, "causal_moe", split)
    ours, theirs = said(whole, "causal_moe", split), said(whole, "erm", split)
    assert set(found["still wrong"]) == set(np.flatnonzero(~ours & ~theirs))
    assert set(found["broken"]) == set(np.flatnonzero(~ours & theirs))
    assert set(found["mended"]) == set(np.flatnonzero(ours & ~theirs))
    sure = whole.answers["causal_moe"][split].items.p.mean(0).max(-1)
    assert (np.diff(sure[found["still wrong"]]) <= 0).all()


def test_without_a_reference_there_are_errors_alone() -> None:
    found = results(("double_swap", "causal_moe"))
    table = worst.counts(found, ("double_swap", "causal_moe"))
    assert table.header == ("posts", "all", "wrong")
    assert int(table.rows[1][2]) == (~said(found, "causal_moe", "ood")).sum()


def test_counts_stand_in_the_committed_page_and_posts_do_not(whole: scoring.Results, place: Path) -> None:
    table = worst.counts(whole, ALL)
    assert [row[0] for row in table.rows] == ["ID", "OOD"]
    assert int(table.rows[1][4]) == (said(whole, "causal_moe", "ood") & ~said(whole, "erm", "ood")).sum()
    for file in (place / "reports").rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            assert "ood-0" not in text, file
            assert "#east" not in text, file
            assert "data:image" not in text, file


def test_the_page_of_errors_shows_posts_as_text(place: Path) -> None:
    text = (place / layout.errors_page("toy")).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.found("script")) == 1
    articles = page.found("article")
    assert 0 < len(articles) <= 2 * 3 * worst.EACH
    assert {one["data-kind"] for one in articles} <= {"still wrong", "broken", "mended"}
    assert {one["data-split"] for one in articles} == {"ID", "OOD"}
    assert [select["name"] for select in page.found("select")] == ["split", "kind", "label", "answer"]
    words = " ".join(page.words)
    assert HOSTILE.partition("`")[0].strip() in words
    assert "<script>alert" not in text
    images = page.found("img")
    assert images
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/jpeg") for image in images)
    assert "log-odds" in words
    assert "keep 1:" in words
    assert len(page.found("mark")) > 1, "context is marked in the posts that were edited"
    assert "right in" in words


def test_attribute_words_stand_where_there_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage.main(prepare(synthetic.dataset(("erm", "causal_moe")), visual="attributes"))
    page = Page(layout.errors_page("toy").read_text(encoding="utf-8"))
    assert page.found("img") == []
    assert "attributes" in page.words
    assert "attributes 1:" in " ".join(page.words)
    assert "image" not in " ".join(page.words)
    assert "gate attributes" in Path("reports/toy/report.html").read_text()


def test_missing_counterfactuals_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = prepare(synthetic.dataset(("erm",)))
    layout.counterfactuals("toy", "estimated").unlink()
    with pytest.raises(UserError, match="counterfactuals are missing"):
        stage.main(arguments)


def write_costs(data: Dataset) -> None:
    for method in data.methods:
        for first, last in chunks(SEEDS):
            count = last - first + 1
            cost = {"parameters": 5, "seconds": 2.0 * count, "peak_mb": 100.0 + last, "samples_per_second": 50.0, "seeds": count}
            io.write_json(layout.events("toy", method, first, last) / "cost.json", cost)


def test_costs_are_summed_over_jobs_and_gaps_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = synthetic.dataset(("erm", "causal_moe"))
    write_costs(data)
    (layout.events("toy", "causal_moe", 2, 2) / "cost.json").unlink()
    found = costs.trained("toy", data, SEEDS, {"erm": 41_346})
    assert found.rows[0] == ("erm", "41,346", "3", "6.0", "2.0", "102", "50")
    assert found.rows[1] == ("causal_moe", "–", *["–"] * 5), "a job of another machine makes the sum unknown"
    job = Path("benchmarks/out/toy/train/erm-0-1.tsv")
    job.parent.mkdir(parents=True)
    job.write_text("s\th:m:s\tmax_rss\tcpu_time\n9.08\t0:00:09\t351.30\t-\n")
    assert costs.measured("toy").rows == (("train/erm-0-1", "9.1", "–", "351.3"),)
    page = Page(costs.render("toy", [found, costs.measured("toy")], [(HOSTILE, HOSTILE)]))
    assert len(page.found("script")) == 1
    assert len(page.found("table")) == 2


def test_costs_change_no_file_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = synthetic.dataset(("erm", "causal_moe"))
    arguments = prepare(data)
    stage.main(arguments)
    before = {path: path.read_bytes() for path in [*Path("reports").rglob("*.*"), layout.errors_page("toy")]}
    assert "6.0" not in layout.costs_page("toy").read_text()
    write_costs(data)
    stage.main(arguments)
    assert {path: path.read_bytes() for path in before} == before
    assert "6.0" in layout.costs_page("toy").read_text()


def test_what_a_page_was_made_from_depends_on_the_data_alone() -> None:
    manifest = pl.DataFrame({"id": ["a", "b"], "split": ["train", "id"], "label": [0, None], "text_sha256": ["x", "y"], "image_sha256": [None, None]})
    config = {"made_by": {"settings": "5e", "code": "c0"}}
    found = dict(made.facts(config, {"sources": [SOURCE]}, manifest))
    assert found["planted source"] == "7 files, 12,345 bytes, SHA-256 abababababababab"
    assert found["posts"].startswith(f"2, SHA-256 {made.posts_digest(manifest)}")
    assert ("5e" in found["settings"], "c0" in found["code"]) == (True, True)
    assert re.search(r"Python 3\.\d+, torch \d", found["versions"])
    assert "+" not in found["versions"], "builds of one version read alike"
    assert made.posts_digest(manifest.with_columns(extra=pl.lit(1))) == made.posts_digest(manifest)
    assert made.posts_digest(manifest.with_columns(split=pl.lit("train"))) != made.posts_digest(manifest)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_that_of_the_folder(tmp_path: Path) -> None:
    assert "no git checkout" in made.revision(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (tmp_path / "reports").mkdir()
    for name in ("a", "reports/b"):
        (tmp_path / name).write_text("1")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    head = made.revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40,64}", head)
    (tmp_path / "reports" / "b").write_text("2")
    assert made.revision(tmp_path) == head, "what a run writes does not make it another revision"
    (tmp_path / "a").write_text("2")
    assert made.revision(tmp_path) == f"{head}, with 1 changed files"


def test_digests_of_the_run_are_on_the_page(place: Path) -> None:
    text = (place / "reports" / "toy" / "report.html").read_text()
    assert "0123456789abcdef" in text
    assert "fedcba9876543210" in text
    assert "made_by" not in text
    assert "git log -1 -- reports/toy" in text
    assert json.loads((place / "reports" / "toy" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def shipped() -> Config:
    return parse(Config, io.canonical_json(yaml.safe_load((ROOT / "params.yaml").read_text())))


def test_equal_digests_mean_the_same_run(shipped: Config) -> None:
    before = plan.made_by(shipped, "planted")
    assert before == plan.made_by(shipped, "planted")
    assert before.keys() == {"settings", "code"}
    changes = {"train": {"lr": 0.5}, "gate": {"folds": 9}, "audit": {"folds": 9}, "evaluate": {"bootstrap": 7}, "replicates": {"seeds": 2}}
    for section, change in changes.items():
        changed = dataclasses.replace(shipped, **{section: dataclasses.replace(getattr(shipped, section), **change)})
        found = plan.made_by(changed, "planted")
        assert found["settings"] != before["settings"], section
        assert found["code"] == before["code"], section
    ablated = dataclasses.replace(shipped.datasets["planted"], ablation=())
    same = dataclasses.replace(shipped, datasets={**shipped.datasets, "planted": ablated}, search=dataclasses.replace(shipped.search, seeds=1))
    assert plan.made_by(same, "planted") == before, "what no result comes from"
    assert plan.made_by(shipped, "mvsa")["code"] != before["code"]


def test_every_job_before_the_report_is_counted(shipped: Config) -> None:
    found = plan.result_jobs(shipped, "planted")
    assert len(found) == len({io.canonical_json([stage, names]) for stage, names in found})
    assert {stage for stage, _ in found} == set(plan.SECTIONS) - {"gallery", "report", "ablate", "search", "tokens"}, "nothing of this data set reads tokens"
    assert [names["method"] for stage, names in found if stage == "train"] == list(shipped.datasets["planted"].methods)
