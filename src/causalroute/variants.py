"""Names of methods: a module of `causalroute/methods`, or `<module>@<variant>`, the same module under settings of its own.

Both are keys of `methods` in params.yaml and stand wherever a method is named: in lists, in file names, in tables. A variant draws its random
numbers under the name of its module: seed s of `causal_moe@rule` starts from the weights and sees the batches of seed s of `causal_moe`, so
that the two differ by their settings alone. A module of `DERIVED` is another module's method on other features, and draws as that one does.
"""

from __future__ import annotations

import re

from causalroute.errors import UserError

MODULE, VARIANT = "[a-z][a-z0-9_]*", "[a-z0-9_]+"
"""Patterns of the two parts of a name."""
VISUAL = ("image_only", "image_swap", "clue_image")
"""Modules that look at the visual side alone, or change nothing but it."""
DERIVED = {"token_moe": "causal_moe"}
"""Modules that are another one's method on other features: an ablation compares them with it."""


def module_of(name: str) -> str:
    """`causal_moe@rule` -> `causal_moe`; a name without `@` is a module's own.

    Raises:
        UserError: the text is no name of a method.
    """
    if not re.fullmatch(f"{MODULE}(@{VARIANT})?", name):
        fix = "write `<module>` or `<module>@<variant>` in lower-case letters, digits and underscores, such as `causal_moe@no_experts`"
        raise UserError(f"{name!r} is no name of a method", where="params.yaml: methods", fix=fix)
    return name.partition("@")[0]


def is_variant(name: str) -> bool:
    """Whether the name is that of a variant."""
    return module_of(name) != name


def parent_of(name: str) -> str:
    """What an ablation compares a method with: `causal_moe@rule` and `token_moe` with `causal_moe`; itself where it stands alone."""
    return module_of(name) if is_variant(name) else DERIVED.get(name, name)


def stream_of(name: str) -> str:
    """The module under whose name a method draws its random numbers."""
    return DERIVED.get(module_of(name), module_of(name))


def is_visual(name: str) -> bool:
    """Whether a method is nothing without a visual side."""
    return module_of(name) in VISUAL


def is_oracle(name: str) -> bool:
    """Whether a method, or a variant by its own name, uses what no real data has: `oracle_erm`, `causal_moe@oracle_gate`."""
    return any(part.startswith("oracle_") for part in name.split("@"))
