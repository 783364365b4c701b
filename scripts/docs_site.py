"""What `mkdocs build` does beside rendering docs/: mkdocs.yml names this file under `hooks`.

The reference of the command line is made from the parsers, formulas become MathML, and the picture of the home page is drawn from the committed metrics.
Nothing of the site is fetched from elsewhere when it is read.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from causalroute.cli import parser
from causalroute.io import read_json, write_text
from causalroute.report.charts import Axis, line, n, text

sys.path.insert(0, str(Path(__file__).resolve().parent))
import mathml

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path("docs/pictures/planted.svg")
HELP = "<!-- help of every command -->"
SHOWN = {
    **{
        "erm": "ERM",
        "cf_vqa": "CF-VQA",
        "group_dro": "GroupDRO",
        "poe": "product of experts",
        "text_swap": "swaps in text only",
        "image_swap": "swaps in image only",
    },
    **{"double_swap": "swaps in both", "causal_moe": "causal mixture of experts", "oracle_erm": "oracle: no shortcut in train"},
}
"""Rows of the picture, in order."""
LIGHT = ".paper{fill:#fff;stroke:#d5d9e0}text{fill:#1f2530}.grid{stroke:#e1e4ea}.reach{stroke:#9aa3b2;stroke-width:3}.id{fill:#3b5bc0}.ood{fill:#c2571a}"
DARK = ".paper{fill:#1c2028;stroke:#39404d}text{fill:#e8ebf1}.grid{stroke:#39404d}.reach{stroke:#6b7484}.id{fill:#91a7f5}.ood{fill:#f0955a}"
FONT = "text{font:14px system-ui,-apple-system,Segoe UI,Roboto,sans-serif}"


def on_config(config: Any) -> Any:
    """Draws the picture where it is not that of the metrics."""
    drawn = picture(read_json(ROOT / "reports" / "planted" / "metrics.json"))
    if not (ROOT / PICTURE).is_file() or (ROOT / PICTURE).read_text(encoding="utf-8") != drawn:
        write_text(ROOT / PICTURE, drawn)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in what is made from the code, and turns formulas into MathML."""
    if HELP in markdown:
        markdown = markdown.replace(HELP, commands())
    return mathml.convert(markdown)


def commands() -> str:
    """`--help` of every command, one section each."""
    os.environ["COLUMNS"] = "110"
    top = parser()
    subs = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    parts = [("causalroute", top), *((f"causalroute {name}", one) for name, one in subs.choices.items())]
    return "\n\n".join(f"## {name}\n\n```text\n{one.format_help().rstrip()}\n```" for name, one in parts)


def picture(metrics: Any) -> str:
    """Accuracy on ID and on OOD posts of the planted benchmark, one row a method, with intervals."""
    axis, left, right, top, step = Axis(0.0, 1.0, "", True, (0.0, 0.25, 0.5, 0.75, 1.0)), 210, 480, 44, 30
    rows = [(words, metrics[name]) for name, words in SHOWN.items() if name in metrics]
    bottom = top + step * len(rows)
    parts = [f'<rect x=".5" y=".5" width="519" height="{bottom + 33}" rx="12" class="paper"/>']
    for tick in axis.ticks:
        at = axis.at(tick, left, right)
        parts += [line(at, top, at, bottom, "grid"), text(at, bottom + 18, f"{axis.label(tick)} %", "middle")]
    for place, (words, found) in enumerate(rows):
        y = top + step * (place + 0.5)
        parts.append(text(left - 12, y + 4, words, "end"))
        for split, shift in (("id", -4), ("ood", 4)):
            value = found[split]["accuracy"]
            low, mean, high = (axis.at(value[key], left, right) for key in ("low", "mean", "high"))
            parts += [line(low, y + shift, high, y + shift, "reach"), f'<circle cx="{n(mean)}" cy="{n(y + shift)}" r="5" class="{split}"/>']
    for x, split, words in ((100, "id", "like the train posts (ID)"), (310, "ood", "shortcut reversed (OOD)")):
        parts += [f'<circle cx="{x + 6}" cy="20" r="5" class="{split}"/>', text(x + 16, 24, words)]
    title = "<title>Accuracy on the planted benchmark, 95 % intervals over seeds and posts</title>"
    style = f"<style>{FONT}{LIGHT}@media (prefers-color-scheme:dark){{{DARK}}}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {bottom + 34}" role="img">{title}{style}{"".join(parts)}</svg>\n'
