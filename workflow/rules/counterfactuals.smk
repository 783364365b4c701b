rule reference:
    input:
        manifest=rules.prepare.output.manifest,
    output:
        "counterfactuals/{dataset}/reference.png",
    log:
        "logs/{dataset}/counterfactuals/reference.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        config=settings("counterfactuals"),
        code=code("counterfactuals"),
    shell:
        "python -m causalroute.stages.counterfactuals --dataset {wildcards.dataset} --editor reference --config {params.config:q} > {log} 2>&1"


rule counterfactuals:
    input:
        manifest=rules.prepare.output.manifest,
        summary=rules.prepare.output.summary,
        rewrites=rules.prepare.output.rewrites,
        others=editing_inputs,
    output:
        "counterfactuals/{dataset}/{editor}.parquet",
    log:
        "logs/{dataset}/counterfactuals/{editor}.log",
    benchmark:
        "benchmarks/out/{dataset}/counterfactuals/{editor}.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=6000,
        runtime=480,
    params:
        config=settings("counterfactuals"),
        code=code("counterfactuals"),
        backbone=lambda w: told(plan.looker, CONFIG, w.dataset),
    shell:
        "python -m causalroute.stages.counterfactuals --dataset {wildcards.dataset} --editor {wildcards.editor} --backbone {params.backbone}"
        " --threads {threads} --config {params.config:q} > {log} 2>&1"


rule gate:
    input:
        manifest=rules.prepare.output.manifest,
        counterfactuals="counterfactuals/{dataset}/{editor}.parquet",
        features=gate_inputs,
    output:
        "counterfactuals/{dataset}/{editor}.gate.json",
    log:
        "logs/{dataset}/gate/{editor}.log",
    benchmark:
        "benchmarks/out/{dataset}/gate/{editor}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("gate"),
        code=code("gate"),
        backbone=lambda w: CONFIG.datasets[w.dataset].backbone,
    shell:
        "python -m causalroute.stages.gate --dataset {wildcards.dataset} --editor {wildcards.editor} --backbone {params.backbone}"
        " --config {params.config:q} > {log} 2>&1"


rule grade:
    input:
        truth=rules.prepare.output.truth,
        manifest=rules.prepare.output.manifest,
        counterfactuals=graded_inputs,
        gates=lambda w: [
            layout.gate(w.dataset, editor)
            for editor in told(plan.feature_editors, CONFIG, w.dataset)
        ],
    output:
        "reports/{dataset}/counterfactuals.json",
    log:
        "logs/{dataset}/grade.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        config=settings("grade"),
        code=code("grade"),
        editors=lambda w: plan.graded_editors(CONFIG, w.dataset),
        gated=lambda w: told(plan.feature_editors, CONFIG, w.dataset),
    shell:
        "python -m causalroute.stages.grade --dataset {wildcards.dataset} --editors {params.editors} --gated {params.gated}"
        " --config {params.config:q} > {log} 2>&1"


rule gallery:
    input:
        manifest=rules.prepare.output.manifest,
        reference="counterfactuals/{dataset}/reference.png",
        views=lambda w: [
            path
            for editor in told(plan.feature_editors, CONFIG, w.dataset)
            for path in view_files(editor, w.dataset)
        ],
        factual=lambda w: layout.features(
            w.dataset, CONFIG.datasets[w.dataset].backbone, "factual"
        ),
    output:
        "counterfactuals/{dataset}/gallery.html",
    log:
        "logs/{dataset}/gallery.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("gallery"),
        code=code("gallery"),
        editors=lambda w: told(plan.feature_editors, CONFIG, w.dataset),
        backbone=lambda w: CONFIG.datasets[w.dataset].backbone,
    shell:
        "python -m causalroute.stages.gallery --dataset {wildcards.dataset} --editors {params.editors} --backbone {params.backbone}"
        " --config {params.config:q} > {log} 2>&1"
