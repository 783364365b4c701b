"""How hard the planted benchmark is: ERM and the oracle, and probes of the backbone's features. No debiasing method is looked at.

    PYTHONPATH=src python -m benchmarks.planted_calibration [--dataset planted_mixed] [--rho-text .5] [--seeds 5] [--work FOLDER]

`--dataset` is one of params.yaml's planted data sets, whose posts and backbone are taken; the other options change a number of it.
Where there are several sources, each of them has its row.

ERM and oracle are one model: a hidden layer on the concatenated, standardised features, AdamW, cosine, the epoch of best validation
accuracy from the eighth on. The oracle is trained and selected on posts without shortcut. `swap probe` reads the core from images
whose background, and from texts whose hashtags, were exchanged and rendered again: what a perfect counterfactual leaves of the core.
Prints Markdown; docs/planted.md holds the frozen figures.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import torch
import yaml
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from causalroute.config import Backbone, Config, Planted, parse
from causalroute.data.planted import CLASSES, SPLITS, benchmark, generate, grammar, render
from causalroute.features.dual_encoder import DualEncoder
from causalroute.features.pretrain import pretrain
from causalroute.io import canonical_json
from causalroute.rng import generator, torch_generator

EPOCHS, FIRST_EPOCH, BATCH, HIDDEN = 40, 8, 128, 128


def features(backbone: DualEncoder, texts: list[str], images: list) -> tuple[Tensor, Tensor]:
    """Text (N, Dt) and image features (N, Dv), through half precision as the cache stores them."""
    from causalroute.features.pretrain import to_pixels

    ids = backbone.tokens.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        t = [backbone.encode_texts(ids["input_ids"][i : i + 256], ids["attention_mask"][i : i + 256]) for i in range(0, len(texts), 256)]
        v = [backbone.encode_images(to_pixels(np.stack([_pixels(x) for x in images[i : i + 256]]))) for i in range(0, len(images), 256)]
    return torch.cat(t).half().float(), torch.cat(v).half().float()


def _pixels(image: object) -> np.ndarray:
    """Pixels of an image or of an image file."""
    if not isinstance(image, Path):
        return np.asarray(image)
    with Image.open(image) as opened:
        return np.asarray(opened)


def fit(x: Tensor, y: Tensor, valid: tuple[Tensor, Tensor], classes: int, seed: int) -> nn.Module:
    """The network of the best validation epoch; x (N, D) standardised, y (N,)."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(HIDDEN, classes))
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, best = torch_generator(seed, "calibration"), (-1.0, {})
    for epoch in range(1, EPOCHS + 1):
        for rows in torch.randperm(len(x), generator=order).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net.train()(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        score = accuracy(net, *valid)
        if epoch >= FIRST_EPOCH and score > best[0]:
            best = (score, {name: value.clone() for name, value in net.state_dict().items()})
    net.load_state_dict(best[1])
    return net


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right answers."""
    return float((net.eval()(x).argmax(1) == y).float().mean())


def compare(x: Tensor, y: Tensor, split: np.ndarray, source: np.ndarray, classes: int, seeds: int) -> None:
    """Prints mean and 95 % t-interval of ERM and oracle on the test splits, of all posts and by source (N,)."""
    print("| | posts of | valid | id | ood | neutral |\n|---|---|---|---|---|---|")
    rows = {s: torch.from_numpy(np.flatnonzero(split == s)) for s in SPLITS}
    parts = {"all": np.ones(len(split), dtype=bool)} | {name: source == name for name in sorted(set(source)) if name}
    for name, train, valid in (("ERM", "train", "valid"), ("oracle", "oracle_train", "oracle_valid")):
        mean, std = x[rows[train]].mean(0), x[rows[train]].std(0) + 1e-6
        z = (x - mean) / std
        nets = [fit(z[rows[train]], y[rows[train]], (z[rows[valid]], y[rows[valid]]), classes, seed) for seed in range(seeds)]
        for part, member in parts.items():
            chosen = [rows[s][torch.from_numpy(member)[rows[s]]] for s in (valid, "id", "ood", "neutral")]
            table = 100 * np.array([[accuracy(net, z[r], y[r]) for r in chosen] for net in nets])
            half = stats.t.ppf(0.975, seeds - 1) * table.std(0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.full(4, np.nan)
            cells = " | ".join(f"{m:.1f} ± {h:.1f}" for m, h in zip(table.mean(0), half, strict=True))
            print(f"| {name} | {part} | {cells} |", flush=True)


def probe(x: Tensor, y: np.ndarray, others: dict[str, tuple[Tensor, np.ndarray]]) -> str:
    """Accuracies of a logistic regression fitted on (x, y)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(x.numpy(), y)
    return ", ".join(f"{name} {100 * model.score(z.numpy(), target):.1f}" for name, (z, target) in others.items())


def probes(backbone: DualEncoder, settings: Planted, task: str, posts: pl.DataFrame, t: Tensor, v: Tensor) -> None:
    """Prints what can be read from the features of the neutral posts, and from the same posts with exchanged cues."""
    split = posts["split"].to_numpy()
    train, test = split == "oracle_train", split == "neutral"
    swapped = [swap(settings, task, index) for index in range(settings.test)]
    t_swap, v_swap = features(backbone, [text for text, _ in swapped], [image for _, image in swapped])
    for name, z, z_swap, column in (("polar word", t, t_swap, "core_text"), ("face", v, v_swap, "core_image")):
        y = posts[column].to_numpy()
        print(f"- {name}: {probe(z[train], y[train], {'as posted': (z[test], y[test]), 'swap probe': (z_swap, y[test])})}")
    others = [("hashtag set", t, "cue_text"), ("background", v, "cue_image")]
    others += [("source (text)", t, benchmark.SOURCE), ("source (image)", v, benchmark.SOURCE)] if settings.sources else []
    for name, z, column in others:
        y = posts[column].to_numpy()
        print(f"- {name}: {probe(z[train], y[train], {'as posted': (z[test], y[test])})}")


def swap(settings: Planted, task: str, index: int) -> tuple[str, object]:
    """A neutral post with hashtags and background of another class; all else is as it was."""
    row, scene = benchmark.draw(settings, task, "neutral", index)
    rng, classes = generator(settings.seed, "calibration", index), len(CLASSES[task])
    text = row["text"]
    new = grammar.hashtags(rng, (row["cue_text"] + 1) % classes)
    for span, hashtag in reversed(list(zip(row["cue_spans"], new, strict=True))):
        text = text[: span["start"]] + hashtag + text[span["end"] :]
    background = render.draw_background(rng, (row["cue_image"] + 1) % classes)
    return text, render.render(dataclasses.replace(scene, background=background))


def main() -> None:
    """Trains the backbone where it is not yet in the work folder, generates the posts, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="planted")
    for name in ("rho-text", "rho-image", "label-noise"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, help="of the posts")
    parser.add_argument("--pretrain-seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/out/planted"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = parse(Config, canonical_json(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))))
    dataset = config.datasets[arguments.dataset]
    changes = {name: getattr(arguments, name) for name in ("rho_text", "rho_image", "label_noise", "seed")}
    settings = dataclasses.replace(dataset.planted, **{name: value for name, value in changes.items() if value is not None})
    folder = (arguments.work / f"{dataset.backbone}{arguments.pretrain_seed}").resolve()
    if not (folder / "pretrain.json").exists():
        pretrain(dataclasses.replace(config.backbones[dataset.backbone].pretrain, seed=arguments.pretrain_seed), folder)
    raw = arguments.work / "raw"
    generate(settings, dataset.task, raw)
    posts = pl.read_parquet(raw / "posts.parquet")
    backbone = DualEncoder(Backbone(kind="dual_encoder", model=str(folder)), "calibration")
    t, v = features(backbone, posts["text"].to_list(), [raw / path for path in posts["image"]])
    y = torch.tensor([dataset.classes.index(label) for label in posts["label"]])
    probes(backbone, settings, dataset.task, posts, t, v)
    source = posts[benchmark.SOURCE].to_numpy() if settings.sources else np.full(len(posts), "")
    compare(torch.cat([t, v], 1), y, posts["split"].to_numpy(), source, len(dataset.classes), arguments.seeds)


if __name__ == "__main__":
    main()
