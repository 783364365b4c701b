rule report:
    input:
        predictions=lambda w: of_methods(rules.evaluate.output, w.dataset),
        weights=lambda w: of_methods(rules.train.output.weights, w.dataset),
        histories=lambda w: of_methods(rules.train.output.history, w.dataset),
        searches=lambda w: searches(w.dataset, CONFIG.datasets[w.dataset].methods),
        audit=rules.audit.output,
        counterfactuals=rules.grade.output,
        summary=rules.prepare.output.summary,
        manifest=rules.prepare.output.manifest,
        truth=rules.prepare.output.truth,
    output:
        "reports/{dataset}/metrics.json",
        report(
            "reports/{dataset}/results.md",
            caption="../report/results.rst",
            category="{dataset}",
        ),
        "reports/{dataset}/results.csv",
        report(
            "reports/{dataset}/report.html",
            caption="../report/report.rst",
            category="{dataset}",
        ),
        plots=expand("reports/{{dataset}}/plots/{table}.csv", table=layout.PLOTS),
    log:
        "logs/{dataset}/report.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("report"),
        code=code("report"),
    shell:
        "python -m causalroute.stages.report --dataset {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
