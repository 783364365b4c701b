rule prepare:
    input:
        source=rules.fetch.output.source,
    output:
        manifest="data/{dataset}/manifest.parquet",
        test="data/{dataset}/test.parquet",
        truth="data/{dataset}/truth.parquet",
        rewrites="data/{dataset}/rewrites.parquet",
        dropped="data/{dataset}/dropped.csv",
        summary="data/{dataset}/summary.json",
    log:
        "logs/{dataset}/prepare.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("prepare"),
        code=code("prepare"),
    shell:
        "python -m causalroute.stages.prepare --dataset {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
