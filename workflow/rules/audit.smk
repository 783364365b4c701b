rule audit:
    input:
        manifest=rules.prepare.output.manifest,
        summary=rules.prepare.output.summary,
    output:
        report="reports/{dataset}/audit.json",
        page="data/{dataset}/audit.html",
    log:
        "logs/{dataset}/audit.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        config=settings("audit"),
        code=code("audit"),
    shell:
        "python -m causalroute.stages.audit --dataset {wildcards.dataset} --config {params.config:q} > {log} 2>&1"
