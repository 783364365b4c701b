rule evaluate:
    input:
        evaluation_inputs,
        test=rules.prepare.output.test,
        weights=rules.train.output.weights,
        selection=rules.train.output.selection,
    output:
        "models/{dataset}/{method}/seeds{seeds}/predictions.parquet",
    log:
        "logs/{dataset}/evaluate/{method}-{seeds}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes(60),
    params:
        config=settings("evaluate"),
        code=code("evaluate"),
    shell:
        "python -m causalroute.stages.evaluate --dataset {wildcards.dataset} --method {wildcards.method} --seeds {wildcards.seeds}"
        " --config {params.config:q} > {log} 2>&1"
