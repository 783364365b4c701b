"""Which part of `params.yaml` each stage reads, and which jobs a run consists of: the arithmetic behind the workflow rules.

A stage receives exactly the settings it reads, with defaults filled in, as one canonical JSON string: a setting that a stage does not
see cannot re-run it, and writing a default out changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from causalroute.config import Config, Dataset, Replicates
from causalroute.errors import UserError
from causalroute.io import canonical_json, sha256_bytes
from causalroute.provenance import code_hash, constants
from causalroute.variants import module_of, parent_of

COMMON = {"format", "table", "task", "classes"}
LOOKING = ("saliency", "attention", "similarity", "occlusion")
"""Image editors that ask a model."""
PROBES = ("text_only", "image_only")
"""Methods whose answers make the groups of a report (`causalroute.evaluation.groups`)."""
DATASET_FIELDS: dict[str, set[str]] = {  # fields of a data set that a stage reads; the others reach it as their defaults
    "fetch": {"format", "table", "task", "sources", "planted"},
    "prepare": {field.name for field in dataclasses.fields(Dataset)} - {"backbone", "editor", "held_out", "looker", "methods", "search", "ablation"},
    "audit": COMMON,
    "features": COMMON,
    "counterfactuals": COMMON,
    "gate": COMMON,
    "gallery": COMMON,
    "grade": COMMON | {"editor"},
    "search": COMMON | {"backbone", "editor"},
    "train": COMMON | {"positive", "backbone", "editor"},
    "evaluate": COMMON | {"positive", "backbone", "editor", "held_out"},
    "report": COMMON | {"positive", "backbone", "editor", "held_out", "methods"},
    "ablate": COMMON | {"positive", "methods", "ablation"},
}
UNREAD: dict[str, Any] = {"classes": ["a", "b"], "backbone": "", "editor": "", "methods": [], "sources": []}  # stand-ins for fields without default
SECTIONS: dict[str, tuple[str, ...]] = {  # sections of --config, as the stage parses them
    "fetch": ("dataset",),
    "prepare": ("dataset",),
    "audit": ("dataset", "audit"),
    "pretrain": ("backbone",),
    "features": ("dataset", "backbone"),
    "tokens": ("backbone",),
    "counterfactuals": ("dataset", "editor", "backbone"),
    "gate": ("dataset", "gate"),
    "gallery": ("dataset", "gate"),
    "grade": ("dataset",),
    "search": ("dataset", "train", "search", "method"),
    "train": ("dataset", "train", "method", "searched", "backbone"),
    "evaluate": ("dataset", "evaluate", "method", "backbone"),
    "report": ("dataset", "evaluate", "replicates", "methods", "searched", "made_by"),
    "ablate": ("dataset", "evaluate", "replicates"),
}


def stage_config(config: Config, stage: str, *, dataset: str = "", method: str = "", editor: str = "", backbone: str = "") -> str:
    """The `--config` of one job: canonical JSON of the sections its stage reads.

    Args:
        config: the whole configuration.
        stage: a key of `SECTIONS`.
        dataset: which data set the job works on; likewise `method`, `editor`, `backbone`. An empty editor or backbone leaves that section out,
            and so does a search that is not made, or a method that reads features alone where the stage works with a method.
    """
    backbone = _read_with(config, dataset, method) if stage in ("train", "evaluate") else backbone
    every = {
        "dataset": lambda: dataset_section(_seen(config, stage, dataset), stage),
        "replicates": lambda: dataclasses.asdict(ablation_replicates(config) if stage == "ablate" else config.replicates),
        "searched": lambda: searched(config, dataset, [method] if method else config.datasets[dataset].methods) or None,
        "method": lambda: config.methods[method],
        "editor": lambda: dataclasses.asdict(config.editors[editor]) if editor else None,
        "backbone": lambda: dataclasses.asdict(config.backbones[backbone]) if backbone else None,
        "methods": lambda: {name: config.methods[name] for name in config.datasets[dataset].methods},
        "made_by": lambda: made_by(config, dataset),
    }
    sections = {key: every[key]() if key in every else dataclasses.asdict(getattr(config, key)) for key in SECTIONS[stage]}
    return canonical_json({key: value for key, value in sections.items() if value is not None})


def reads(method: str) -> str:
    """What a method reads besides the features of whole sides, from its module's `READS`: "posts" (raw, with the backbone), "tokens", published "rewrites" of
    train posts, or nothing (empty)."""
    return str(constants(f"causalroute.methods.{module_of(method)}").get("READS", ""))


def _read_with(config: Config, dataset: str, method: str) -> str:
    """The backbone that such a method reads with; empty where it reads features alone."""
    wanted = reads(method)
    if not wanted:
        return ""
    name = config.datasets[dataset].backbone
    mllm = config.backbones[name].kind == "mllm"
    if wanted == "tokens" and mllm:
        fix = f"leave {method} out of `methods`, or name a backbone of another kind; lora_moe routes the tokens of a multimodal LLM"
        raise UserError(f"the method {method!r} wants features of tokens, which {name!r} does not keep", where=f"datasets.{dataset}.backbone", fix=fix)
    if wanted == "posts" and not mllm:
        fix = f"leave {method} out of `methods`, or name a backbone of kind mllm"
        raise UserError(f"the method {method!r} trains inside a multimodal LLM, which {name!r} is not", where=f"datasets.{dataset}.backbone", fix=fix)
    return name


def _seen(config: Config, stage: str, dataset: str) -> Dataset:
    """A data set with the rows that the stage reads as its methods."""
    chosen = config.datasets[dataset]
    return dataclasses.replace(chosen, methods=tuple(ablation_rows(config, dataset))) if stage == "ablate" else chosen


def dataset_section(dataset: Dataset, stage: str) -> dict[str, Any]:
    """A data set's settings as `stage` sees them: what it does not read is left at its default, or is a fixed stand-in."""
    values = dataclasses.asdict(dataset)
    return UNREAD | {key: value for key, value in values.items() if key in DATASET_FIELDS[stage]}


