"""Shortcut search before any training: what, beside the meaning of a post, tells its label?

The package can be called: `causalroute.audit(frame)` is `causalroute.api.audit(frame)`. A function of that name beside the package would be replaced by it
as soon as anything imports a module of the package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from causalroute.audit.search import audit, search

__all__ = ["audit", "search"]


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """See `causalroute.api.audit`."""
        return import_module("causalroute.api").audit(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
