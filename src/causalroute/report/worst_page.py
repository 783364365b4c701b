"""errors.html: posts that a method gets wrong, and those it mends. One file without network, readable without script; all words of the data are escaped.

It shows test posts and photos, so it lies with the data, which no commit takes, and not among the reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.report.blocks import Table
from causalroute.report.claims import TITLES
from causalroute.report.html import page
from causalroute.report.worst import Card

ASKED = {"split": "posts", "kind": "error", "label": "class", "answer": "answer"}
PIECES = {"same": "span", "gone": "mark", "cut": "span"}
"""HTML element of each kind of piece: what the editor takes for context is marked."""


def render(dataset: str, method: str, editor: str, cards: Sequence[Card], counts: Table) -> str:
    """The page as text.

    Args:
        dataset: its name.
        method: whose errors they are.
        editor: whose idea of context is marked.
        cards: posts, by split and kind.
        counts: how many there are of each kind.
    """
    filters = {key: list(dict.fromkeys(shown(card, key) for card in cards)) for key in ASKED}
    values = {
        "dataset": dataset,
        "method": method,
        "editor": editor,
        "cards": [(card, {key: shown(card, key) for key in ASKED}) for card in cards],
        "counts": counts,
        "pictures": any(card.shot for card in cards),
        "asked": ASKED,
        "filters": filters,
        "tags": PIECES,
    }
    return page("errors.html.j2", values, styles=["gallery.css"], scripts=["gallery.js"])


def shown(card: Card, key: str) -> str:
    """What a filter compares."""
    value = str(getattr(card, key))
    return TITLES.get(value, value) if key == "split" else value