def made_by(config: Config, dataset: str) -> dict[str, str]:
    """Digests of the settings and of the code of every job that the results of a data set come from: equal ones mean the same run.

    Raises:
        UserError: a module that params.yaml names does not exist.
    """
    jobs = result_jobs(config, dataset)
    settings = [canonical_json({"stage": stage, **names}) + stage_config(config, stage, **names) for stage, names in jobs]
    modules = {module for stage, names in jobs for module in plugins(config, stage, **{key: name for key, name in names.items() if key != "backbone"})}
    shared = canonical_json({"evaluate": dataclasses.asdict(config.evaluate), "replicates": dataclasses.asdict(config.replicates)})
    digest = sha256_bytes(*(text.encode() for text in (*settings, shared)))
    return {"settings": digest[:16], "code": code_hash("causalroute.stages.report", *sorted(modules))}


def result_jobs(config: Config, dataset: str) -> list[tuple[str, dict[str, str]]]:
    """(stage, names as `stage_config` takes them) of every job before the report; the gallery is not among them, for no result comes from it."""
    chosen, named = config.datasets[dataset], {"dataset": dataset}
    looking = looker(config, dataset)
    backbones = list(dict.fromkeys([chosen.backbone, looking]))
    found = [(stage, named) for stage in ("fetch", "prepare", "audit", "grade")]
    found += [("pretrain", {"backbone": name}) for name in backbones if config.backbones[name].pretrain]
    found += [("features", {**named, "backbone": name}) for name in backbones]
    found += [("tokens", {**named, "backbone": chosen.backbone})] if token_views(config, dataset, chosen.methods) else []
    found += [("counterfactuals", {**named, "editor": editor, "backbone": looking}) for editor in graded_editors(config, dataset)]
    found += [("gate", {**named, "editor": editor}) for editor in feature_editors(config, dataset)]
    found += [("search", {**named, "method": method}) for method in searched(config, dataset, chosen.methods)]
    return found + [(stage, {**named, "method": method}) for stage in ("train", "evaluate") for method in chosen.methods]


def chunks(replicates: Replicates) -> list[str]:
    """Seeds of each training job, `per_job` at a time from 0 on: 6 seeds, 5 a job -> ["0-4", "5-5"]."""
    starts = range(0, replicates.seeds, replicates.per_job)
    return [f"{first}-{min(first + replicates.per_job, replicates.seeds) - 1}" for first in starts]


def searched(config: Config, dataset: str, methods: Iterable[str]) -> list[str]:
    """Those of `methods` whose settings are chosen on validation posts: the data set wants it, and `SEARCH` names some that params.yaml leaves open."""
    if not config.datasets[dataset].search:
        return []
    return [method for method in methods if _space(method).keys() - config.methods[method].keys()]


def _space(method: str) -> dict[str, Any]:
    found = constants(f"causalroute.methods.{module_of(method)}").get("SEARCH", {})
    if not isinstance(found, dict):
        fix = 'write SEARCH = {"<setting>": (<value>, <value>)}, with literal values'
        raise UserError(f"SEARCH of {module_of(method)!r} is no mapping", where=f"causalroute/methods/{module_of(method)}.py", fix=fix)
    return found


def ablation_rows(config: Config, dataset: str) -> list[str]:
    """Methods that an ablation reads: each method with its variants behind it, a derived one behind that it comes from, and before them those that make the
    groups; none without variants."""
    chosen = config.datasets[dataset]
    parents = sorted(dict.fromkeys(map(parent_of, chosen.ablation)), key=lambda name: parent_of(name) != name)
    rows = [row for parent in parents for row in (parent, *(variant for variant in chosen.ablation if parent_of(variant) == parent))]
    return list(dict.fromkeys([*(probe for probe in PROBES if rows and probe in chosen.methods), *rows]))


def ablation_replicates(config: Config) -> Replicates:
    """Seeds of the ablation, in jobs of the same size as those of the result table."""
    return dataclasses.replace(config.replicates, seeds=config.ablation.seeds or config.replicates.seeds)


