rule train:
    input:
        training_inputs,
    output:
        weights="models/{dataset}/{method}/seeds{seeds}/weights.safetensors",
        history="models/{dataset}/{method}/seeds{seeds}/history.csv",
        selection="models/{dataset}/{method}/seeds{seeds}/selection.json",
    log:
        "logs/{dataset}/train/{method}-{seeds}.log",
    benchmark:
        "benchmarks/out/{dataset}/train/{method}-{seeds}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes(120),
    params:
        config=settings("train"),
        code=code("train"),
    shell:
        "python -m causalroute.stages.train --dataset {wildcards.dataset} --method {wildcards.method} --seeds {wildcards.seeds}"
        " --config {params.config:q} > {log} 2>&1"
