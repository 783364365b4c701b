"""The model card in the Hugging Face format: YAML that hubs read (model-index), then what a person should know before using the model.

It is made of plain mappings, so that the report of a run and the folder of a saved model have the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from causalroute.evaluation.collect import TESTS
from causalroute.evaluation.scoring import REFERENCE
from causalroute.report.blocks import code, percent
from causalroute.report.claims import TITLES
from causalroute.report.markdown import escape, sentence
from causalroute.report.tables import rounded

INDEX = {"accuracy": ("accuracy", "Accuracy"), "f1_macro": ("f1", "Macro F1"), "worst_group": ("accuracy", "Worst-group accuracy")}
"""Metric of metrics.json -> type and name in the model-index."""
SHOWN = {"accuracy": "accuracy", "f1_macro": "macro F1", "worst_group": "worst group", "consistency_tv": "consistency", "ece_calibrated": "ECE, calibrated"}
SPLITS = {
    "id": "test posts like the training posts",
    "ood": "test posts where the shortcut misleads",
    "neutral": "test posts where the shortcut says nothing",
    "clean": "test posts without the injected cue",
}
VISUAL = {"image": "an image", "attributes": "published attribute words of an image (it never saw the image itself)", "none": "no visual side"}
Metrics = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]


def card(config: Mapping[str, Any], metrics: Metrics) -> str:
    """README.md of a model.

    Args:
        config: `dataset`, `task`, `classes`, `method`, `reference` (the biased model beside it, or ""), `visual` (image, attributes or none), `backbone` (name
            or hub id), `seeds` (how many, or which), `made_by` (name -> version or digest); `base_model` (a hub id) where the backbone is on the hub,
            `looker` where another encoder than the backbone finds the cores of images, `confidence` of the intervals where it is not .95.
        metrics: content of metrics.json: method -> split -> metric -> mean, low, high, seeds.
    """
    method, reference = str(config["method"]), str(config.get("reference") or "")
    splits = [split for split in TESTS if "accuracy" in metrics.get(method, {}).get(split, {})]
    parts = [
        "---\n" + yaml.safe_dump(_front(config, metrics, splits), sort_keys=False, allow_unicode=True, width=1000) + "---",
        f"# {escape(_name(config))}",
        _about(config),
        "## Intended use\n\n" + _use(config),
        "## Results\n\n" + _results(metrics, method, reference, splits),
        "## How it was measured\n\n" + _measured(config, splits),
        "## Limits\n\n" + _limits(config, metrics, splits),
        "## Made by\n\n" + "\n".join(f"- {escape(str(key))}: {escape(str(value))}" for key, value in config.get("made_by", {}).items()),
    ]
    return "\n\n".join(parts) + "\n"


def _name(config: Mapping[str, Any]) -> str:
    return f"{config['dataset']}: {config['task']} with {config['method']}"


def _front(config: Mapping[str, Any], metrics: Metrics, splits: list[str]) -> dict[str, Any]:
    """The metadata block; libraries of the hub read the model-index, numbers with six decimals as in metrics.json."""
    found = metrics.get(str(config["method"]), {})
    results = [
        {
            "task": {"type": "text-classification", "name": str(config["task"])},
            "dataset": {"type": str(config["dataset"]), "name": f"{config['dataset']} ({TITLES[split]}: {SPLITS[split]})", "split": split},
            "metrics": [_indexed(metric, found[split][metric]) for metric in INDEX if metric in found[split]],
        }
        for split in splits
    ]
    front: dict[str, Any] = {"library_name": "causalroute", "tags": ["causalroute", "debiasing", "multimodal", "spurious-correlations"]}
    if base := config.get("base_model"):
        front["base_model"] = str(base)
    front["metrics"] = ["accuracy", "f1"]
    return {**front, "model-index": [{"name": _name(config), "results": results}]} if results else front


def _indexed(metric: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    kind, name = INDEX[metric]
    interval = {end: rounded(entry[end]) for end in ("low", "high")}
    return {"type": kind, "name": name, "value": rounded(entry["mean"]), "args": {**interval, "seeds": entry["seeds"]}}


def _about(config: Mapping[str, Any]) -> str:
    classes = ", ".join(escape(str(one)) for one in config["classes"])
    sides = f"a text and {VISUAL[config['visual']]}" if config["visual"] != "none" else "a text alone"
    beside = f" Beside its answer it can give that of `{config['reference']}`, trained plainly on the same posts." if config.get("reference") else ""
    looker = f" (the cores of images are found by {code(str(config['looker']))})" if config.get("looker") else ""
    return (
        f"Reads {sides} and tells the class ({classes}): heads trained by `{config['method']}` on features of the frozen backbone "
        f"{code(str(config['backbone']))}{looker}, so that they do not lean on shortcuts: "
        f"cues of how a post was made or collected that go with a class.{beside}"
    )


def _use(config: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"- For posts like those of {escape(str(config['dataset']))}, and for studying how far a classifier leans on shortcuts.",
            "- Not for decisions about people without a person who checks them: the answer is a class of this data set, not a fact about an author.",
            "- Not for other tasks, languages or sources of posts without measuring there first.",
        ]
    )


def _results(metrics: Metrics, method: str, reference: str, splits: list[str]) -> str:
    models = [one for one in dict.fromkeys([method, reference]) if one in metrics]
    used = [metric for metric in SHOWN if any(metric in metrics[one].get(split, {}) for one in models for split in splits)]
    if not used:
        return "No test posts were measured."
    rows = [["posts", "model", *(SHOWN[metric] for metric in used)], ["---", "---", *(["---:"] * len(used))]]
    rows += [[TITLES[split], f"`{one}`", *(_cell(metrics[one].get(split, {}).get(metric)) for metric in used)] for split in splits for one in models]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(entry: Mapping[str, Any] | None) -> str:
    return "–" if entry is None else f"{percent(entry['mean'])} [{percent(entry['low'])}, {percent(entry['high'])}]"


def _measured(config: Mapping[str, Any], splits: list[str]) -> str:
    seeds = config["seeds"] if isinstance(config["seeds"], int) else len(config["seeds"])
    posts = "; ".join(f"{TITLES[split]}: {SPLITS[split]}" for split in splits)
    return (
        f"Percent, mean over {seeds} training seed{'s' if seeds > 1 else ''}, in brackets its {100 * config.get('confidence', 0.95):g} % interval "
        f"over seeds and test posts jointly. {posts}. "
        "Worst group: lowest accuracy over groups of posts. Consistency: answer kept when both contexts are those of another post. ECE: after one temperature "
        "fitted on validation posts. Epoch and temperature were chosen on validation posts, nothing on test posts."
    )


def _limits(config: Mapping[str, Any], metrics: Metrics, splits: list[str]) -> str:
    method = str(config["method"])
    found = ["Which words and regions count as context was estimated from the training posts; a cue that the editor missed may still be used."]
    if "ood" not in splits:
        found.append("There were no posts where the shortcut misleads: how much the model still leans on it was seen on groups and swapped contexts alone.")
    worst = [(TITLES[split], metrics[method][split]["worst_group"]) for split in splits if "worst_group" in metrics[method][split]]
    if worst:
        place, entry = min(worst, key=lambda one: one[1]["mean"])
        found.append(f"In its worst group ({place}) it is right in {_cell(entry)} % of cases.")
    if (other := config.get("reference") or REFERENCE) in metrics and "id" in splits:
        ours, theirs = (metrics[one]["id"]["accuracy"]["mean"] for one in (method, other))
        found.append(f"On posts like the training posts it is right in {percent(ours)} % of cases, `{other}` in {percent(theirs)} %.")
    found.append("Posts of no class, or of a class that is not listed, get one of the listed classes all the same.")
    found.append("The terms of the backbone and of the data hold for the model as well.")
    return "\n".join(f"- {sentence(one)}" for one in found)