def method_editor(config: Config, dataset: str, method: str) -> str | None:
    """The editor whose counterfactuals a method trains on, from its module's `EDITOR`: None, "dataset" or the name of an editor."""
    name = constants(f"causalroute.methods.{module_of(method)}").get("EDITOR")
    editor = config.datasets[dataset].editor if name == "dataset" else name
    if editor is not None and editor not in config.editors:
        raise UserError(
            f"the method {method!r} needs the editor {editor!r}", where="params.yaml: editors", fix=f"add `{editor}` to `editors`, or leave the method out"
        )
    return None if editor is None else str(editor)


def evaluation_editor(config: Config, dataset: str, method: str) -> str:
    """The editor whose views `evaluate` looks at: the one a method trained on, else the data set's own."""
    return method_editor(config, dataset, method) or config.datasets[dataset].editor


def feature_editors(config: Config, dataset: str) -> list[str]:
    """Editors whose views are encoded: all that some method of the data set is trained or evaluated with."""
    chosen = config.datasets[dataset]
    used = [evaluation_editor(config, dataset, method) for method in chosen.methods]
    return list(dict.fromkeys([*used, *filter(None, [chosen.held_out])]))


def token_views(config: Config, dataset: str, methods: Iterable[str]) -> list[str]:
    """Of which views the features of single tokens and patches are made: "factual" and the editors that a method on tokens is trained and evaluated with;
    of the posts alone where an editor's image views are pooled from patches; none otherwise.

    Raises:
        UserError: a method on tokens meets an editor whose image views are pooled.
    """
    routed = [method for method in methods if reads(method) == "tokens"]
    editors = [evaluation_editor(config, dataset, method) for method in routed] + ([config.datasets[dataset].held_out] if routed else [])
    pooled = [editor for editor in feature_editors(config, dataset) if config.editors[editor].level == "patches"]
    if both := sorted({*pooled} & {*editors}):
        what = f"the method {routed[0]!r} wants features of patches in every view, and {both[0]!r} pools its image views, so that none is left"
        raise UserError(what, where=f"params.yaml: editors.{both[0]}.level", fix=f"write `level: pixels`, or leave {routed[0]} out")
    return list(dict.fromkeys([*(["factual"] if routed or pooled else []), *filter(None, editors)]))


def looker(config: Config, dataset: str) -> str:
    """The backbone that the editors of a data set look at posts with; its own where none of them looks.

    Raises:
        UserError: an editor asks the model, and a multimodal LLM cannot be asked so.
    """
    chosen = config.datasets[dataset]
    asking = [editor for editor in feature_editors(config, dataset) if needs_features(config, editor)]
    name = (chosen.looker if asking else "") or chosen.backbone
    pooled = [editor for editor in asking if config.editors[editor].level == "patches"]
    if asking and "mllm" in (config.backbones[name].kind, config.backbones[chosen.backbone if pooled else name].kind):
        what = f"the editor {asking[0]!r} asks for single patches and words, which a multimodal LLM does not give"
        fix = "name another backbone as `looker` of the data set, such as a CLIP model, or choose an editor that asks none"
        raise UserError(what, where=f"params.yaml: datasets.{dataset}", fix=fix)
    return name


def graded_editors(config: Config, dataset: str) -> list[str]:
    """Editors that `grade` compares: those in use, and for planted data the random one as a control."""
    control = ["random"] if config.datasets[dataset].format == "planted" and "random" in config.editors else []
    return list(dict.fromkeys([config.datasets[dataset].editor, *feature_editors(config, dataset), *control]))


def needs_features(config: Config, editor: str) -> bool:
    """Whether an editor looks at the backbone and at factual features, or its image views are pooled from them."""
    chosen = config.editors[editor]
    return chosen.text == "occlusion" or chosen.image in LOOKING or chosen.level == "patches"


def needs_truth(config: Config, editor: str) -> bool:
    """Whether an editor copies the planted truth."""
    return "truth" in (config.editors[editor].text, config.editors[editor].image)


def plugins(config: Config, stage: str, *, dataset: str = "", method: str = "", editor: str = "") -> list[str]:
    """Modules that a job imports by name at run time, which its import closure cannot show."""
    names = [f"causalroute.stages.{stage}"]
    if stage == "fetch":
        names += [f"causalroute.data.sources.{source.kind}" for source in config.datasets[dataset].sources]
    if stage == "prepare":
        names.append(f"causalroute.data.formats.{config.datasets[dataset].format}")
    if stage == "ablate":
        names += [f"causalroute.methods.{name}" for name in dict.fromkeys(map(module_of, ablation_rows(config, dataset)))]
    if method:
        names.append(f"causalroute.methods.{module_of(method)}")
    if editor:
        names += [f"causalroute.counterfactual.text.{config.editors[editor].text}", f"causalroute.counterfactual.image.{config.editors[editor].image}"]
    return names
