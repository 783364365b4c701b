"""gallery.html: posts beside their counterfactuals. One file without network, readable without script; every word and name from the data is escaped.

It shows posts and photos of people, so it lies beside the counterfactuals, which no commit takes, and not among the reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from causalroute import __version__
from causalroute.counterfactual.showcase import Card
from causalroute.report.blocks import finalized
from causalroute.report.grades import verdicts
from causalroute.report.page import template_text

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
    environment = Environment(autoescape=True, loader=FunctionLoader(template_text), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = finalized
    other = "attributes" if visual == "attributes" else "image"
    environment.filters["side"] = lambda name: name.replace("image", other)
    filters = {
        "editor": list(dict.fromkeys(card.editor for card in cards)),
        "label": sorted({card.label for card in cards}),
        "usable": sorted({usable(card, other) for card in cards}),
        "why": list(dict.fromkeys(card.why for card in cards)),
    }
    # The stylesheets and the script are our own; everything else goes through autoescape.
    return environment.get_template("gallery.html.j2").render(
        dataset=dataset,
        cards=[(card, usable(card, other)) for card in cards],
        verdicts=[(name, verdicts(found)) for name, found in gates.items()],
        filters=filters,
        tags=PIECES,
        style=Markup(template_text("page.css") + template_text("gallery.css")),
        script=Markup(template_text("gallery.js")),
        version=__version__,
    )


def usable(card: Card, other: str = "image") -> str:
    """Which of the swaps may be trained on; `other` names the visual side."""
    sides = [side for side, ok in (("text", card.text_ok), (other, card.image_ok)) if ok]
    return " and ".join(sides) if sides else "none"
