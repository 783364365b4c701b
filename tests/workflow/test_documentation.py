"""The slow half: blocks that take minutes run too, in the order of their page, and the site builds without anything of others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit import documentation as docs
from tests.unit.test_documentation import run

SLOW = sorted({block.page for block in docs.every() if block.slow})


@pytest.mark.skipif(os.environ.get("DOCS") != "all", reason="trains several models, ten minutes on two cores: DOCS=all runs it")
@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    run(page, tmp_path, slow=True)


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=docs.ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//""")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not loaded.search(text), (page, loaded.findall(text))
        assert "::: causalroute" not in text
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet
    assert "usage: causalroute audit" in (tmp_path / "reference" / "cli" / "index.html").read_text()
    assert "<math" in (tmp_path / "evaluation" / "index.html").read_text()
