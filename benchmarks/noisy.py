"""What an editor's errors cost: accuracy of the methods that train on swaps against the rates at which swaps fail or lose the core, planted posts.

    PYTHONPATH=src python -m benchmarks.noisy        # in a checkout after `make reproduce`; some 15 minutes of one core; docs/planted.md holds the output

Errors are those of `causalroute.counterfactual.corrupt`, on both sides at the same rate, drawn apart, on train and validation posts; the tests stay as they
are. One rate is varied at a time. A failed swap has the features of the post itself and destroyed ones are encoded once for all posts, so a rate only picks
rows. The gate is bypassed: every swap is trained on. What it would have said of each side is printed beside (`--no-gate` leaves that out: 10 s a rate).

Writes a CSV (mean over seeds with 95 % t-interval, errors and posts fixed) and prints one Markdown table for each test split.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import stats
from torch import Tensor

from causalroute import io, layout
from causalroute.config import Backbone, Corrupt, Gate, Pretrain, Train
from causalroute.counterfactual.corrupt import corrupt_images, corrupt_texts, errors
from causalroute.counterfactual.gate import gate
from causalroute.counterfactual.judged import judged_posts
from causalroute.counterfactual.posts import posts_of
from causalroute.counterfactual.text.truth import overlap
from causalroute.counterfactual.views import edited_rows, view_inputs
from causalroute.data.planted import CLASSES
from causalroute.features.backbone import load_backbone
from causalroute.features.encode import encode_views
from causalroute.features.store import Store
from causalroute.methods.base import Posts, Shape
from causalroute.schema import methods
from causalroute.training import job, loop
from causalroute.training.data import CONTEXT, TRAIN_VIEWS, Files, Standard, load_posts

DATASET, NAME = "planted", "planted_clip"
BACKBONE = Backbone(kind="dual_encoder", pretrain=Pretrain(), batch_size=64)
LEARN, TEST = ("train", "valid"), ("id", "ood", "neutral")
WANTED = ("text_swap", "image_swap", "double_swap", "counterfactual_augmentation", "causal_moe")
SIDES = {"text": "t", "image": "v"}
Views = dict[str, Tensor]


class Noisy:
    """The learning posts of one editor, their swaps as made, failed and destroyed.

    Letters: n posts, K swaps, D width.
    """

    def __init__(self, editor: str) -> None:
        self.manifest = pl.read_parquet(layout.manifest(DATASET))
        rows = self.manifest.filter(pl.col("split").is_in(LEARN))
        whole = pl.read_parquet(layout.counterfactuals(DATASET, editor))
        self.table = rows.select("id").join(whole, on="id", how="left", maintain_order="left")
        self.words = posts_of(rows)
        self.marks = [overlap(tokens, spans) for tokens, spans in zip(self.words.tokens, self.table["context_spans"].to_list(), strict=True)]
        self.factual = io.read_tensors(layout.features(DATASET, NAME, "factual"))[0]
        self.place = torch.tensor(edited_rows(self.manifest, self.table))
        stored = io.read_tensors(layout.features(DATASET, NAME, editor))[0]
        at = {row: i for i, row in enumerate(stored["rows"].tolist())}
        taken = torch.tensor([at[row] for row in self.place.tolist()])
        self.views: Views = {name: value[taken] for name, value in stored.items() if name not in ("rows", "t_0", "v_0")}
        self.destroyed = self._encoded(self.corrupted(Corrupt(destroy=1.0)))

    def corrupted(self, corrupt: Corrupt) -> pl.DataFrame:
        """The table with errors."""
        return corrupt_images(corrupt_texts(self.table, self.words, self.marks, corrupt), self.words, corrupt)

    def _encoded(self, table: pl.DataFrame) -> Views:
        """Features of its swaps, (n, K, D) each."""
        backbone, root, found = load_backbone(BACKBONE, NAME), layout.raw(DATASET), {}
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder), backbone.key)
            for view in ("t_swap", "v_swap"):
                features = encode_views(backbone, view_inputs(self.manifest, table, view), root, store)
                found[view] = features.view(self.views[view].shape)
        return found

    def swaps(self, corrupt: Corrupt) -> Views:
        """The swaps at some rates, (n, K, D) each: picked from what is made, failed (the post itself) and destroyed."""
        found = {}
        for side, letter in SIDES.items():
            hit = np.array(errors(self.words.ids, self.table[f"{side}_ok"], corrupt, side))
            failed, destroyed = (torch.from_numpy(hit == kind)[:, None, None] for kind in ("fail", "destroy"))
            own = self.factual[letter][self.place][:, None]
            view = f"{letter}_swap"
            found[view] = torch.where(failed, own, torch.where(destroyed, self.destroyed[view], self.views[view]))
        return found

    def verdicts(self, corrupt: Corrupt) -> dict[str, str]:
        """What the gate says of each side."""
        views = self.views | self.swaps(corrupt) | {"rows": self.place}
        found = gate(judged_posts(self.manifest, self.corrupted(corrupt), self.factual, views, Gate()), Gate())
        return {side: found[side]["verdict"] for side in SIDES}

    def posts(self, clean: Posts, standard: Standard, corrupt: Corrupt) -> Posts:
        """What a method trains on at some rates."""
        made = {name: standard.apply(name, value) for name, value in self.swaps(corrupt).items()}
        ok = {f"{side}_ok": torch.from_numpy(self.table[f"{side}_ok"].to_numpy().copy()) for side in SIDES}
        return dataclasses.replace(clean, views={**clean.views, **made}, **ok)


def accuracies(name: str, seed: int, posts: Posts, test: Posts, labels: Tensor) -> list[float]:
    """Accuracy on each of TEST of one trained seed."""
    train = Train()
    shape = Shape(posts.views["t"].shape[1], posts.views["v"].shape[1], posts.classes, train.hidden, train.dropout)
    state = loop.start(job.build(name, {}, shape, seed), posts, name, seed, train)
    best = loop.advance(state, posts, train, seed, save=lambda _: None, watch=lambda _: None)
    state.method.restore(best.tensors, state.method.extra())
    found = []
    for split in TEST:
        rows = test.rows(split)
        with torch.no_grad():
            found.append(float((state.method.eval().answer(test.inputs(rows)).p.argmax(1) == labels[rows]).float().mean()))
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return mean, mean - half, mean + half


def curve(noisy: Noisy, rates: Sequence[Corrupt], wanted: Sequence[str], seeds: int, judge: bool, editor: str) -> pl.DataFrame:
    """One row for each pair of rates, method and test split."""
    files = Files.of(DATASET, NAME, editor)
    classes = list(CLASSES["sarcasm"])
    clean, standard = load_posts(files, LEARN, classes, roles={"train": "train", "valid": "valid"}, views=TRAIN_VIEWS)
    test, _ = load_posts(files, TEST, classes, roles={}, views=CONTEXT, standard=standard)
    known = dict(pl.read_parquet(layout.test_labels(DATASET)).select("id", "label").iter_rows())
    labels, rows = torch.tensor([known[name] for name in test.ids]), []
    for corrupt in rates:
        said = noisy.verdicts(corrupt) if judge else dict.fromkeys(SIDES, "")
        posts = noisy.posts(clean, standard, corrupt)
        for name in wanted:
            found = np.array([accuracies(name, seed, posts, test, labels) for seed in range(seeds)])
            for split, values in zip(TEST, found.T, strict=True):
                mean, low, high = interval(values)
                told = {"gate_text": said["text"], "gate_image": said["image"]}
                rows.append({"fail": corrupt.fail, "destroy": corrupt.destroy, "method": name, "split": split, "mean": mean, "low": low, "high": high} | told)
            print(f"fail {corrupt.fail:g}, destroy {corrupt.destroy:g}, {name}: OOD {100 * found[:, 1].mean():.1f}", flush=True)
    return pl.DataFrame(rows)


def shown(table: pl.DataFrame, split: str, wanted: Sequence[str]) -> str:
    """A Markdown table of one split: a row for each pair of rates, accuracy in % with half of its interval."""
    lines = [f"| {split}: fail | destroy | gate text, image | {' | '.join(wanted)} |", f"|---|---|---|{'---|' * len(wanted)}"]
    part = table.filter(pl.col("split") == split)
    for (fail, destroy), rows in part.group_by("fail", "destroy", maintain_order=True):
        cells: Mapping[str, str] = {row["method"]: f"{100 * row['mean']:.1f} ± {100 * (row['high'] - row['mean']):.1f}" for row in rows.iter_rows(named=True)}
        lines.append(f"| {fail:g} | {destroy:g} | {rows['gate_text'][0]}, {rows['gate_image'][0]} | {' | '.join(cells[name] for name in wanted)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the CSV and prints the tables."""
    known = methods()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="estimated", choices=("estimated", "truth"))
    parser.add_argument("--fail", type=float, nargs="*", default=[0.25, 0.5, 0.75])
    parser.add_argument("--destroy", type=float, nargs="*", default=[0.05, 0.1, 0.3, 0.6])
    parser.add_argument("--methods", nargs="+", default=[name for name in WANTED if name in known], choices=known)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-gate", dest="gate", action="store_false")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/noisy.csv"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rates = [Corrupt(), *(Corrupt(fail=rate) for rate in arguments.fail), *(Corrupt(destroy=rate) for rate in arguments.destroy)]
    table = curve(Noisy(arguments.editor), rates, arguments.methods, arguments.seeds, arguments.gate, arguments.editor)
    io.write_csv(arguments.out, table)
    print("\n\n".join(shown(table, split, arguments.methods) for split in ("ood", "id", "neutral")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
