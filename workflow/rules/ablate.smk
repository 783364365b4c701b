rule ablate:
    input:
        predictions=lambda w: of_ablation(rules.evaluate.output, w.dataset),
        weights=lambda w: of_ablation(rules.train.output.weights, w.dataset),
        summary=rules.prepare.output.summary,
        manifest=rules.prepare.output.manifest,
        truth=rules.prepare.output.truth,
    output:
        "reports/{dataset}/ablation/metrics.json",
        report(
            "reports/{dataset}/ablation/results.md",
            caption="../report/ablation.rst",
            category="{dataset}",
            subcategory="ablation",
            labels={"what": "ablation", "format": "md"},
        ),
        "reports/{dataset}/ablation/results.csv",
    log:
        "logs/{dataset}/ablate.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("ablate"),
        code=code("ablate"),
    shell:
        "python -m causalroute.stages.ablate --dataset {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
