"""Queues one DVC experiment per value of a setting (per combination, for several): the grids that the method is usually taken apart by.

    python scripts/sweep.py                           # what there is
    python scripts/sweep.py rank --dataset planted    # queues, runs nothing
    python scripts/sweep.py rank top_k --print        # shows the command for a grid of one's own

Experiments share every result that the setting does not touch: a sweep over `rank` trains and encodes nothing again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

PRESETS = {  # name -> key of params.yaml, values
    "rank": ("methods.causal_moe.rank", (0, 4, 8, 16)),
    "top_k": ("methods.causal_moe.top_k", (0, 1, 2)),
    "per_kind": ("methods.causal_moe.per_kind", (1, 2, 4)),
    "router": ("methods.causal_moe.router", ("rule", "mediated", "learned")),
    "form": ("methods.causal_moe.form", ("I", "B")),
    "direct": ("methods.causal_moe.direct", ("both", "text", "image", "none")),
    "threshold": ("methods.causal_moe.threshold", (0.4, 0.8, 1.6)),
    "temperature": ("methods.causal_moe.temperature", (0.0, 0.5, 1.0)),
    "own": ("methods.causal_moe.own", (0.0, 0.3, 1.0)),
    "te": ("methods.causal_moe.te", (0.0, 0.3, 1.0)),
    "text_editor": ("editors.{editor}.text", ("random", "surface", "lexicon", "occlusion")),
    "image_editor": ("editors.{editor}.image", ("random", "centre", "similarity", "saliency", "occlusion")),
    "fill": ("editors.{editor}.fill", ("mean", "blur", "telea")),
    "core_share": ("editors.{editor}.core_share", (0.2, 0.3, 0.5)),
    "swaps": ("editors.{editor}.swaps", (1, 2, 4)),
    "epochs": ("train.epochs", (20, 40, 80)),
}


def command(names: Sequence[str], dataset: str, editor: str) -> list[str]:
    """The `dvc` command that queues the grid; `++` sets a key that params.yaml may leave to its default."""
    grid = [f"++{key.format(editor=editor)}={','.join(map(str, values))}" for key, values in (PRESETS[name] for name in names)]
    settings = [word for override in (f"run=[{dataset}]", *grid) for word in ("-S", override)]
    return ["dvc", "exp", "run", "--queue", "--name", "-".join(names).replace("_", "-"), *settings]


def main(argv: Sequence[str] | None = None) -> int:
    """Queues the experiments, or lists the presets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets; several make a grid")
    parser.add_argument("--dataset", help="a data set of params.yaml (default: the first of `run`)")
    parser.add_argument("--print", action="store_true", help="show the command instead of running it")
    args = parser.parse_args(argv)
    if not args.names:
        sys.stdout.write("".join(f"{name:13} {key} = {', '.join(map(str, values))}\n" for name, (key, values) in PRESETS.items()))
        return 0
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    dataset = args.dataset or params["run"][0]
    for name, known, what in [(dataset, params["datasets"], "data set"), *((name, PRESETS, "preset") for name in args.names)]:
        if name not in known:
            sys.stderr.write(f"error: there is no {what} {name!r}\n  fix:   choose from {', '.join(known)}\n")
            return 1
    words = command(args.names, dataset, params["datasets"][dataset]["editor"])
    if args.print:
        sys.stdout.write(f"{shlex.join(words)}\n")
        return 0
    return subprocess.run(words, check=False).returncode or _told()


def _told() -> int:
    sys.stdout.write("queued; next: dvc queue start --jobs 1, dvc queue status, dvc exp show --only-changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
