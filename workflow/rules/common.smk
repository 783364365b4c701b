"""What the rules share: the checked settings, the jobs of a run, and how a stage is called."""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from causalroute import layout, plan, provenance, schema
from causalroute.errors import UserError


def told(function, *arguments, **named):
    """Calls `function`; a user's mistake ends the run with its message instead of a traceback."""
    try:
        return function(*arguments, **named)
    except UserError as error:
        raise WorkflowError(str(error)) from None


CONFIG = told(schema.check, config, root=Path(workflow.basedir))
LOCK = provenance.RunLock(Path(".snakemake/run.lock"))


def names(known):
    """A wildcard constraint: one of the names, nothing else."""
    return "|".join(sorted(known))


wildcard_constraints:
    dataset=names(CONFIG.datasets),
    backbone=names(CONFIG.backbones),
    editor=names(CONFIG.editors),
    views=names(["factual", *CONFIG.editors]),
    method=names(CONFIG.methods),
    seeds=r"\d+-\d+",


# Recorded nowhere, so that a checkout may move: the interpreter that runs Snakemake runs the stages, on the very package that this file has imported:
# that of the checkout, or the installed one. Passes of an image model take and give back memory by the hundred megabytes; in large pages a seventh faster.
shell.prefix(
    f"set -euo pipefail; export PATH='{Path(sys.executable).parent}':$PATH PYTHONPATH='{provenance.SOURCE}' PYTHONHASHSEED=0 "
    "OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1 "
    "THP_MEM_ALLOC_ENABLE=1; "
)


def settings(stage):
    """`params: config=` of a rule: what the job reads of params.yaml, as canonical JSON."""
    return lambda wildcards: told(plan.stage_config, CONFIG, stage, **_names(wildcards))


def code(stage):
    """`params: code=` of a rule: a hash of the code that the job can reach."""

    def hashed(wildcards):
        found = {
            key: name for key, name in _names(wildcards).items() if key != "backbone"
        }
        return told(lambda: provenance.code_hash(*plan.plugins(CONFIG, stage, **found)))

    return hashed


def shown(path, caption, what, group="results"):
    """`report()` of an output: pages that show posts have none, for a report of the workflow is meant to be passed on."""
    return report(
        path,
        caption=f"../report/{caption}.rst",
        category="{dataset}",
        subcategory=group,
        labels={"what": what, "format": Path(path).suffix[1:]},
    )


def _names(wildcards):
    named = {
        key: name
        for key, name in wildcards.items()
        if key in ("dataset", "method", "editor", "backbone")
    }
    if "editor" in named and "dataset" in named and "backbone" not in named:
        named["backbone"] = told(plan.looker, CONFIG, named["dataset"])
    return named


def backbone_files(name):
    """Files of a backbone that the run trains itself; none for one that is downloaded or local."""
    return rules.pretrain.output if CONFIG.backbones[name].pretrain else []


def view_files(editor, dataset):
    """The counterfactuals of an editor, the features of their views, and how they did at the gate."""
    name = CONFIG.datasets[dataset].backbone
    return [
        layout.counterfactuals(dataset, editor),
        layout.features(dataset, name, editor),
        layout.gate(dataset, editor),
    ]


def editing_inputs(wildcards):
    """What one editor looks at beside the posts: features of the backbone, or the planted truth."""
    dataset, editor = wildcards.dataset, wildcards.editor
    name = told(plan.looker, CONFIG, dataset)
    looks = (
        [layout.features(dataset, name, "factual"), *backbone_files(name)]
        if plan.needs_features(CONFIG, editor)
        else []
    )
    return expand(looks, backbone=name) + (
        [layout.truth(dataset)] if plan.needs_truth(CONFIG, editor) else []
    )


def pooled_inputs(wildcards):
    """Factual features and those of their patches, where an editor's image views are pooled from them; nothing where they are encoded."""
    if CONFIG.editors[wildcards.editor].level == "pixels":
        return []
    dataset, name = wildcards.dataset, wildcards.backbone
    return [
        layout.features(dataset, name, "factual"),
        layout.tokens(dataset, name, "factual"),
    ]


