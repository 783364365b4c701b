"""Memory of a training job against the number of posts: features stay in their files, mapped, so that what a job needs itself hardly grows.

    PYTHONPATH=src python -m benchmarks.memory                      # 2 epochs of three methods on 10,000 to 80,000 simulated posts, 768 features a side
    PYTHONPATH=src python -m benchmarks.memory --rows 10000 320000 --methods erm

Each job is a process of its own, as in the workflow. `own` is the most that it held in memory of its own (anonymous pages, sampled every few milliseconds),
less what a job on a tenth of the fewest posts holds; `mapped` the most of the files that lay in memory at once, which the system takes back when it needs to;
`files` what the job's feature files hold. Linux alone tells the two apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests import simulated

from causalroute import layout

WIDTH = 768
"""Features of a side, as of CLIP and most encoders."""
METHODS = ("erm", "double_swap", "causal_moe")
PAUSE = 0.005
"""Seconds between two looks at a job's memory."""
EPOCHS = 2


def resident(process: int) -> tuple[int, int]:
    """Kilobytes of a process in memory: its own, and of files."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    found = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in ("RssAnon", "RssFile")}
    return found.get("RssAnon", 0), found.get("RssFile", 0)


def peak(method: str, folder: Path) -> tuple[int, int, float]:
    """Most kilobytes of its own and of files that one job holds, and its seconds.

    Raises:
        SystemExit: the job failed.
    """
    config = simulated.config(train={"epochs": EPOCHS}, method={})
    command = [sys.executable, "-m", "causalroute.stages.train", "--dataset", simulated.NAME, "--method", method, "--seeds", "0-0", "--config", config]
    began, own, mapped = time.monotonic(), 0, 0
    with subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True) as job:
        while job.poll() is None:
            found = resident(job.pid)
            own, mapped = max(own, found[0]), max(mapped, found[1])
            time.sleep(PAUSE)
        if job.returncode:
            raise SystemExit(job.stderr.read() if job.stderr else "the job failed")
    return own, mapped, time.monotonic() - began


def make(folder: Path, rows: int) -> int:
    """Simulated posts, of which `rows` are learnt from; returns the megabytes of their feature files."""
    before, here = simulated.DIM, Path.cwd()
    try:
        simulated.DIM = WIDTH
        os.chdir(simulated.root(folder))
        simulated.write(train=rows, valid=rows // 10, test=10)
        files = [layout.features(simulated.NAME, "b", views) for views in ("factual", "estimated")]
        return sum(path.stat().st_size for path in files) // 2**20
    finally:
        simulated.DIM = before
        os.chdir(here)


def measure(rows: Sequence[int], methods: Sequence[str], root: Path) -> list[dict[str, object]]:
    """One row per number of posts and method."""
    make(root / "base", rows[0] // 10)
    base = {method: peak(method, root / "base")[0] for method in methods}
    found: list[dict[str, object]] = []
    for count in rows:
        files = make(root / str(count), count)
        for method in methods:
            own, mapped, seconds = peak(method, root / str(count))
            found.append(
                {
                    "method": method,
                    "posts": count,
                    "own_mb": (own - base[method]) // 1024,
                    "mapped_mb": mapped // 1024,
                    "files_mb": files,
                    "seconds": round(seconds, 1),
                }
            )
    return found


def main() -> None:
    """Prints one JSON line a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 20_000, 40_000, 80_000], help="train posts, the fewest first")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(args.rows, args.methods, Path(folder)):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
