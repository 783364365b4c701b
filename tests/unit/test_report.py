"""The report: files of a made-up run, byte for byte; what a reader needs; hostile text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import synthetic_predictions as synthetic
from tests.unit.made_up_run import FAILED, FILES, METHODS, PASSED, SEEDS, prepare

from causalroute import layout
from causalroute.errors import UserError
from causalroute.evaluation.collect import chunks
from causalroute.report import blocks, charts, headline, markdown, tables, write
from causalroute.stages import report as stage


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        arguments = prepare(synthetic.dataset(METHODS))
        assert stage.main(arguments) == 0
    return place / "reports" / "toy", arguments


class Links(HTMLParser):
    """Collects tags, ids, anchors, and addresses that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.anchors: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = {key: value or "" for key, value in attrs}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a":
            self.anchors.append(found["href"])
        self.loads += [value for key, value in found.items() if key in ("src", "srcset", "data") or (key == "href" and tag != "a")]


def parsed(folder: Path) -> Links:
    links = Links()
    links.feed((folder / "report.html").read_text())
    return links


def test_all_files_are_written(run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {*FILES, "audit.json", "counterfactuals.json"}


def test_same_run_gives_the_same_bytes(run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, arguments = run
    before = {name: (folder / name).read_bytes() for name in FILES}
    monkeypatch.chdir(folder.parent.parent)
    stage.main(arguments)
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_metrics_json_has_one_shape(run: tuple[Path, list[str]]) -> None:
    found = json.loads((run[0] / "metrics.json").read_text())
    assert set(found) == set(METHODS)
    for method in found.values():
        assert {"valid", "id", "ood", "group:source", "group:text_shortcut"} <= set(method)
        for block in method.values():
            for entry in block.values():
                assert set(entry) == {"mean", "low", "high", "seeds"}
                assert entry["low"] <= entry["mean"] <= entry["high"]
                assert entry["seeds"] == 3
    assert 0 <= found["erm"]["group:source"]["ood/tweet"]["mean"] <= 1


def test_tables_have_six_decimals_and_no_negative_zero(run: tuple[Path, list[str]]) -> None:
    for path in run[0].rglob("*.csv"):
        text = path.read_text()
        assert "-0.000000" not in text, path
        assert all(len(number) == 6 for number in re.findall(r"(?<=,)-?\d+\.(\d+)(?=,|\n)", text)), path


def test_page_is_self_contained_and_its_anchors_lead_somewhere(run: tuple[Path, list[str]]) -> None:
    links = parsed(run[0])
    assert links.loads == []
    files = {anchor for anchor in links.anchors if not anchor.startswith("#")}
    beside = {"results.csv", "results.md", "results.tex", "README.md"}
    aside = {f"../../{path('toy').as_posix()}" for path in (layout.audit_page, layout.gallery, layout.errors_page, layout.costs_page)}
    assert files == beside | aside, "files of the same run"
    assert all(anchor.removeprefix("#") in links.ids for anchor in links.anchors if anchor not in files)
    text = (run[0] / "report.html").read_text()
    assert "url(" not in text
    assert "@import" not in text


def test_hostile_words_of_the_data_stay_words(run: tuple[Path, list[str]]) -> None:
    text = (run[0] / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert parsed(run[0]).tags.count("script") == 1
    assert "<script>" not in (run[0] / "results.md").read_text().replace("\\<", "")


def test_every_figure_is_well_formed_and_described(run: tuple[Path, list[str]]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", (run[0] / "report.html").read_text(), flags=re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        names = {child.tag.rpartition("}")[2]: child.text for child in root if child.tag.endswith(("title", "desc"))}
        assert names["title"]
        assert names["desc"]
        assert "nan" not in drawing


def test_markdown_table_is_rectangular_and_labels_the_oracle(run: tuple[Path, list[str]]) -> None:
    text = (run[0] / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "| `oracle_erm` (oracle) |" in text
    assert "Minimal detectable difference" in text
    assert "95 % interval over seeds and test items jointly" in text


def test_a_method_equal_to_erm_is_shown_as_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = prepare(synthetic.dataset(("erm", "cf_vqa")))
    for first, last in chunks(SEEDS):
        source, target = (layout.run("toy", method, first, last) / "predictions.parquet" for method in ("erm", "cf_vqa"))
        target.write_bytes(source.read_bytes())
    stage.main(arguments)
    assert "cf_vqa +0.0" in Path("reports/toy/report.html").read_text()
    text = Path("reports/toy/results.md").read_text()
    assert "no measurable difference (+0.0 points" in text
    row = next(line for line in text.splitlines() if line.startswith("| `cf"))
    assert row.count("] =") == row.count("]")


def test_attributes_are_called_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage.main(prepare(synthetic.dataset(("image_only", "causal_moe")), visual="attributes"))
    text = Path("reports/toy/results.md").read_text()
    assert "| `image_only` (attributes) |" in text
    assert "no image was seen" in text
    assert "▲" not in text


def test_effects_stand_beside_the_planted_ones(run: tuple[Path, list[str]]) -> None:
    found = pl.read_csv(run[0] / "plots" / "effects.csv")
    assert set(found["method"]) == {"causal_moe"}
    assert found["effect"].unique(maintain_order=True).to_list() == ["te", "nde_t", "nde_v", "nde_tv", "int", "tie"]
    wide = found.pivot(on="effect", index="split", values="mean")
    assert (wide["int"] - (wide["nde_tv"] - wide["nde_t"] - wide["nde_v"])).abs().max() < 1e-5
    assert (wide["tie"] - (wide["te"] - wide["nde_tv"])).abs().max() < 1e-5
    comparable = pl.col("effect").is_in(["nde_t", "nde_v"]) & (pl.col("split") == "id")
    assert found.filter(comparable)["planted"].null_count() == 0
    assert found.filter(~comparable)["planted"].count() == 0


def test_slope_recovers_the_scale_of_the_planted_effects() -> None:
    truth = [2.0, -2.0, 1.0, None]
    assert tables._against(np.array([1.8, -1.8, 0.9, 50.0]), truth) == pytest.approx({"planted": 1 / 3, "slope": 0.9})
    assert tables._against(np.array([1.0]), [None]) == {"planted": None, "slope": None}


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = synthetic.dataset(("erm",))
    arguments = prepare(data)
    (layout.run("toy", "erm", 0, 1) / "history.csv").unlink()
    with pytest.raises(UserError, match="history"):
        write.read_histories("toy", data, SEEDS)
    layout.summary("toy").unlink()
    with pytest.raises(UserError, match=r"earlier stage(.|\n)*summary\.json"):
        stage.main(arguments)


def test_config_without_a_section_is_refused() -> None:
    with pytest.raises(UserError, match="'dataset'"):
        stage.main(["--dataset", "toy", "--config", "{}"])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_axes_hold_their_values(values: list[float], percent: bool, zero: bool) -> None:
    axis = charts.nice_axis(values, "x", percent, zero)
    slack = 1e-6 * max(1.0, *(abs(v) for v in values))
    assert axis.low <= min(values) + slack
    assert axis.high >= max(values) - slack
    assert 2 <= len(axis.ticks) <= 9


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_markdown_escape_keeps_a_cell_on_one_line_and_inert(text: str) -> None:
    found = markdown.escape(text)
    assert len(found.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>`*_\[\]]", found)


def test_styles_differ_in_colour_or_shape() -> None:
    drawn = [re.sub(r'(points|cx|cy|r)="[^"]*"', "", charts.mark(0, 0, style)) + charts.mark(0, 0, style) for style in range(28)]
    assert len(set(drawn)) == 28


@pytest.mark.parametrize(("value", "shown"), [(-0.0001, "0.0"), (0.12345, "12.3"), (1.0, "100.0")])
def test_percent_has_no_negative_zero(value: float, shown: str) -> None:
    assert blocks.percent(value) == shown


def test_only_held_out_swaps_that_passed_the_gate_are_in_the_table(run: tuple[Path, list[str]]) -> None:
    text = (run[0] / "results.md").read_text()
    assert "| held-out text swaps ID |" in text
    assert "Held-out swaps: accuracy on ID posts whose text context was swapped" in text
    assert "held_out_accuracy_tv" in (run[0] / "results.csv").read_text(), "the others are kept, out of the headline"
    data = synthetic.dataset(METHODS)
    gates = {"tv": (PASSED, PASSED), "v": (FAILED, PASSED), "": (FAILED, FAILED)}
    for letters, (text_side, image_side) in gates.items():
        grades = {"editors": {"other": {"gate": {"text": text_side, "image": image_side}}}}
        assert headline.fair_swaps(data, grades) == letters
    assert headline.fair_swaps(data, {"editors": {}}) == ""
