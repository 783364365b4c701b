"""Estimated against planted direct effects, across rho: how well are the context heads calibrated?

    PYTHONPATH=src python -m benchmarks.effects        # in a checkout after `make reproduce`; some 6 minutes of one core; docs/planted.md holds the output

For each rho, planted posts with both cues at that rho are generated anew; the backbone of the planted data set reads t_s and v_s of the train posts, and
cross-fitted heads with the settings of `causal_moe` say what these contexts tell: NDE_T, NDE_V and, from both together, NDE_TV, on the recorded label, each
post by the head that has not seen it. Given the label the cues are independent, so NDE_TV is the sum of the planted effects and INT is 0.

    ratio     mean |NDE| / mean |planted effect|; the latter is |logit rho| for one side
    slope     of the estimates on the planted effects, through the origin
    r         correlation of the two over posts
    sampled   ratio for an estimator that knows the cue of every post but not rho: log-odds of the cue's own frequency in these posts
    |INT|     mean |NDE_TV - NDE_T - NDE_V|, log-odds

ratio, slope and r with half of a 95 % t-interval over the seeds of the heads, posts fixed. Bar: ratio within 15 % of 1, r at least .9.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import stats
from torch import Tensor

from causalroute import io
from causalroute.config import Backbone as Settings
from causalroute.config import Editor, Planted, Pretrain
from causalroute.counterfactual.build import build
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.views import view_inputs
from causalroute.data.planted import CLASSES, generate
from causalroute.features.backbone import Backbone, load_backbone
from causalroute.features.encode import encode_views
from causalroute.features.store import Store
from causalroute.methods.causal_moe import Settings as Mixture
from causalroute.model.context import cross_fit
from causalroute.model.effects import on_label
from causalroute.rng import torch_generator

NAME, TASK = "planted_clip", "sarcasm"
BACKBONE = Settings(kind="dual_encoder", pretrain=Pretrain(), batch_size=64)
EDITORS = {"estimated": Editor(text="lexicon", image="saliency", swaps=1), "truth": Editor(text="truth", image="truth", swaps=1)}
SIDES = ("text", "image", "both")
RATIO, CORRELATION = 0.15, 0.9
Effects = Mapping[str, np.ndarray]
"""Side -> (seeds, N) estimates on the recorded label."""


def manifest_of(posts: pl.DataFrame, raw: Path) -> pl.DataFrame:
    """The train posts as the pipeline's manifest has them."""
    train = posts.filter(pl.col("split") == "train")
    digests = [io.sha256_file(raw / path) for path in train["image"]]
    label = pl.col("label").replace_strict({name: number for number, name in enumerate(CLASSES[TASK])}, return_dtype=pl.Int8)
    return train.select("id", "split", "text", "image", label, pl.lit(None, pl.String).alias("attributes"), pl.Series("image_sha256", digests))


def contexts(manifest: pl.DataFrame, editor: Editor, sources: Sources, backbone: Backbone, store: Store) -> dict[str, Tensor]:
    """What the heads see: t_s, v_s and both, (N, D) float32, in units of the spread of whole posts."""
    table, found = build(manifest, editor, sources), {}
    for side, letter in (("text", "t"), ("image", "v")):
        whole, context = (
            encode_views(backbone, view_inputs(manifest, None if view == letter else table, view), sources.root, store).float()
            for view in (letter, f"{letter}_s")
        )
        std = whole.std(0, correction=0)
        found[side] = (context - whole.mean(0)) / torch.where(std > 1e-6, std, torch.ones_like(std))
    return found | {"both": torch.cat([found["text"], found["image"]], 1)}


def estimated(views: Mapping[str, Tensor], labels: Tensor, seeds: int) -> dict[str, np.ndarray]:
    """Held-out direct effects on the recorded label."""
    settings, found = Mixture(), {}
    for side, x in views.items():
        rows = []
        for seed in range(seeds):
            options = {"folds": settings.folds, "hidden": settings.context_hidden, "steps": settings.context_steps}
            heads, fold = cross_fit(x, labels, 2, **options, generator=torch_generator(seed, "effects", side))
            rows.append(on_label(heads.held_out_effects(x, fold, settings.clip), labels).numpy())
        found[side] = np.stack(rows)
    return found


