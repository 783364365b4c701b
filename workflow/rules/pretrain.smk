rule pretrain:
    output:
        expand(
            "models/backbones/{{backbone}}/{file}",
            file=[
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "preprocessor_config.json",
                "pretrain.json",
            ],
        ),
    log:
        "logs/backbones/{backbone}.log",
    benchmark:
        "benchmarks/out/pretrain/{backbone}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("pretrain"),
        code=code("pretrain"),
    shell:
        "python -m causalroute.stages.pretrain --backbone {wildcards.backbone} --config {params.config:q} > {log} 2>&1"
