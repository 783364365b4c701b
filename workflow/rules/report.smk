rule report:
    input:
        predictions=lambda w: of_methods(rules.evaluate.output, w.dataset),
        weights=lambda w: of_methods(rules.train.output.weights, w.dataset),
        histories=lambda w: of_methods(rules.train.output.history, w.dataset),
        searches=lambda w: searches(w.dataset, CONFIG.datasets[w.dataset].methods),
        audit=rules.audit.output,
        counterfactuals=rules.grade.output,
        edited=lambda w: layout.counterfactuals(
            w.dataset, CONFIG.datasets[w.dataset].editor
        ),
        reference=rules.reference.output,
        source=rules.fetch.output.source,
        summary=rules.prepare.output.summary,
        manifest=rules.prepare.output.manifest,
        truth=rules.prepare.output.truth,
    output:
        "reports/{dataset}/metrics.json",
        shown("reports/{dataset}/report.html", "report", "report"),
        shown("reports/{dataset}/results.md", "results", "table"),
        shown("reports/{dataset}/results.csv", "metrics", "every metric"),
        shown("reports/{dataset}/results.tex", "latex", "table"),
        shown("reports/{dataset}/README.md", "card", "model card"),
        shown("data/{dataset}/costs.html", "costs", "costs"),
        "data/{dataset}/errors.html",
        plots=[
            shown(
                f"reports/{{dataset}}/plots/{table}.csv",
                "plots",
                table.replace("_", " "),
                "data behind the figures",
            )
            for table in layout.PLOTS
        ],
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
