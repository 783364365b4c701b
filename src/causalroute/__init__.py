"""causalroute: find shortcuts in text + image data, train past them, and prove it with error bars.

`causalroute.audit(frame)` searches a table, `causalroute.Debiaser` trains on it; both are loaded when they are first asked for.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The Python interface, by name: importing the package imports neither torch nor polars, and its stages do not depend on what is behind these names."""
    from importlib import import_module

    if name == "audit":  # the package of that name, which can be called: an import of it anywhere would take a function's place
        return import_module("causalroute.audit")
    if name in ("AuditResult", "Debiaser"):
        return getattr(import_module("causalroute.api"), name)
    raise AttributeError(f"module 'causalroute' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["AuditResult", "Debiaser", "__version__", "audit"]
