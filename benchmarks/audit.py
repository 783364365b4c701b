"""The audit measured: false discoveries over many seeds, what it finds where something is planted, time and memory of 25,000 posts.

    PYTHONPATH=src python -m benchmarks.audit errors --seeds 200
    PYTHONPATH=src python -m benchmarks.audit cost --posts 25000
    PYTHONPATH=src python -m benchmarks.audit cost --posts 25000 --images 25000

errors: posts of a Zipf vocabulary with hashtags, numbers, mentions, marks, casing, metadata. `none`: nothing goes with the label, so every listed cue is
false and alpha bounds the share of audits that list any. `planted`: one of two hashtags, the source and an added mark follow the label with probability
rho; the share of listed cues that are not planted is the false discovery proportion.
cost: the command as a process of its own, beside one polars scan of the same file (read, lower-case, split into words, count): ratios are what to read on
a busy machine. Images are JPEG photos of 640 x 480, all different files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from causalroute.audit.cues import gather
from causalroute.audit.posts import Posts
from causalroute.audit.search import passing
from causalroute.config import Audit
from causalroute.rng import generator

TAGS = ("#east", "#north")
SOURCES = ("web", "phone")
EXTRAS = ("@someone", "7", "2019", "😀", "(so)", '"well"', "LOUD")
WORDS = [f"word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(4000)]
SCAN = """
import polars as pl, sys
pl.read_csv(sys.argv[1]).select(pl.col("text").str.to_lowercase().str.split(" ").explode()).group_by("text").len().sort("len").tail(5)
"""


def table(items: int, rho: float, seed: int, classes: int = 2) -> pl.DataFrame:
    """Posts whose hashtag, source and final mark follow the label with probability `rho` (.5: a coin); nothing else knows it."""
    random = generator(seed, "audit benchmark")
    labels = random.integers(classes, size=items)
    follow = random.random((items, 3)) < 2 * rho - 1
    coin = random.integers(2, size=(items, 3))
    cue = np.where(follow, (labels % 2)[:, None], coin)
    frequency = 1 / np.arange(1, len(WORDS) + 1)
    sizes = random.integers(4, 24, items)
    drawn = iter(random.choice(WORDS, int(sizes.sum()), p=frequency / frequency.sum()).tolist())
    extras = random.random((items, len(EXTRAS))) < 0.15
    places = random.random((items, len(EXTRAS)))
    rows = []
    for i in range(items):
        words = [next(drawn) for _ in range(sizes[i])]
        for k in np.flatnonzero(extras[i]).tolist():
            words.insert(int(places[i, k] * (len(words) + 1)), EXTRAS[k])
        mark = "!" if cue[i, 2] else "."
        text = " ".join([*words, TAGS[cue[i, 0]]]) + f" {mark}"
        rows.append((f"p{i}", text, f"class{labels[i]}", SOURCES[cue[i, 1]]))
    return pl.DataFrame(rows, schema=["id", "text", "label", "source"], orient="row")


def planted(cue: dict[str, object]) -> bool:
    """Whether a listed cue is one that was planted (or a form that says the same)."""
    name = str(cue["cue"])
    return name in (*TAGS, "!", ".", "has exclamation mark") or name.startswith("source=") or "!" in name.split(" ") or any(tag in name for tag in TAGS)


def listed(frame: pl.DataFrame, settings: Audit, classes: int) -> list[dict[str, object]]:
    """All cues that an audit of the table lists; probes and the joint model, which list none, are left out."""
    labels = frame["label"].str.slice(5).cast(pl.Int64).to_numpy()
    none: list[str | None] = [None] * frame.height
    names = tuple(f"class{c}" for c in range(classes))
    train = np.ones(frame.height, dtype=bool)
    posts = Posts(frame["id"].to_list(), frame["text"].to_list(), labels, names, train, none, none, {"source": frame["source"].to_list()})
    return passing(posts, gather(posts, [None] * frame.height, settings), settings)[0]


def errors(seeds: int, items: int) -> dict[str, object]:
    """False discoveries of both controls, without and with planted cues."""
    told: dict[str, object] = {"seeds": seeds, "posts": items}
    for classes in (2, 3):
        for control in ("fwer", "fdr"):
            settings = Audit(control=control)  # type: ignore[arg-type]
            alarms, shares, whole = [], [], []
            for seed in range(seeds):
                alarms.append(bool(listed(table(items, 0.5, seed, classes), settings, classes)))
                if classes == 2:
                    cues = listed(table(items, 0.9, seed), settings, classes)
                    shares.append(sum(not planted(cue) for cue in cues) / max(1, len(cues)))
                    whole.append({*TAGS, "source=web", "source=phone", "has exclamation mark"} <= {str(cue["cue"]) for cue in cues})
            told[f"{classes} classes, {control}"] = {"audits of nothing that list anything": float(np.mean(alarms))} | (
                {"false discovery proportion": float(np.mean(shares)), "all planted cues found": float(np.mean(whole))} if shares else {}
            )
            print(json.dumps(told), file=sys.stderr)
    return told


def photos(folder: Path, count: int) -> None:
    """Different JPEG files of smooth noise; a few dozen pictures, made different files by bytes behind their end."""
    random = generator(0, "photos")
    for i in range(count):
        if i < 64:
            small = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=int(random.integers(60, 95)))
        else:
            (folder / f"{i}.jpg").write_bytes((folder / f"{i % 64}.jpg").read_bytes() + i.to_bytes(4, "big"))


def measured(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MB of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, after.ru_maxrss / 1024  # of all children so far: the scan comes first and is smaller


def cost(posts: int, images: int) -> dict[str, object]:
    """Time and memory of the command against one polars scan of the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = table(posts, 0.7, 0).with_columns(split=pl.when(pl.int_range(pl.len()) % 10 == 0).then(pl.lit("test")).otherwise(pl.lit("train")))
        if images:
            photos(folder, images)
            frame = frame.with_columns(image=pl.concat_str(pl.int_range(pl.len()) % images, pl.lit(".jpg")))
        frame.write_csv(folder / "posts.csv")
        scan = measured([sys.executable, "-c", SCAN, str(folder / "posts.csv")])
        command = [sys.executable, "-m", "causalroute", "audit", str(folder / "posts.csv"), "--metadata", "source", "--output-dir", str(folder / "out")]
        audit = measured(command)
        return {
            "posts": posts,
            "images": images,
            "audit": dict(zip(("seconds", "cpu_seconds", "peak_mb"), audit, strict=True)),
            "scan": dict(zip(("seconds", "cpu_seconds", "peak_mb"), scan, strict=True)),
            "ratio_of_cpu": audit[1] / scan[1],
        }


def main() -> None:
    """Runs one of the two and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("errors", "cost"))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--posts", type=int, default=0, help="default: 600 for errors, 25000 for cost")
    parser.add_argument("--images", type=int, default=0, help="cost: image files")
    arguments = parser.parse_args()
    if arguments.what == "errors":
        print(json.dumps(errors(arguments.seeds, arguments.posts or 600), indent=1))
    else:
        print(json.dumps(cost(arguments.posts or 25000, arguments.images), indent=1))


if __name__ == "__main__":
    main()
