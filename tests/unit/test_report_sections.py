"""Sections of the report: the three sentences, the second reference, shortcuts, grades; for data sets that lack this or that."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit import synthetic_predictions as synthetic

from causalroute import layout
from causalroute.config import Evaluate, Replicates
from causalroute.errors import UserError
from causalroute.evaluation import claims as compared
from causalroute.evaluation import collect, scoring, statistics
from causalroute.evaluation.statistics import Sample
from causalroute.report import blocks, claims, grades, headline, markdown, page, routing, shortcuts, tables

EVALUATE = Evaluate(bootstrap=100)
SEEDS = Replicates(seeds=3, per_job=2)
ALL = ("erm", "text_swap", "double_swap", "causal_moe", "oracle_erm")
SIZES = {"valid": 60, "id": 150, "ood": 150}
CUE = {"cue": "#yard", "kind": "hashtag", "class": "sarcastic", "share": 0.9, "posts": 1200, "valid_posts": 40, "valid_share": 0.8, "log10_p": -50.4}


def results(
    methods: tuple[str, ...] = ALL, sizes: dict[str, int] | None = None, classes: tuple[str, ...] = ("literal", "sarcastic"), **replaced: str
) -> scoring.Results:
    """Scores made-up predictions; `replaced` lets one method answer as another does."""
    data, answers = synthetic.dataset(methods, classes), {}
    with pytest.MonkeyPatch.context() as patch:
        for method in methods:
            patch.setattr(collect.Path, "is_file", lambda _: True)
            frame = synthetic.frame(replaced.get(method, method), range(3), sizes or SIZES, len(classes))
            patch.setattr(collect.pl, "read_parquet", lambda _, frame=frame: frame)
            answers[method] = collect.read_method([Path("made-up")], range(3), data)
    return scoring.score(answers, collect.Facts(), data, EVALUATE)


@pytest.fixture(scope="module")
def whole() -> scoring.Results:
    return results()


def test_three_sentences_of_a_whole_run(whole: scoring.Results) -> None:
    first, second, third = claims.sentences(whole, EVALUATE)
    assert "On OOD posts" in first
    assert "of 3 debiased methods (picked by this very score)" in first
    assert "the oracle `oracle_erm`" in first
    assert "of the gap between them" in first
    assert "ID posts" in second
    assert "`double_swap`" in third
    assert third.count("points [") == 2


def test_without_ood_the_worst_group_is_judged() -> None:
    first = claims.sentences(results(sizes={"valid": 60, "id": 150}), EVALUATE)[0]
    assert first.startswith("In the worst group of ID posts")


@pytest.mark.slow
def test_without_oracle_or_reference_or_control() -> None:
    first, second = claims.sentences(results(("erm", "text_swap")), EVALUATE)
    assert "oracle" not in first
    assert "debiased methods" not in first
    assert "accuracy" in second
    (alone,) = claims.sentences(results(("text_swap", "oracle_erm")), EVALUATE)
    assert "nothing to compare it with" in alone
    assert claims.sentences(results(("erm", "text_only")), EVALUATE) == []
    assert claims.control_table(results(("erm", "causal_moe")), EVALUATE) is None


def test_equal_answers_are_no_difference() -> None:
    found = results(causal_moe="double_swap")
    assert "OOD +0.0 points [0.0, 0.0], no measurable difference" in claims.sentences(found, EVALUATE)[-1]
    assert {one.p_holm for one in compared.against_control(found, EVALUATE)} == {1.0}


def test_control_is_the_paired_test_with_another_reference(whole: scoring.Results) -> None:
    found = compared.against_control(whole, EVALUATE, "causal_moe", "erm")
    for one in found:
        row = whole.find("causal_moe", one.split, one.metric)
        assert row is not None
        assert (row.difference, row.difference_low, row.p) == (one.difference, one.difference_low, one.p)
        assert one.p_holm >= one.p
    table = claims.control_table(whole, EVALUATE)
    assert table is not None
    assert {row[0].split(" ")[0] for row in table.rows} >= {"accuracy", "worst", "NLL,"}


def test_gap_is_nothing_without_a_lead_of_the_oracle() -> None:
    found = compared.gap(results(oracle_erm="erm"), EVALUATE)
    assert found is not None
    assert found.closed is None


@given(st.floats(0.2, 0.9), st.floats(0.0, 1.2), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_ratio_has_the_value_of_the_means_and_small_error_where_both_move_together(lead: float, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    below = Sample(lead + 0.01 * rng.normal(size=5), lead + 0.01 * rng.normal(size=(50, 5)))
    found = statistics.ratio(Sample(share * below.point, share * below.resampled), below)
    assert found.point == pytest.approx(np.full(5, share))
    assert statistics.estimate(found, 0.95).error == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("low", "judged", "told"), [(0.01, "same", True), (-0.01, "same", False), (0.01, "better", False)])
def test_an_interval_that_holm_overrules_says_so(low: float, judged: str, told: bool) -> None:
    assert ("before Holm" in claims.points(0.03, low, 0.05, judged)) == told


def test_lower_nll_is_better(whole: scoring.Results) -> None:
    one = compared.against_control(whole, EVALUATE)[0]
    sure = dataclasses.replace(one, metric="nll_calibrated", difference=-0.1, p_holm=0.001)
    assert claims.judge(sure, 0.05) == "better"
    assert claims.judge(dataclasses.replace(sure, metric="accuracy"), 0.05) == "worse"
    assert claims.judge(dataclasses.replace(sure, p_holm=0.2), 0.05) == "same"


def test_shortcuts_are_told_with_their_base_rate() -> None:
    image = {"cue": "warmth", "kind": "image", "class": "literal", "auc": 0.3, "log10_p": -90.0}
    audit = {"shortcuts": [image, CUE], "counts": {"hashtag": 1}, "leaks": {"exact_text": 44, "near_text": None}, "duplicates": {"exact_text": 3}}
    found = shortcuts.section(audit, {"splits": {"train": {"items": 2000, "labels": {"sarcastic": 900}}}, "dropped": {"no_image": 1}})
    assert found is not None
    text = "\n".join(found.sentences)
    assert "`warmth`: it is lower in literal posts (AUC 0.30" in text
    assert "`#yard`: 90 % of the 1,200 train posts with it are sarcastic, against 45 % of all train posts; in validation 80 % of 40." in text
    assert "44 with the same text" in text
    assert "purest" not in text, "told once"
    assert "Not looked for: nearly equal texts" in text
    assert "Left out while preparing: 1 no image." in text
    assert found.tables[0].header == ("cue", "kind", "goes with", "share there", "train posts", "share in valid", "valid posts", "AUC", "log10 p")


def test_an_audit_without_findings_says_so() -> None:
    found = shortcuts.section({"shortcuts": [], "leaks": {"exact_text": 0}}, {})
    assert found is not None
    assert found.tables == ()
    assert "more than chance" in found.sentences[0]
    assert "Leaks: no ID post recurs in train or validation." in found.sentences
    assert shortcuts.section({}, {}) is None
    assert shortcuts.figure({}) is None


def test_long_tables_count_what_they_leave_out() -> None:
    found = shortcuts.section({"shortcuts": [CUE] * 40}, {})
    assert found is not None
    assert (len(found.tables[0].rows), found.tables[0].more) == (blocks.ROWS, 40 - blocks.ROWS)


def test_grades_show_what_is_known() -> None:
    editor = {"text": {"f1": 1.0, "failed": 0.0, "detectability": 0.48, "mask_ratio": 0.2, "usable": 1.0}, "image": {"mask_ratio": 0.3, "usable": None}}
    known = grades.section({"known_truth": True, "editors": {"estimated": editor}}, "image")
    assert known is not None
    assert known.tables[0].rows == (("estimated", "100.0", "0.0", "48.0", "20.0", "100.0"),)
    assert "told from real near 50" in known.tables[0].note
    real = grades.section({"known_truth": False, "editors": {"estimated": {"text": {"mask_ratio": 0.2}, "image": {}}}}, "attributes")
    assert real is not None
    assert "unknown" in real.sentences[0]
    assert [table.title for table in real.tables] == ["Text, %"]
    assert grades.section({}, "image") is None


def test_routing_is_shown_by_split_and_group(whole: scoring.Results) -> None:
    table = tables.gates_table(whole, EVALUATE)
    assert set(table["family"]) >= {"", "source"}
    assert table["low"].min() >= 0
    assert table["high"].max() <= 1
    assert table.filter(pl.col("kind") == "experts")["name"].unique(maintain_order=True).to_list() == ["keep 1", "text 1", "image 1", "both 1"]
    (varied,) = routing.heatmaps(table, {"erm": "erm", "causal_moe": "causal_moe"})
    assert varied.svg.count('class="heat"') == 8 * len(table.filter((pl.col("split") == "ood") | (pl.col("group") == "")).unique(["split", "group"]))
    both = table.filter((pl.col("split") == "ood") & (pl.col("group") == "tweet") & (pl.col("kind") == "gates") & (pl.col("name") == "TV"))["mean"][0]
    assert f"<title>OOD source: tweet, gate both: {100 * both:.1f} %</title>" in varied.svg
    assert "tells no posts apart" not in varied.caption
    flat = table.with_columns(pl.when(pl.col("name") == "TV").then(1.0).otherwise(0.0).alias("mean"), pl.lit(0.0).alias("spread"))
    (same,) = routing.heatmaps(flat, {"causal_moe": "causal_moe"}, "attributes")
    assert "tells no posts apart" in same.caption
    assert "gate attributes" in same.svg
    assert "gate image" not in same.svg


def test_experts_without_gates_have_numbers() -> None:
    cube = np.full((2, 5, 6), 1 / 6)
    assert tables.weight_names({"experts": cube})["experts"] == [f"expert {i}" for i in range(1, 7)]
    assert tables.weight_names({"gates": cube[..., :4], "experts": cube})["experts"][-1] == "expert 6", "six are no multiple of four kinds"
    assert tables.weight_names({"gates": cube[..., :4], "experts": np.ones((1, 1, 8))})["experts"][2:5] == ["text 1", "text 2", "image 1"]


def test_posts_are_counted_by_split_and_class(whole: scoring.Results) -> None:
    summary = {"splits": {"id": {"items": 150}, "train": {"items": 1300, "labels": {"literal": 1200, "sarcastic": 100}}}}
    found = page.posts(synthetic.dataset(ALL), summary, whole)
    assert found.header == ("", "train", "ID")
    assert found.rows[1][1] == "1,200"
    assert sum(int(row[2]) for row in found.rows[1:]) == 150


def test_three_classes_without_shifted_splits() -> None:
    found = results(("erm", "double_swap", "causal_moe"), {"valid": 60, "id": 150}, ("negative", "neutral", "positive"))
    assert len(claims.sentences(found, EVALUATE)) == 3


@pytest.mark.slow
def test_posts_without_cues_have_a_column_and_a_place_in_every_comparison() -> None:
    found = results(sizes=SIZES | {"neutral": 90, "clean": 90})
    titles = [column.title for column in headline.columns(synthetic.dataset(ALL), found, "")]
    assert titles[:4] == ["accuracy ID", "accuracy OOD", "accuracy neutral", "accuracy clean"]
    assert [one.split for one in headline.findings(found, EVALUATE, "image")] == ["ID", "OOD", "neutral", "clean"]
    assert {one.split for one in compared.against_control(found, EVALUATE)} == {"id", "ood", "neutral", "clean"}
    assert "clean +" in claims.sentences(found, EVALUATE)[2] or "clean -" in claims.sentences(found, EVALUATE)[2]
    summary = {"splits": {}, "injected": {"hashtags": ["#chalk", "#mica"], "rho_text": 0.9}}
    assert ("injected shortcuts", "hashtags #chalk #mica, rho text 0.9") in page.facts(synthetic.dataset(ALL), summary, 3)


@pytest.mark.parametrize("word", ["a`b", "`", "x\ny"])
def test_code_spans_cannot_be_left(word: str) -> None:
    assert blocks.spans(f"see {blocks.code(word)} there")[1] == (True, word.replace("`", "'").replace("\n", " "))


@given(st.text(max_size=40))
@example("`a\x1eb`")
@settings(max_examples=60, deadline=None)
def test_sentences_keep_their_words(text: str) -> None:
    assert len(markdown.sentence(text).splitlines()) <= 1


def test_stored_numbers_are_those_of_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = synthetic.dataset(("erm", "text_only"))
    synthetic.write("toy", data, SEEDS, {"valid": 20, "id": 20})
    assert collect.stored_numbers("toy", data, SEEDS) == {"erm": 24, "text_only": 24}
    (layout.run("toy", "erm", 0, 1) / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="weights are missing"):
        collect.stored_numbers("toy", data, SEEDS)