def token_inputs(wildcards):
    """The counterfactuals of the editor whose views are encoded; nothing for the posts as they are."""
    if wildcards.views == "factual":
        return []
    return layout.counterfactuals(wildcards.dataset, wildcards.views)


def gate_inputs(wildcards):
    """Features of the posts and of one editor's views."""
    dataset, editor = wildcards.dataset, wildcards.editor
    name = CONFIG.datasets[dataset].backbone
    return [layout.features(dataset, name, views) for views in ("factual", editor)]


def graded_inputs(wildcards):
    """Counterfactuals of every editor that is compared with the truth."""
    return [
        layout.counterfactuals(wildcards.dataset, editor)
        for editor in told(plan.graded_editors, CONFIG, wildcards.dataset)
    ]


def of_methods(pattern, dataset):
    """One file per method and training job of a data set."""
    return expand(
        pattern,
        dataset=dataset,
        method=CONFIG.datasets[dataset].methods,
        seeds=plan.chunks(CONFIG.replicates),
    )


def of_ablation(pattern, dataset):
    """One file per row and training job of a data set's ablation."""
    return expand(
        pattern,
        dataset=dataset,
        method=told(plan.ablation_rows, CONFIG, dataset),
        seeds=plan.chunks(plan.ablation_replicates(CONFIG)),
    )


def searches(dataset, methods):
    """The searches made for some of a data set's methods."""
    found = told(plan.searched, CONFIG, dataset, methods)
    return [str(layout.search(dataset, method)) for method in found]


def search_inputs(wildcards):
    """What the method trains on, and the views of the data set's own editor, by which all candidates are judged."""
    dataset = wildcards.dataset
    trained = told(plan.evaluation_editor, CONFIG, dataset, wildcards.method)
    editors = sorted({trained, CONFIG.datasets[dataset].editor})
    views = [path for editor in editors for path in view_files(editor, dataset)]
    return posts_files(dataset) + views


def training_inputs(wildcards):
    """Manifest, factual features, where the method trains on them the views of its editor, and the search of its settings if there is one."""
    editor = told(plan.method_editor, CONFIG, wildcards.dataset, wildcards.method)
    views = view_files(editor, wildcards.dataset) if editor else []
    found = searches(wildcards.dataset, [wildcards.method])
    return (
        posts_files(wildcards.dataset)
        + views
        + found
        + further_files(wildcards, editor)
    )


def evaluation_inputs(wildcards):
    """The same, for methods that train without counterfactuals the views of the data set's own editor, and those of the held-out editor."""
    dataset = wildcards.dataset
    editor = told(plan.evaluation_editor, CONFIG, dataset, wildcards.method)
    held_out = CONFIG.datasets[dataset].held_out
    files = posts_files(dataset) + view_files(editor, dataset)
    files += further_files(wildcards, *dict.fromkeys(filter(None, [editor, held_out])))
    return files + (view_files(held_out, dataset) if held_out else [])


def further_files(wildcards, *editors):
    """What a method needs beside features of whole sides: the posts as they came and the reference image, features of their tokens, or published rewrites; most
    need nothing."""
    dataset, wanted = wildcards.dataset, plan.reads(wildcards.method)
    if wanted == "tokens":
        name = CONFIG.datasets[dataset].backbone
        return [layout.tokens(dataset, name, view) for view in ("factual", *editors)]
    found = {
        "posts": [layout.source(dataset), layout.reference_image(dataset)],
        "rewrites": [layout.rewrites(dataset)],
    }
    return found.get(wanted, [])


def token_files(dataset, methods):
    """Features of single tokens and patches, as far as some of these methods, or an editor, look at them."""
    name = CONFIG.datasets[dataset].backbone
    views = told(plan.token_views, CONFIG, dataset, methods)
    return [str(layout.tokens(dataset, name, view)) for view in views]


