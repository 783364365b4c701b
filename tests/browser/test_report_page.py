"""The report in a real browser: a reader on a desk, on a phone, in the dark, on paper, with the keyboard alone, without script; and posts that are hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from causalroute import layout
from causalroute.stages import report as stage
from tests.unit import synthetic_predictions as synthetic
from tests.unit.made_up_run import METHODS, prepare

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ('<img src=x onerror="window.hurt=1">', "sarcastic")
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
ROWS = "[...document.querySelectorAll('#{} tbody tr:not(.kind)')].filter((row) => row.offsetParent !== null).map((row) => row.cells[0].textContent)"

FOCUSED = "((e) => `${e.tagName} ${e.name || e.getAttribute('aria-label') || e.textContent.trim()}`.slice(0, 40))(document.activeElement)"
NAMELESS = "[...document.querySelectorAll('input,select,button')].filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose classes, texts, cues and editors hold markup."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert stage.main(prepare(synthetic.dataset(METHODS, CLASSES))) == 0
    return folder


@pytest.fixture
def report(page, made: Path):
    """The page of the report, open."""
    page.goto((made / "reports" / "toy" / "report.html").as_uri())
    return page


@pytest.mark.parametrize("file", [layout.reports("toy") / "report.html", layout.errors_page("toy"), layout.costs_page("toy")], ids=lambda path: path.name)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_every_page_fits_its_screen_and_asks_for_nothing(page, made: Path, file: Path, scheme: str, width: int) -> None:
    address = (made / file).as_uri()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    assert page.evaluate(WIDE) <= 0, "no page scrolls sideways"
    assert page.evaluate("window.hurt") is None
    assert page.seen.errors == []
    assert page.seen.requests == [address]


def test_the_committed_report_opens_alone(page) -> None:
    address = (ROOT / "reports" / "planted" / "report.html").as_uri()
    page.goto(address)
    assert page.title() == "planted: sarcasm from text and image"
    assert page.evaluate(WIDE) <= 0
    assert page.seen.requests == [address]
    assert page.seen.errors == []


def test_the_first_screen_answers_did_it_work_and_how_sure(report) -> None:
    for height, width in ((900, 1280), (844, 390)):
        report.set_viewport_size({"width": width, "height": height})
        for place, words in ((0, "Did it work?"), (1, "How sure are we?")):
            answer = report.locator(".verdict dl > div").nth(place)
            assert words in answer.inner_text()
            box = answer.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= height, f"{words} is on the first screen, {width} wide"
    assert report.locator(".verdict dl strong").first.inner_text() == "Yes"
    assert "points [" in report.locator(".verdict dl strong").nth(1).inner_text()


def test_markup_of_the_data_stays_text(page, made: Path) -> None:
    for path in (layout.reports("toy") / "report.html", layout.errors_page("toy")):
        page.goto((made / path).as_uri())
        assert CLASSES[0] in page.locator("body").inner_text()
        assert page.locator("script").count() == 1
        assert page.locator("img[src='x']").count() == 0
        assert page.locator("[onerror]").count() == 0
    assert "<script>alert" in page.locator("dl.post").first.inner_text(), "the posts of the page of errors"


def test_headings_sort_the_rows_of_each_kind(report) -> None:
    heading = report.locator("#headline thead th", has_text="accuracy OOD")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    body = report.locator("#headline tbody").nth(1)
    column = report.evaluate("[...document.querySelectorAll('#headline thead th')].findIndex((th) => th.textContent === 'accuracy OOD')")
    values = [
        float(value or "nan") for value in body.locator(f"tr:not(.kind) td:nth-child({column + 1})").evaluate_all("cells => cells.map((c) => c.dataset.sort)")
    ]
    assert values == sorted(values, reverse=True)
    assert len(values) > 2
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert report.locator("#headline th[aria-sort]").count() == 1


def test_words_and_kinds_filter_the_table(report) -> None:
    form = report.locator("form[data-table=headline]")
    everything = report.evaluate(ROWS.format("headline"))
    assert len(everything) == len(METHODS) + 1 == int(form.locator("output").inner_text().split()[2])
    form.get_by_label("words").fill("CAUSAL")
    assert report.evaluate(ROWS.format("headline")) == ["causal_moe"]
    assert form.locator("output").inner_text() == "1 of 8 rows"
    assert report.locator("#headline tr.kind >> visible=true").count() == 1, "headings of empty kinds go as well"
    form.get_by_label("methods").uncheck()
    assert report.evaluate(ROWS.format("headline")) == []
    form.get_by_role("button", name="Show all").click()
    report.wait_for_function("document.querySelector('form[data-table=headline] output').textContent.startsWith('8 of')")
    form.get_by_label("baselines").uncheck()
    form.get_by_label("oracle").uncheck()
    assert report.evaluate(ROWS.format("headline")) == ["erm", "double_swap", "causal_moe"]
    form.get_by_label("words").press("Enter")
    assert report.seen.requests == [report.url], "Enter sends nothing"


def test_the_long_table_filters_by_split(report) -> None:
    report.locator("details.screen summary").click()
    form = report.locator("form[data-table=everything]")
    form.get_by_label("posts").select_option("ood")
    form.get_by_label("words").fill("double_swap accuracy")
    found = report.locator("#everything tbody tr >> visible=true")
    assert found.count() > 0
    for row in found.all():
        assert row.locator("th").inner_text() == "double_swap"
        assert row.locator("td").first.inner_text() == "ood"
        assert "accuracy" in row.locator("td").nth(1).inner_text()


def test_everything_is_reached_with_the_keyboard(report) -> None:
    seen = set()
    for _ in range(120):
        report.keyboard.press("Tab")
        seen.add(report.evaluate(FOCUSED))
    for wanted in ("A Results", "INPUT words", "INPUT kind", "BUTTON Show all", "DIV Results by method", "BUTTON accuracy OOD", "PRE make reproduce"):
        assert any(one.startswith(wanted) for one in seen), wanted
    assert any(one.startswith("SUMMARY") for one in seen)


def test_figures_and_controls_have_names(report) -> None:
    drawings = report.locator("svg")
    assert drawings.count() >= 8
    for drawing in drawings.all():
        assert drawing.get_attribute("role") == "img"
        assert drawing.locator(":scope > title").text_content()
        assert drawing.locator(":scope > desc").text_content()
    assert report.evaluate(NAMELESS) == 0
    assert report.evaluate("[...document.querySelectorAll('.scroll')].every((e) => e.tabIndex === 0 && e.getAttribute('aria-label'))")
    ids = report.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_marks_tell_their_exact_values(report) -> None:
    titles = report.locator("#figure-id_vs_ood g > title").all_text_contents()
    assert any(title.startswith("causal_moe: accuracy ID ") and "%" in title and "[" in title for title in titles)
    assert report.locator("#figure-history_valid_accuracy circle.spot > title").count() > 0
    assert report.locator("figure[id^=figure-gates_] g > title").first.text_content().endswith("%")


def test_paper_shows_what_was_folded_and_no_controls(report) -> None:
    closed = report.locator("details:not(.screen)").first
    assert report.evaluate("document.querySelector('details:not(.screen) table').checkVisibility({contentVisibilityAuto: true})") is False
    report.emulate_media(media="print", color_scheme="dark")
    report.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert closed.get_attribute("open") is not None
    assert closed.locator("table").is_visible()
    for hidden in ("nav", "form.filter", "details.screen"):
        assert report.locator(hidden).first.is_hidden(), hidden
    assert report.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    report.set_viewport_size({"width": 688, "height": 1000})  # A4 within its margins
    assert report.evaluate(WIDE) <= 0
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.get_attribute("open") is None


def test_without_script_the_page_is_whole(browser, made: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((made / "reports" / "toy" / "report.html").as_uri())
    assert page.locator("form.filter").first.is_hidden(), "controls that would do nothing are not shown"
    assert page.locator("#headline tbody tr:not(.kind) >> visible=true").count() == len(METHODS) + 1
    page.locator("details summary").first.click()
    assert page.locator("details table").first.is_visible()
    context.close()


def test_errors_filter_by_kind_and_split(page, made: Path) -> None:
    page.goto((made / layout.errors_page("toy")).as_uri())
    everything = page.locator("article").count()
    page.locator("select[name=kind]").select_option("mended")
    page.locator("select[name=split]").select_option("OOD")
    shown = page.locator("article >> visible=true")
    assert 0 < shown.count() < everything
    assert {(one.get_attribute("data-kind"), one.get_attribute("data-split")) for one in shown.all()} == {("mended", "OOD")}
    assert page.locator("form output").inner_text() == f"{shown.count()} of {everything} posts"
