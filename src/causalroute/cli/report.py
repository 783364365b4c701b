"""`causalroute report`: the report of a project, renewed where something changed; its answer, and where its pages are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers."""
    told = "Writes the report of a project folder, or of a data set of a checkout, anew where something changed, and prints its answer. Nothing is trained."
    one = commands.add_parser("report", help="renew the report of a project and print its answer", description=told)
    one.add_argument("project", type=Path, nargs="?", default=Path("causalroute-run"), help="project folder or checkout (default: %(default)s)")
    one.add_argument("--dataset", default="", metavar="NAME", help="a data set of its params.yaml (default: those of its `run`)")
    one.add_argument("--open", action="store_true", help="open the page in the browser")
    one.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Renews and tells; returns the exit code.

    Raises:
        UserError: the folder is no project, or its run is not finished.
    """
    from causalroute.cli.train import STOPPED, closing
    from causalroute.project.renew import renew

    try:
        made = renew(arguments.project, arguments.dataset)
    except KeyboardInterrupt:
        return STOPPED
    for done in made:
        model = done.folder / "model"
        print("\n".join([f"{done.dataset}:", *closing(done.folder, done.dataset, model if (model / "config.json").is_file() else None, changed=done.changed)]))
        if arguments.open:
            import webbrowser

            webbrowser.open(done.page.resolve().as_uri())
    return 0
