"""Checks every shard of the feature store: `python -m causalroute.features.verify [--repair]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from causalroute import layout
from causalroute.features.store import shard_problem


def main(argv: Sequence[str] | None = None) -> int:
    """Prints each damaged shard and a summary; returns 1 where damage remains, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=layout.feature_store(), help="folder of the store (default: %(default)s)")
    parser.add_argument("--repair", action="store_true", help="remove damaged shards and unfinished files; the next run encodes what they held again")
    args = parser.parse_args(argv)
    shards = sorted(args.store.glob("*/*.safetensors"))
    leftovers = sorted(args.store.glob("*/.*.part"))
    damaged = {path: problem for path in shards if (problem := shard_problem(path))}
    for path, problem in damaged.items():
        print(f"damaged: {path}: {problem}")
    print(f"{len(shards)} shards in {args.store}: {len(damaged)} damaged, {len(leftovers)} unfinished files")
    if args.repair:
        for path in [*damaged, *leftovers]:
            path.unlink(missing_ok=True)
        print(f"removed {len(damaged) + len(leftovers)} files")
    return int(bool(damaged) and not args.repair)


if __name__ == "__main__":
    raise SystemExit(main())
