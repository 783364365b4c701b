"""What the documentation site makes from the code and the committed results."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from causalroute.cli import COMMANDS
from causalroute.io import read_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> Any:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import docs_site
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return docs_site


def test_the_picture_is_that_of_the_committed_results(site: Any) -> None:
    drawn = site.picture(read_json(ROOT / "reports" / "planted" / "metrics.json"))
    assert (ROOT / site.PICTURE).read_text(encoding="utf-8") == drawn, "stale: run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.svg")), ids=lambda path: path.name)
def test_pictures_are_whole_and_told(path: Path) -> None:
    tree = ElementTree.parse(path).getroot()
    assert tree.find("{http://www.w3.org/2000/svg}title") is not None
    assert "http" not in path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")


def test_every_command_has_its_help(site: Any) -> None:
    text = site.commands()
    for name in COMMANDS:
        assert f"## causalroute {name}\n" in text
        assert f"usage: causalroute {name}" in text


def parsed(site: Any, tex: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<math>{site.mathml.math(tex)}</math>")


def test_formulas_become_mathml(site: Any) -> None:
    root = parsed(site, r"\widehat{\mathrm{var}}(m) = \frac{V_\mathrm{seed}}{S} - \bar b_{r\cdot}^2 \pm 1.5 < \nu")
    assert [node.tag for node in root] == ["mover", "mo", "mi", "mo", "mo", "mfrac", "mo", "msubsup", "mo", "mn", "mo", "mi"]
    assert "".join(root.itertext()) == "var^(m)=VseedS−b‾r·2±1.5<ν"


@pytest.mark.parametrize(
    ("tex", "words"),
    [
        ("a_", "an argument is missing"),
        (r"\frac{a}", "an argument is missing"),
        ("_a", "an index of nothing"),
        ("a_b_c", "an index of nothing"),
        ("{a", "not closed"),
        ("a}", "too many"),
        (r"\unknown x", "unknown"),
    ],
)
def test_what_is_not_known_is_refused(site: Any, tex: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        site.mathml.math(tex)
    assert site.mathml.convert(f"so ${tex}$ is") == f"so `${tex}$` is"


def test_code_and_money_are_no_formulas(site: Any) -> None:
    for text in ("`$HOME/$USER`", "```sh\necho $A $B\n```", "it costs 3 $ or 4 $", "$CACHE/features and $HOME"):
        assert site.mathml.convert(text) == text


def test_the_formulas_of_every_page_are_known(site: Any) -> None:
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = site.mathml.convert(path.read_text(encoding="utf-8"))
        assert not re.search(r"`\$+[^`]*\\[A-Za-z][^`]*\$+`", text), path.name
