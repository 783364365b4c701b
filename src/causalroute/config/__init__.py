"""Every section of `params.yaml` as a frozen dataclass: the one list of what can be set.

`workflow/schemas/params.schema.json` and `docs/params.md` are made from these classes (`make schema`) and a test holds them together.
Settings of a method live beside the method (`methods/<name>.py`, class `Settings`).
"""

from causalroute.config.data import Columns, Dataset, Inject, Planted, Source, Splits
from causalroute.config.mllm import Mllm, Prompt
from causalroute.config.run import Audit, Backbone, Config, Corrupt, Editor, Evaluate, Gate, Llm, Pretrain, Replicates, Train
from causalroute.config.study import Ablation, Search
from causalroute.parsing import parse, section, suggest

__all__ = [
    "Ablation",
    "Audit",
    "Backbone",
    "Columns",
    "Config",
    "Corrupt",
    "Dataset",
    "Editor",
    "Evaluate",
    "Gate",
    "Inject",
    "Llm",
    "Mllm",
    "Planted",
    "Pretrain",
    "Prompt",
    "Replicates",
    "Search",
    "Source",
    "Splits",
    "Train",
    "parse",
    "section",
    "suggest",
]
