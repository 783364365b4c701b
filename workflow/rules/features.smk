rule features:
    input:
        manifest=rules.prepare.output.manifest,
        reference="counterfactuals/{dataset}/reference.png",
        backbone=lambda w: backbone_files(w.backbone),
    output:
        "features/{dataset}/{backbone}/factual.safetensors",
    log:
        "logs/{dataset}/features/{backbone}/factual.log",
    benchmark:
        "benchmarks/out/{dataset}/features/{backbone}/factual.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=encoding_memory,
        runtime=encoding_minutes(240),
    params:
        config=settings("features"),
        code=code("features"),
    shell:
        "python -m causalroute.stages.features --dataset {wildcards.dataset} --backbone {wildcards.backbone} --views factual"
        " --threads {threads} --config {params.config:q} > {log} 2>&1"


rule views:
    input:
        manifest=rules.prepare.output.manifest,
        counterfactuals="counterfactuals/{dataset}/{editor}.parquet",
        pooled=pooled_inputs,
        reference="counterfactuals/{dataset}/reference.png",
        backbone=lambda w: backbone_files(w.backbone),
    output:
        "features/{dataset}/{backbone}/{editor}.safetensors",
    log:
        "logs/{dataset}/features/{backbone}/{editor}.log",
    benchmark:
        "benchmarks/out/{dataset}/features/{backbone}/{editor}.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=encoding_memory,
        runtime=encoding_minutes(480),
    params:
        config=settings("features"),
        code=code("features"),
    shell:
        "python -m causalroute.stages.features --dataset {wildcards.dataset} --backbone {wildcards.backbone} --views {wildcards.editor}"
        " --threads {threads} --config {params.config:q} > {log} 2>&1"


rule tokens:
    input:
        token_inputs,
        manifest=rules.prepare.output.manifest,
        reference="counterfactuals/{dataset}/reference.png",
        backbone=lambda w: backbone_files(w.backbone),
    output:
        "features/{dataset}/{backbone}/tokens/{views}.safetensors",
    log:
        "logs/{dataset}/tokens/{backbone}/{views}.log",
    benchmark:
        "benchmarks/out/{dataset}/tokens/{backbone}/{views}.tsv"
    conda:
        "../../environment.yml"
    threads: 4
    resources:
        mem_mb=encoding_memory,
        runtime=encoding_minutes(480),
    params:
        config=settings("tokens"),
        code=code("tokens"),
    shell:
        "python -m causalroute.stages.tokens --dataset {wildcards.dataset} --backbone {wildcards.backbone} --views {wildcards.views}"
        " --threads {threads} --config {params.config:q} > {log} 2>&1"
