"""Results -> the tables behind every figure: sorted rows, fixed columns, six decimals, so that two commits can be compared line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from causalroute.config import Evaluate
from causalroute.evaluation import calibration, groups
from causalroute.evaluation.claims import Versus, against_control
from causalroute.evaluation.collect import GATES, Facts
from causalroute.evaluation.metrics import Array
from causalroute.evaluation.scoring import INVERTED, KEPT, Results, Row
from causalroute.evaluation.statistics import Estimate, Sample, estimate, weights

DECIMALS = 6
PLANTED = {"nde_t": "effect_text", "nde_v": "effect_image"}
"""Estimated direct effect -> column of the planted truth."""
TRAINED = ("valid", "id")
"""Splits distributed like the train split: planted effects are those of an item's own split, estimated ones those that training showed."""
CI = ("mean", "low", "high")
KINDS = dict(zip(GATES, ("keep", "text", "image", "both"), strict=True))
"""Gate -> which of the contexts it treats, as experts are called by it."""


def rounded(value: float | None) -> float | None:
    """Six decimals without negative zero; None stays None, NaN becomes None."""
    return None if value is None or np.isnan(value) else round(float(value), DECIMALS) + 0.0


def _frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    clean = [{key: rounded(row[key]) if kind == pl.Float64 else row[key] for key, kind in schema.items()} for row in rows]
    return pl.DataFrame(clean, schema=dict(schema), orient="row")


def _schema(text: str, numbers: str, counts: str = "") -> dict[str, Any]:
    return dict.fromkeys(text.split(), pl.String) | dict.fromkeys(counts.split(), pl.Int64) | dict.fromkeys(numbers.split(), pl.Float64)


def metrics_json(results: Results) -> dict[str, dict[str, dict[str, dict[str, float | int | None]]]]:
    """method -> split or `group:<family>` -> metric -> {mean, low, high, seeds}; a group's metric is `<split>/<group>`, its accuracy."""
    found: dict[str, dict[str, dict[str, dict[str, float | int | None]]]] = {}
    for row in results.rows:
        if row.method == INVERTED:
            continue
        family, _, name = row.metric.partition("/")
        block, key = (f"group:{family}", f"{row.split}/{name}") if name else (row.split, row.metric)
        entry = {"mean": rounded(row.mean), "low": rounded(row.low), "high": rounded(row.high), "seeds": row.seeds}
        found.setdefault(row.method, {}).setdefault(block, {})[key] = entry
    return found


def results_table(results: Results, parameters: Mapping[str, int]) -> pl.DataFrame:
    """Every metric of every method and split, with its difference from the reference (results.csv); `parameters`: numbers that one seed stores."""
    rows = [vars(row) | {"seeds_low": row.seed_low, "seeds_high": row.seed_high, "parameters": parameters.get(row.method)} for row in results.rows]
    numbers = "mean low high seeds_low seeds_high difference difference_low difference_high p p_holm detectable"
    return _frame(rows, _schema("method split metric", numbers, "items seeds parameters"))


def controls_table(results: Results, evaluate: Evaluate) -> pl.DataFrame:
    """The proposed method against the strongest plain control, paired, on every test split (controls.csv)."""
    numbers = "mean control_mean difference difference_low difference_high p p_holm detectable"
    return _frame([vars(one) for one in against_control(results, evaluate)], _schema("method control split metric", numbers))


def ablation_table(results: Results, versus: Sequence[Versus], parameters: Mapping[str, int]) -> pl.DataFrame:
    """Methods and their variants on every test split, with `versus`, each variant against its method (ablation/results.csv)."""
    compared = {(one.method, one.split, one.metric): one for one in versus}
    family = {one.method for one in versus} | {one.control for one in versus}
    differences = "difference difference_low difference_high p p_holm detectable"
    rows = []
    for row in results.rows:
        if row.method in family and row.metric in KEPT and row.split != "valid":
            one = compared.get((row.method, row.split, row.metric))
            found = {key: getattr(one, key, None) for key in differences.split()}
            rows.append(vars(row) | found | {"parent": one.control if one else row.method, "parameters": parameters.get(row.method)})
    return _frame(rows, _schema("method parent split metric", f"mean low high {differences}", "items seeds parameters"))


