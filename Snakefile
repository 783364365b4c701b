"""From raw posts to a report. Rules live in workflow/rules, one stage a file; settings in params.yaml; `make help` lists the commands."""

import sys

from snakemake.utils import min_version

min_version("9.10")


configfile: "params.yaml"


sys.path.insert(0, f"{workflow.basedir}/src")


include: "workflow/rules/common.smk"


report: "workflow/report/workflow.rst"


include: "workflow/rules/fetch.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/counterfactuals.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/ablate.smk"


rule all:
    default_target: True
    input:
        targets(),


rule ablation:
    input:
        ablation_inputs,


onstart:
    start()


if workflow.is_main_process:
    check_record()
