"""gallery.html: posts beside their counterfactuals. One file without network, readable without script; every word and name from the data is escaped.

It shows posts and photos of people, so it lies beside the counterfactuals, which no commit takes, and not among the reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from causalroute.counterfactual.showcase import Card
from causalroute.report.grades import verdicts
from causalroute.report.html import page

PIECES = {"same": "span", "gone": "del", "new": "ins", "mask": "span", "cut": "span"}
"""HTML element of each kind of piece: struck and inserted words are told apart without colour too."""


def render(dataset: str, cards: Sequence[Card], gates: Mapping[str, Mapping[str, Any]], visual: str = "image") -> str:
    """The page as text.

    Args:
        dataset: its name.
        cards: posts, editor by editor.
        gates: what the gate found, by editor.
        visual: what the visual side is; attribute words are never called an image.
    """
    other = "attributes" if visual == "attributes" else "image"
    filters = {
        "editor": list(dict.fromkeys(card.editor for card in cards)),
        "label": sorted({card.label for card in cards}),
        "usable": sorted({usable(card, other) for card in cards}),
        "why": list(dict.fromkeys(card.why for card in cards)),
    }
    values = {
        "dataset": dataset,
        "cards": [(card, usable(card, other)) for card in cards],
        "verdicts": [(name, verdicts(found)) for name, found in gates.items()],
        "filters": filters,
        "tags": PIECES,
    }
    named = {"side": lambda name: name.replace("image", other)}
    return page("gallery.html.j2", values, styles=["gallery.css"], scripts=["gallery.js"], filters=named)


def usable(card: Card, other: str = "image") -> str:
    """Which of the swaps may be trained on; `other` names the visual side."""
    sides = [side for side, ok in (("text", card.text_ok), (other, card.image_ok)) if ok]
    return " and ".join(sides) if sides else "none"
