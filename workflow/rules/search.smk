rule search:
    input:
        search_inputs,
    output:
        "models/{dataset}/{method}/search.json",
    log:
        "logs/{dataset}/search/{method}.log",
    benchmark:
        "benchmarks/out/{dataset}/search/{method}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=240,
    params:
        config=settings("search"),
        code=code("search"),
    shell:
        "python -m causalroute.stages.search --dataset {wildcards.dataset} --method {wildcards.method}"
        " --config {params.config:q} > {log} 2>&1"
