"""What a stranger reads first, and the files beside the page: verdict, LaTeX, model card; all print the numbers of one table."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import synthetic_predictions as synthetic
from tests.unit.made_up_run import HOSTILE, METHODS, prepare
from tests.unit.test_report_sections import EVALUATE, results

from causalroute.evaluation import claims as compared
from causalroute.evaluation import scoring
from causalroute.report import card, headline, latex, verdict
from causalroute.report.headline import Cell, Column, Line
from causalroute.stages import report as stage

CONFIG = {
    "dataset": "toy", "task": HOSTILE, "classes": ["a", HOSTILE], "method": "causal_moe", "reference": "erm", "visual": "image",
    "backbone": "openai/clip-vit-large-patch14", "seeds": [0, 1], "base_model": "openai/clip-vit-large-patch14", "made_by": {"version": "0.1", "data": "abc"},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> scoring.Results:
    return results()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        stage.main(prepare(synthetic.dataset(METHODS)))
    return place / "reports" / "toy"


def test_the_verdict_answers_did_it_work_and_how_sure(whole: scoring.Results) -> None:
    worked, sure, price, added = verdict.answers(whole, EVALUATE)
    best = compared.gap(whole, EVALUATE)
    assert best is not None
    assert (worked.question, worked.short, worked.tone) == ("Did it work?", "Yes", "good")
    assert f"`{best.row.method}` is right in {100 * best.row.mean:.1f} %" in worked.text
    assert sure.short.startswith(f"{100 * (best.row.difference or 0):+.1f} points [")
    assert "95 % interval" in sure.text
    assert "3 training seeds and 150 test posts" in sure.text
    assert "picked of 3 debiased methods by this very score" in sure.text
    assert "ID posts" in price.question
    assert "`double_swap`" in added.text


def test_no_gain_is_no_yes() -> None:
    equal = verdict.answers(results(("erm", "text_swap"), text_swap="erm"), EVALUATE)
    assert (equal[0].short, equal[0].tone) == ("Not measurably", "open")
    assert equal[1].short == "+0.0 points [0.0, 0.0]"
    assert "p = 1.000" in equal[1].text
    worse = verdict.answers(results(("text_swap", "erm"), erm="oracle_erm"), EVALUATE)
    assert (worse[0].short, worse[0].tone) == ("No, it is worse", "bad")


def test_a_run_that_cannot_be_judged_says_so() -> None:
    (alone,) = verdict.answers(results(("text_swap",)), EVALUATE)
    assert alone.short == "Cannot be told"
    plain = results(("erm", "text_only"))
    assert [one.short for one in verdict.answers(plain, EVALUATE)] == ["Not asked"]
    assert verdict.figure(plain, EVALUATE) is None


def test_without_ood_the_worst_group_is_judged_and_id_is_the_price() -> None:
    found = results(("erm", "double_swap"), {"valid": 60, "id": 150})
    answers = verdict.answers(found, EVALUATE)
    assert "the worst group of ID posts (there are no OOD posts)" in answers[0].text
    assert [one.question for one in answers[1:]] == ["How sure are we?", "At what price on ID posts?"]
    drawn = verdict.figure(found, EVALUATE)
    assert drawn is not None
    assert "worst group of ID posts" in drawn.svg


def test_part_of_the_oracles_lead_is_no_plain_yes(whole: scoring.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    best = compared.gap(whole, EVALUATE)
    assert best is not None
    assert best.closed is not None
    small = dataclasses.replace(best, closed=dataclasses.replace(best.closed, mean=0.2, low=0.1, high=0.3))
    monkeypatch.setattr(verdict, "gap", lambda *_: small)
    assert verdict.answers(whole, EVALUATE)[0].short == "In part"


def test_the_verdict_has_a_figure_with_every_number_in_words(whole: scoring.Results) -> None:
    drawn = verdict.figure(whole, EVALUATE)
    assert drawn is not None
    for method in ("erm", "causal_moe", "oracle_erm"):
        row = whole.find(method, "ood", "accuracy")
        assert row is not None
        assert re.search(rf"<title>{method}[^<]*, OOD posts: right answers {100 * row.mean:.1f} % \[", drawn.svg)


def test_latex_markdown_csv_and_page_agree(folder: Path) -> None:
    rows = {
        row["method"]: row for row in csv.DictReader((folder / "results.csv").read_text().splitlines()) if (row["split"], row["metric"]) == ("ood", "accuracy")
    }
    tex, table, html = ((folder / name).read_text() for name in ("results.tex", "results.md", "report.html"))
    for method, row in rows.items():
        mean, low, high = (f"{round(100 * float(row[key]), 1) + 0.0:.1f}" for key in ("mean", "low", "high"))
        assert re.search(rf"\\texttt\{{{re.escape(latex.escape(method))}\}}.* & {mean}[^&]*\[{low}, {high}\]", tex), method
        assert re.search(rf"\| `{method}`.*\| {mean} \[{low}, {high}\]", table), method
        name = "_<wbr>".join(method.split("_"))
        assert re.search(rf">{name}[^\n]*<span class=\"mean\">{mean}[^\n]*<span class=\"range\">{low}, {high}</span>", html), method
    shown = json.loads((folder / "metrics.json").read_text())["causal_moe"]["ood"]["accuracy"]
    assert f"| OOD | `causal_moe` | {100 * shown['mean']:.1f} [" in (folder / "README.md").read_text()


def test_latex_is_a_balanced_rectangle(folder: Path) -> None:
    text = (folder / "results.tex").read_text()
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len({row.count("&") for row in rows}) == 1
    assert len(rows) == len(METHODS) + 2, "heading, methods, the inverted bag of words"
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


@given(st.text(max_size=60))
@settings(max_examples=120, deadline=None)
def test_latex_escape_leaves_no_command_of_the_data(text: str) -> None:
    found = latex.escape(text)
    left = re.sub(r"\\text[a-z]+\{\}|\\[{}&%$#_]|\{\[\}|\{\]\}|\$\\blacktriangle(down)?\$", "", found)
    assert not set(left) & set("\\{}&%$#_^~[]")
    assert len(found.splitlines()) <= 1


def test_latex_names_hostile_columns_and_methods_as_text() -> None:
    cell = Cell("1.0", "0.5, 1.5", "better", 1.0)
    text = latex.table(
        HOSTILE, "a b/c", [Column(HOSTILE, "id", "x"), Column("long", "id", "y", False)], [Line("m", f"m ({HOSTILE})", "method", (cell, None), "–")], []
    )
    assert r"\label{tab:a-b-c}" in text
    assert "<script>" not in text
    assert "long" not in text
    assert r"1.0$^{\uparrow}$ {\scriptsize [0.5, 1.5]}" in text


def test_the_model_card_is_read_by_the_hub(folder: Path) -> None:
    found = ModelCard((folder / "README.md").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())["causal_moe"]
    told = {(one.dataset_split, one.metric_name): one for one in found.data.eval_results}
    assert {split for split, _ in told} == {"id", "ood"}
    assert told["ood", "Accuracy"].metric_value == metrics["ood"]["accuracy"]["mean"]
    assert told["ood", "Accuracy"].metric_args["high"] == metrics["ood"]["accuracy"]["high"]
    assert found.data.library_name == "causalroute"
    assert "Epoch and temperature were chosen on validation posts" in found.text


def test_the_model_card_needs_plain_mappings_alone_and_words_stay_words() -> None:
    entry = {"mean": 0.9, "low": 0.8, "high": 0.95, "seeds": 2}
    metrics = {"causal_moe": {"id": {"accuracy": entry, "worst_group": entry}}, "erm": {"id": {"accuracy": {**entry, "mean": 0.95}}}}
    text = card.card(CONFIG, metrics)
    front, body = text.split("\n---\n", 1)
    assert yaml.safe_load(front)["base_model"] == CONFIG["base_model"]
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["metrics"][0]["args"] == {"low": 0.8, "high": 0.95, "seeds": 2}
    assert "<script>" not in body.replace("\\<", "")
    assert "right in 90.0 % of cases, `erm` in 95.0 %" in body
    assert "There were no posts where the shortcut misleads" in body
    assert "mean over 2 training seeds" in body
    bare = card.card({**CONFIG, "reference": "", "visual": "none", "base_model": ""}, {})
    assert "model-index" not in bare
    assert "No test posts were measured." in bare
    assert "a text alone" in bare


@pytest.mark.parametrize(
    ("methods", "chosen"),
    [
        (("erm", "poe", "causal_moe"), "causal_moe"),
        (("erm", "text_only", "poe", "oracle_erm"), "poe"),
        (("majority", "erm"), "erm"),
        (("oracle_erm",), "oracle_erm"),
    ],
)
def test_the_subject_is_chosen_without_a_score(methods: tuple[str, ...], chosen: str) -> None:
    assert headline.subject(methods) == chosen


def replaced(found: scoring.Results, **accuracy: tuple[str, str, float]) -> scoring.Results:
    """The results with some accuracies (method, split, mean) set, their intervals moved along."""
    wanted = {(method, split): mean for method, split, mean in accuracy.values()}

    def moved(row: scoring.Row) -> scoring.Row:
        mean = wanted.get((row.method, row.split)) if row.metric == "accuracy" else None
        if mean is None:
            return row
        return dataclasses.replace(row, mean=mean, low=row.low + mean - row.mean, high=row.high + mean - row.mean)

    return dataclasses.replace(found, rows=[moved(row) for row in found.rows])


def test_a_method_that_turned_the_shortcut_round_is_not_the_best(whole: scoring.Results) -> None:
    best = compared.gap(whole, EVALUATE)
    assert best is not None
    assert best.aside == 0
    majority = whole.find("majority", "id", "accuracy")
    floor = whole if majority else replaced_majority(whole)
    inverted = replaced(floor, one=(best.row.method, "id", 0.4), two=(best.row.method, "ood", 0.99))
    found = compared.gap(inverted, EVALUATE)
    assert found is not None
    assert found.row.method != best.row.method
    assert (found.debiased, found.aside) == (best.debiased - 1, 1)
    assert "by this very score; 1 that do not beat the majority class on ID posts left out" in " ".join(one.text for one in verdict.answers(inverted, EVALUATE))


def replaced_majority(found: scoring.Results) -> scoring.Results:
    """The results with a row for the most frequent class: .5 everywhere."""
    rows = [dataclasses.replace(row, method="majority", mean=0.5, low=0.45, high=0.55) for row in found.rows if (row.method, row.metric) == ("erm", "accuracy")]
    return dataclasses.replace(found, rows=[*found.rows, *rows])


def test_a_gain_below_the_majority_overcomes_nothing(whole: scoring.Results) -> None:
    best = compared.gap(whole, EVALUATE)
    assert best is not None
    low = replaced(replaced_majority(whole), one=("majority", "ood", 0.995))
    worked = verdict.answers(low, EVALUATE)[0]
    assert (worked.short, worked.tone) == ("No", "bad")
    assert "Always giving the most frequent class is right in 99.5 % there" in worked.text


def test_a_price_is_said_at_once(whole: scoring.Results) -> None:
    best = compared.gap(whole, EVALUATE)
    assert best is not None
    rows = [
        dataclasses.replace(row, difference=-0.2, difference_low=-0.25, difference_high=-0.15, p=0.0, p_holm=0.0)
        if (row.method, row.split, row.metric) == (best.row.method, "id", "accuracy")
        else row
        for row in whole.rows
    ]
    worked = verdict.answers(dataclasses.replace(whole, rows=rows), EVALUATE)[0]
    assert worked.short == "Yes, at a price"
