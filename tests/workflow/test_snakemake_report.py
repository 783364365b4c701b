"""`snakemake --report`: every page, table and plot worth it is in there, with caption, category and labels; pages that show posts are not."""

from __future__ import annotations

import json

import pytest

from causalroute import layout
from tests.workflow.project import Project

FILES = ("report.html", "results.md", "results.csv", "results.tex", "README.md")


@pytest.mark.slow
def test_the_report_of_the_workflow_explains_its_files(project: Project) -> None:
    project.snakemake("--report", "out.html")
    text = project.path("out.html").read_text(encoding="utf-8")
    mark = "var results = {"
    found, _ = json.JSONDecoder().raw_decode(text, text.index(mark) + len(mark) - 1)
    plots = [f"reports/planted/plots/{name}.csv" for name in layout.PLOTS]
    assert set(found) == {f"reports/planted/{name}" for name in FILES} | {str(layout.costs_page("planted"))} | set(plots)
    for path, one in found.items():
        assert "planted" in one["caption"], path
        assert set(one["labels"]) == {"what", "format"}, path
        assert path.endswith(one["labels"]["format"])
    assert len({one["labels"]["what"] for path, one in found.items() if path in plots}) == len(plots)
    assert '"planted"' in text[text.index("var categories") :][:2000]


def test_pages_that_show_posts_are_made_but_not_passed_on(finished: Project) -> None:
    for page in (layout.errors_page, layout.gallery, layout.audit_page):
        assert finished.path(str(page("planted"))).is_file()
        rules = "".join(path.read_text() for path in sorted(finished.path("workflow/rules").glob("*.smk")))
        name = str(page("{dataset}"))
        assert f'"{name}"' in rules
        assert f'shown("{name}"' not in rules
    ignored = finished.git("check-ignore", *(str(page("planted")) for page in (layout.errors_page, layout.costs_page, layout.gallery, layout.audit_page)))
    assert len(ignored.splitlines()) == 4