def measured(rho: float, seeds: int, backbone: Backbone, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Effects]]:
    """Planted effects (N,) by side, and each editor's estimates, of posts made at `rho`."""
    raw = folder / f"rho{rho:g}"
    generate(Planted(rho_text=rho, rho_image=rho, valid=1, test=1), TASK, raw)
    posts = pl.read_parquet(raw / "posts.parquet")
    manifest = manifest_of(posts, raw)
    labels = torch.from_numpy(manifest["label"].cast(pl.Int64).to_numpy().copy())
    known = manifest.select("id").join(posts, on="id", how="left", maintain_order="left")
    planted = {side: known[f"effect_{side}"].to_numpy().astype(np.float64) for side in ("text", "image")}
    store, found = Store(folder / "store", backbone.key), {}
    for name, editor in EDITORS.items():
        sources = Sources(raw, posts if name == "truth" else None, backbone=(BACKBONE, NAME))
        found[name] = estimated(contexts(manifest, editor, sources, backbone, store), labels, seeds)
    return planted | {"both": planted["text"] + planted["image"]}, found


def spread(values: np.ndarray) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % t-interval."""
    count = len(values)
    return float(values.mean()), float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan


def correlation(rows: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """Pearson's r of each seed's estimates (seeds, N) and the planted effects; 0 where an estimate never varies."""
    return np.array([np.corrcoef(row, planted)[0, 1] if row.std() > 1e-9 else 0.0 for row in rows])


def compared(rows: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Ratio, slope and r of estimates (seeds, N) against planted effects (N,)."""
    measures = {
        "ratio": np.abs(rows).mean(1) / np.abs(planted).mean(),
        "slope": rows @ planted / (planted @ planted),
        "r": correlation(rows, planted),
    }
    return {f"{name}{end}": value for name, values in measures.items() for end, value in zip(("", "_half"), spread(values), strict=True)}


def sampled(planted: np.ndarray) -> float:
    """|log-odds| of how often the cue agrees in these posts, over the planted one."""
    agrees = float((planted > 0).mean())
    return abs(math.log(agrees / (1 - agrees))) / float(np.abs(planted).mean())


def rows_of(rho: float | None, planted: Mapping[str, np.ndarray], editor: str, found: Effects) -> list[dict[str, object]]:
    """One row for each side."""
    interaction = float(np.abs(found["both"] - found["text"] - found["image"]).mean())
    rows: list[dict[str, object]] = []
    for side in SIDES:
        figures = compared(found[side], planted[side])
        passed = abs(figures["ratio"] - 1) <= RATIO and figures["r"] >= CORRELATION
        told = {"sampled": None if side == "both" or rho is None else sampled(planted[side]), "int": interaction if side == "both" else None}
        mean = float(np.abs(planted[side]).mean())
        rows.append({"rho": rho, "editor": editor, "side": side, "planted": mean, **figures, **told, "passed": passed})
    return rows


def shown(rows: Sequence[Mapping[str, object]]) -> str:
    """The Markdown table."""
    lines = ["| rho | editor | side | planted | ratio | slope | r | sampled | \\|INT\\| | bar |", f"|{'---|' * 10}"]
    for row in rows:
        pairs = " | ".join(f"{row[name]:.2f} ± {row[name + '_half']:.2f}" for name in ("ratio", "slope")) + f" | {row['r']:.3f} ± {row['r_half']:.3f}"
        extra = " | ".join("" if row[name] is None else f"{row[name]:.2f}" for name in ("sampled", "int"))
        head = f"| {'all' if row['rho'] is None else row['rho']} | {row['editor']} | {row['side']} | {row['planted']:.2f} | "
        lines.append(f"{head}{pairs} | {extra} | {'met' if row['passed'] else 'missed'} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the CSV and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rho", type=float, nargs="+", default=[0.6, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--seeds", type=int, default=5, help="of the heads")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/effects.csv"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    backbone = load_backbone(BACKBONE, NAME)
    with tempfile.TemporaryDirectory() as folder:
        found = {rho: measured(rho, arguments.seeds, backbone, Path(folder)) for rho in arguments.rho}
    rows = [row for rho, (planted, made) in found.items() for name, effects in made.items() for row in rows_of(rho, planted, name, effects)]
    every = {side: np.concatenate([planted[side] for planted, _ in found.values()]) for side in SIDES}
    for name in EDITORS:
        rows += rows_of(None, every, name, {side: np.concatenate([made[name][side] for _, made in found.values()], axis=1) for side in SIDES})
    io.write_csv(arguments.out, pl.DataFrame(rows, infer_schema_length=None))
    print(shown(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
