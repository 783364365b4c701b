"""The committed report, opened by a reader: nothing fails, nothing is fetched, tables sort."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_report_opens_alone(page) -> None:
    address = (ROOT / "reports" / "planted" / "report.html").as_uri()
    page.goto(address)
    assert page.title()
    assert page.seen.requests == [address]
    assert page.seen.errors == []
