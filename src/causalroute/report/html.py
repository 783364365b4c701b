"""Pages of one file, without network: a template of this package with its stylesheets and scripts inside. Every word from the data is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from causalroute import __version__
from causalroute.report.blocks import finalized, spans

Filters = Mapping[str, Callable[..., Any]]
FOLDER = files("causalroute.report") / "templates"


def page(template: str, values: Mapping[str, Any], *, styles: Sequence[str] = (), scripts: Sequence[str] = (), filters: Filters | None = None) -> str:
    """The template filled with `values`.

    Args:
        template: file in the templates folder.
        values: by name; a drawing or other markup of our own is a `Markup`, everything else is escaped, and control characters are made visible.
        styles: stylesheets beside page.css.
        scripts: scripts, in this order.
        filters: of the template, beside `spans`.
    """
    environment = Environment(autoescape=True, loader=FunctionLoader(_text), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = finalized
    environment.filters |= {"spans": spans, **(filters or {})}
    style, script = ("".join(_text(name) for name in names) for names in (("page.css", *styles), scripts))
    return environment.get_template(template).render(**values, style=Markup(style), script=Markup(script), version=__version__)


def _text(filename: str) -> str:
    """A file of the templates folder, which travels inside the package."""
    return (FOLDER / filename).read_text(encoding="utf-8")