def mcnemar_table(results: Results) -> pl.DataFrame:
    """Per seed: items that only the method or only the reference gets right (tests.csv)."""
    names = ("method", "split", "seed", "only_method", "only_reference", "p")
    return _frame([dict(zip(names, row, strict=True)) for row in results.mcnemar], _schema("method split", "p", "seed only_method only_reference"))


def id_vs_ood(results: Results) -> pl.DataFrame:
    """Accuracy on the splits a reader compares, one row per method."""
    schema = _schema("method", " ".join(f"{split}{end}" for split in ("id", "ood", "neutral") for end in ("", "_low", "_high")))
    rows = []
    for method in results.answers:
        row: dict[str, Any] = dict.fromkeys(schema) | {"method": method}
        for split in ("id", "ood", "neutral"):
            if found := results.find(method, split, "accuracy"):
                row |= {split: found.mean, f"{split}_low": found.low, f"{split}_high": found.high}
        rows.append(row)
    return _frame(rows, schema)


def group_table(results: Results) -> pl.DataFrame:
    """Accuracy in every group of every split."""
    rows = []
    for row in results.rows:
        family, _, name = row.metric.partition("/")
        if name:
            inside = int((results.answers[row.method][row.split].items.groups[family] == name).sum())
            rows.append(
                {"method": row.method, "split": row.split, "family": family, "group": name, "n": inside, "mean": row.mean, "low": row.low, "high": row.high}
            )
    return _frame(rows, {"method": pl.String, "split": pl.String, "family": pl.String, "group": pl.String, "n": pl.Int64} | dict.fromkeys(CI, pl.Float64))


