rule fetch:
    output:
        raw=directory("data/{dataset}/raw"),
        source="data/{dataset}/source.json",
    log:
        "logs/{dataset}/fetch.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        config=settings("fetch"),
        code=code("fetch"),
    shell:
        "python -m causalroute.stages.fetch --dataset {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
