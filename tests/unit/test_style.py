"""The measures of the house style, held for every source file."""

from __future__ import annotations

import ast
import graphlib
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
FILES = sorted(SOURCE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FORBIDDEN = ("raise NotImplementedError", "TODO", "FIXME", "trust_remote_code=True", "import pickle", "np.random.seed", "except:")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def length(node: Function) -> int:
    """Lines of a function, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
    return (node.end_lineno or 0) - body[0].lineno + 2


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Modules that a file imports, at any depth, relative ones made absolute; imports for type checkers count as well."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names if base.startswith("causalroute")}
    return found


def test_functions_are_short() -> None:
    lengths = {f"{path.relative_to(ROOT)}:{node.name}": length(node) for path in [*FILES, *SCRIPTS] for node in functions(path)}
    assert statistics.median(lengths.values()) <= 12
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 40
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_lines_fit(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300, "a bigger file is two"
    assert [number for number, line in enumerate(lines, 1) if len(line) > 160] == []


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_explained_and_hold_nothing_forbidden(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module opens with what it is for"
    for node in tree.body:
        if isinstance(node, (Function, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
    assert [word for word in FORBIDDEN if word in text] == []


ALLOWED = {  # a package -> the packages of causalroute it may import, beside itself, config and the modules at the top
    "routing": set(),
    "model": {"routing"},
    "data": set(),
    "counterfactual": {"data", "features"},
    "features": {"data", "counterfactual", "mllm"},
    "audit": {"data", "counterfactual"},
    "stored": set(),
    "methods": {"model", "routing", "mllm", "stored"},  # mllm: what trains inside such a model, imported when it is used
    "mllm": {"counterfactual", "features"},
    "training": {"methods", "model", "routing", "stored"},
    "evaluation": {"methods", "model", "routing", "training"},
    "report": {"evaluation", "methods", "counterfactual"},
    "serving": {"audit", "data", "features", "counterfactual", "methods", "model", "routing", "training", "evaluation", "report"},
    "project": {"audit", "data", "features", "serving"},
    "doctor": {"features", "routing"},
    "cli": {"audit", "data", "doctor", "evaluation", "features", "project", "report", "serving"},
}


@pytest.mark.parametrize("package", ALLOWED)
def test_dependencies_point_one_way(package: str) -> None:
    packages = {path.name for path in (SOURCE / "causalroute").iterdir() if (path / "__init__.py").exists()} - {"config"}  # settings: open to all
    for path in (SOURCE / "causalroute" / package).rglob("*.py"):
        used = {name.split(".")[1] for name in imported(path) if name.startswith("causalroute.")} & packages
        assert used - {package} <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {sorted(used - {package} - ALLOWED[package])}"


def test_no_module_needs_itself() -> None:
    """Imports inside functions count: a module can be read, and moved, with what lies below it alone."""
    modules = {module_of(path): path for path in FILES}
    graph = {module: {name for name in imported(path) if name in modules and modules[name].name != "__init__.py"} for module, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_nothing_imports_stages() -> None:
    for path in FILES:
        if not module_of(path).startswith("causalroute.stages"):
            assert not any(name.startswith("causalroute.stages") for name in imported(path)), path


@pytest.mark.parametrize("package", ["routing", "model"])
def test_the_core_needs_torch_alone(package: str) -> None:
    for path in (SOURCE / "causalroute" / package).rglob("*.py"):
        outside = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"torch", "jaxtyping", "causalroute"}
        outside -= {"triton"} if path.parent.name == "kernels" else set()  # imported when that backend is first used
        inside = {name for name in imported(path) if name.startswith("causalroute.") and not name.startswith(("causalroute.routing", "causalroute.model"))}
        assert (outside, inside) == (set(), set()), path.relative_to(ROOT)


def test_tests_weigh_at_least_half_of_the_source() -> None:
    def lines(paths: list[Path]) -> int:
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)

    assert lines(TESTS) >= 0.5 * lines(FILES)


def test_no_machine_paths_in_what_is_shipped() -> None:
    """An absolute path in a rule, a profile or a script would run everything again elsewhere, or not run at all."""
    shipped = [
        ROOT / "Snakefile",
        ROOT / "dvc.yaml",
        ROOT / "Makefile",
        ROOT / "params.yaml",
        *(ROOT / "workflow").rglob("*.smk"),
        *(ROOT / "profiles").rglob("*.yaml"),
    ]
    for path in shipped:
        assert not re.search(r"""(?<![\w.}$)])/(home|root|work|tmp|usr|opt)/""", path.read_text(encoding="utf-8")), path