def _mean_of(values: Array, evaluate: Evaluate, *names: object, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """The mean of per-item values (S, N) with the interval over seeds and items."""
    blocks = weights(values.shape[1], evaluate.bootstrap, evaluate.seed, *names)
    return estimate(Sample(values.mean(1), np.concatenate([block @ values.T / values.shape[1] for block in blocks])), evaluate.confidence, bounds)


def effects_table(results: Results, facts: Facts, evaluate: Evaluate) -> pl.DataFrame:
    """Mean effects on the gold class in log-odds; beside them the planted ones, and the least-squares slope of estimated on planted (1: right scale)."""
    rows = []
    for method, by_split in results.answers.items():
        for split, answers in by_split.items():
            for effect, values in answers.effects.items():
                found = _mean_of(values, evaluate, split)
                row = {"method": method, "split": split, "effect": effect, "mean": found.mean, "low": found.low, "high": found.high}
                # Planted effects are log-odds; with more than two classes estimates are log-probability ratios, another unit.
                same_unit = split in TRAINED and answers.items.p.shape[-1] == 2
                truth = facts.planted.get(PLANTED.get(effect, ""), {}) if same_unit else {}
                rows.append(row | _against(values.mean(0), [truth.get(item) for item in answers.ids.tolist()]))
    return _frame(rows, _schema("method split effect", "mean low high planted slope"))


def _against(values: Array, truth: list[float | None]) -> dict[str, float | None]:
    """Mean planted effect (,) and slope through the origin over the items (N,) whose truth is known."""
    known = np.array([item is not None for item in truth])
    planted = np.array([item for item in truth if item is not None], dtype=np.float64)
    if not (planted**2).sum() > 0:
        return {"planted": None, "slope": None}
    return {"planted": float(planted.mean()), "slope": float((values[known] * planted).sum() / (planted**2).sum())}


def gates_table(results: Results, evaluate: Evaluate) -> pl.DataFrame:
    """Mean gate and expert weights by split (family and group empty) and by group; `spread`: standard deviation over posts of the mean over seeds."""
    rows = []
    for method, by_split in results.answers.items():
        for split, answers in by_split.items():
            parts = [("", "", np.ones(len(answers.ids), dtype=bool))] if answers.weights else []
            if answers.weights:
                parts += [(family, name, answers.items.groups[family] == name) for family, name in groups.cells(answers.items.groups, groups.MIN_ITEMS)]
            for family, group, inside in parts:
                place = {"method": method, "split": split, "family": family, "group": group, "n": int(inside.sum())}
                for kind, titles in weight_names(answers.weights).items():
                    rows += [place | {"kind": kind} | one for one in _gate_rows(titles, answers.weights[kind][:, inside], evaluate, split, family, group)]
    return _frame(rows, _schema("method split family group kind name", "mean low high spread", "n"))


def weight_names(weights: Mapping[str, Array]) -> dict[str, list[str]]:
    """What each column of gates and experts (S, N, E) is called: `text 2` is the second expert of the gate T, `expert 3` one of no kind."""
    found = {}
    for kind, cube in weights.items():
        count = cube.shape[-1]
        each, rest = divmod(count, len(GATES))
        if kind == "gates":
            found[kind] = list(GATES)
        elif "gates" in weights and not rest:
            found[kind] = [f"{KINDS[GATES[i // each]]} {i % each + 1}" for i in range(count)]
        else:
            found[kind] = [f"expert {i + 1}" for i in range(count)]
    return found


def _gate_rows(titles: Sequence[str], cube: Array, evaluate: Evaluate, *names: str) -> list[dict[str, Any]]:
    found = []
    for i, title in enumerate(titles):
        mean = _mean_of(cube[..., i], evaluate, *names, bounds=(0.0, 1.0))
        found.append({"name": title, "mean": mean.mean, "low": mean.low, "high": mean.high, "spread": float(cube[..., i].mean(0).std())})
    return found


def reliability_table(results: Results) -> pl.DataFrame:
    """Confidence against accuracy per bin, pooled over seeds, before and after the temperature; empty bins left out."""
    rows = []
    for method, by_split in results.answers.items():
        for split, answers in by_split.items():
            for when, p in (("raw", answers.items.p), ("calibrated", answers.items.calibrated)):
                if p is None:
                    continue
                for i, (count, confidence, accuracy) in enumerate(zip(*calibration.reliability(p, answers.items), strict=True)):
                    if count:
                        place = {"method": method, "split": split, "when": when, "bin": i}
                        rows.append(place | {"n": int(count), "confidence": confidence, "accuracy": accuracy})
    return _frame(rows, _schema("method split when", "confidence accuracy", "bin n"))


def temperature_table(results: Results) -> pl.DataFrame:
    """The temperature fitted on validation, per method and seed."""
    rows = [{"method": m, "seed": s, "temperature": t} for m, found in results.temperatures.items() for s, t in zip(results.seeds, found.tolist(), strict=True)]
    return _frame(rows, _schema("method", "temperature", "seed"))


def history_table(histories: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Train loss and validation accuracy per epoch, mean over seeds; methods fitted in one go (epoch 0) have no curve."""
    rows = []
    for method, history in histories.items():
        for (epoch,), part in sorted(history.filter(pl.col("epoch") > 0).group_by(["epoch"]), key=lambda item: item[0]):
            means = {"train_loss": part["train/loss"].mean(), "valid_accuracy": part["valid/factual"].mean()}
            rows.append({"method": method, "epoch": epoch, "seeds": part["seed"].n_unique(), **means})
    return _frame(rows, _schema("method", "train_loss valid_accuracy", "epoch seeds"))


def plot_tables(results: Results, facts: Facts, evaluate: Evaluate, histories: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """File name (without .csv) -> table, for everything under plots/."""
    return {
        "id_vs_ood": id_vs_ood(results),
        "groups": group_table(results),
        "effects": effects_table(results, facts, evaluate),
        "gates": gates_table(results, evaluate),
        "reliability": reliability_table(results),
        "temperature": temperature_table(results),
        "history": history_table(histories),
        "tests": mcnemar_table(results),
        "controls": controls_table(results, evaluate),
    }


def detectable(results: Results, split: str, metric: str = "accuracy") -> float | None:
    """Median over methods of the smallest difference from the reference that a study of this size finds with 80 % power."""
    found = [row.detectable for row in results.rows if row.split == split and row.metric == metric and row.detectable]
    return float(np.median(found)) if found else None


def small_groups(results: Results) -> list[str]:
    """Groups of a test split that are too small for the worst group, named with their size."""
    first = next(iter(results.answers.values()))
    found = []
    for split, answers in first.items():
        for family, names in answers.items.groups.items():
            values, counts = np.unique(names[names != ""], return_counts=True)
            found += [f"{split}: {family} {v} ({n})" for v, n in zip(values.tolist(), counts.tolist(), strict=True) if n < groups.MIN_ITEMS]
    return found


def verdict(row: Row | None, alpha: float) -> str:
    """`better`, `worse` or `same` as the reference after Holm; empty where nothing is compared."""
    if row is None or row.p_holm is None or row.difference is None or row.higher_is_better is None:
        return ""
    if row.p_holm >= alpha:
        return "same"
    return "better" if (row.difference > 0) == row.higher_is_better else "worse"