def memory(wildcards):
    """`mem_mb` of a job with a method: one that reads raw posts holds a language model, and runs alone where memory is counted."""
    wanted = plan.reads(wildcards.method)
    wide = wanted == "tokens" or backbone_of(wildcards).kind == "mllm"
    return 24000 if wanted == "posts" else 8000 if wide else 3000


def encoding_memory(wildcards):
    """`mem_mb` of a job that encodes: a multimodal LLM has its weights in memory before they are on a device."""
    return 6000 if backbone_of(wildcards).kind != "mllm" else 24000


def encoding_minutes(plain):
    """`runtime` of a job that encodes: a day where a multimodal LLM does."""
    return lambda wildcards: (plain if backbone_of(wildcards).kind != "mllm" else 1440)


def backbone_of(wildcards):
    """The settings of the backbone that a job reads or runs."""
    name = (
        getattr(wildcards, "backbone", "")
        or CONFIG.datasets[wildcards.dataset].backbone
    )
    return CONFIG.backbones[name]


def minutes(plain):
    """`runtime` of a job with a method: a day where it reads raw posts or tokens."""
    return lambda wildcards: (
        1440 if plan.reads(wildcards.method) in ("posts", "tokens") else plain
    )


def posts_files(dataset):
    """The posts and their factual features."""
    return [
        layout.manifest(dataset),
        layout.features(dataset, CONFIG.datasets[dataset].backbone, "factual"),
    ]


def targets():
    """Every output of every job of the run: in a fresh clone, where some results are in git, nothing less would start it."""
    return [path for dataset in CONFIG.run for path in told(dataset_targets, dataset)]


def dataset_targets(dataset):
    chosen = CONFIG.datasets[dataset]
    jobs = {
        "dataset": dataset,
        "backbone": chosen.backbone,
        "method": chosen.methods,
        "seeds": plan.chunks(CONFIG.replicates),
    }
    parts = [
        rules.fetch.output,
        rules.prepare.output,
        rules.audit.output,
        rules.reference.output,
        rules.grade.output,
        rules.gallery.output,
        rules.train.output,
        rules.evaluate.output,
        rules.report.output,
    ]
    plain = [path for part in parts for path in expand(part, **jobs)]
    looked = told(plan.looker, CONFIG, dataset)
    for name in dict.fromkeys([chosen.backbone, looked]):
        plain += expand(
            [*backbone_files(name), *rules.features.output],
            dataset=dataset,
            backbone=name,
        )
    edited = expand(
        rules.counterfactuals.output,
        editor=plan.graded_editors(CONFIG, dataset),
        **jobs,
    )
    views = expand(
        [*rules.views.output, *rules.gate.output],
        editor=plan.feature_editors(CONFIG, dataset),
        **jobs,
    )
    tokens = token_files(dataset, chosen.methods)
    return plain + edited + views + tokens + searches(dataset, chosen.methods)


def ablation_targets():
    """Every output of every job of the ablations, none of which `rule all` asks for."""
    return [path for dataset in CONFIG.run for path in dataset_ablation(dataset)]


def dataset_ablation(dataset):
    rows = told(plan.ablation_rows, CONFIG, dataset)
    if not rows:
        return []
    trained = of_ablation([*rules.train.output, *rules.evaluate.output], dataset)
    made = expand(rules.ablate.output, dataset=dataset)
    return trained + token_files(dataset, rows) + searches(dataset, rows) + made


def ablation_inputs(wildcards):
    """The same, when they are asked for: then there must be some."""
    fix = (
        "name variants under `ablation` of a data set in params.yaml (docs/methods.md)"
    )
    return ablation_targets() or told(
        refuse, "no data set of this run has variants to compare", fix
    )


def refuse(what, fix):
    """A user's mistake that no other function finds."""
    raise UserError(what, where="params.yaml: datasets", fix=fix)


def start():
    """Runs before the first job: one run at a time, and none on results that came from nowhere."""
    told(LOCK.acquire)


def check_record():
    """Refuses result files without Snakemake's record of them; small reports are in git, where a clone has them without one."""
    told(
        provenance.guard,
        [
            path
            for path in targets() + ablation_targets()
            if not str(path).startswith("reports/")
        ],
    )
