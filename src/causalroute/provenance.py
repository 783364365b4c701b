"""What a result was made by: a hash of the code a stage can reach, and a guard against results without their record.

The hash covers the abstract syntax of every module of this package in the import closure of the stage, so that a comment, a docstring or
the layout of the text change nothing, and any other edit does. Modules that are imported by name at run time (a method, a file format,
an editor) are passed beside the stage's own. Nothing is imported to find this out: the workflow starts without torch.
"""

from __future__ import annotations

import ast
import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from causalroute.errors import UserError

PACKAGE = "causalroute"
SOURCE = Path(__file__).resolve().parent.parent


def code_hash(*modules: str, source: Path = SOURCE) -> str:
    """16 hex digits that change when code reachable from `modules` changes.

    Args:
        modules: dotted names, such as `causalroute.stages.train`; one that does not exist is an error.
        source: the folder that holds the package.

    Raises:
        UserError: a module does not exist or does not parse.
    """
    for name in modules:
        if module_file(name, source) is None:
            raise UserError(f"there is no module {name!r}", where=str(source), fix="check the names in params.yaml, or restore the file")
    digest = hashlib.sha256()
    for name in sorted(closure(modules, source)):
        digest.update(f"{name}\0{_syntax(name, source)[0]}\0{_data(name, source)}\0".encode())
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str], source: Path = SOURCE) -> set[str]:
    """Every module of the package that importing `modules` can run: imports at any depth, and the packages around them."""
    found: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name in found or module_file(name, source) is None:
            continue
        found.add(name)
        queue.extend([name.rpartition(".")[0], *_syntax(name, source)[1]])
    return found


def module_file(name: str, source: Path = SOURCE) -> Path | None:
    """The file of a module of the package, or None."""
    base = source.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if name and candidate.is_file():
            return candidate
    return None


@cache
def _syntax(name: str, source: Path) -> tuple[str, frozenset[str]]:
    """Hash of the module's syntax, and the modules of the package that it imports."""
    path = module_file(name, source)
    assert path is not None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise UserError(f"{path.name} is not valid Python: {error.msg}", where=f"{path}, line {error.lineno}", fix="correct that line") from None
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    imports = frozenset(_imports(tree, parent))
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), imports


@cache
def _data(name: str, source: Path) -> str:
    """Hash of what else a package carries, such as templates: every file of it that is not Python, sub-packages left to themselves.

    The workflow's files, which an installed package carries, are Snakemake's to watch.
    """
    path = module_file(name, source)
    assert path is not None
    if path.name != "__init__.py":
        return ""
    digest = hashlib.sha256()
    for file in sorted(_carried(path.parent)):
        digest.update(f"{file.relative_to(path.parent).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _carried(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.name not in ("__pycache__", "_workflow") and not (path / "__init__.py").exists():
            yield from _carried(path)
        elif path.is_file() and path.suffix not in (".py", ".pyc", ".part"):
            yield path


def _imports(node: ast.AST, parent: str) -> Iterator[str]:
    """Names of modules of the package that code under `node` imports; imports for type checkers do not run."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, parent)
        if base.split(".")[0] == PACKAGE:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a sub-module, or a name that closure() finds no file for
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, parent)


def _absolute(node: ast.ImportFrom, parent: str) -> str:
    if not node.level:
        return node.module or ""
    parts = parent.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _dump(node: object) -> str:
    """Text of a syntax tree without positions, bare strings and empty fields: the same on every Python version."""
    if isinstance(node, list):
        return "[" + ",".join(_dump(item) for item in node if not _is_bare_string(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{key}={_dump(value)}" for key, value in ast.iter_fields(node) if value is not None and value != [] and key != "kind"]
    return f"{type(node).__name__}({','.join(fields)})"


def _is_bare_string(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def constants(name: str, source: Path = SOURCE) -> dict[str, object]:
    """Module-level literals of a module, read without importing it: `EDITOR = "truth"` -> {"EDITOR": "truth"}."""
    path = module_file(name, source)
    if path is None:
        raise UserError(f"there is no module {name!r}", where=str(source), fix="check the names in params.yaml, or restore the file")
    values: dict[str, object] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        literal = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and literal is not None and _is_literal(literal):
                values[target.id] = ast.literal_eval(literal)
    return values


def _is_literal(node: ast.AST) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


def unrecorded(paths: Iterable[str], root: Path = Path()) -> list[str]:
    """Those of `paths` that exist under `root` although Snakemake has neither a record of making them nor a note that it was interrupted.

    Snakemake takes such files as up to date, whatever made them.
    """
    record = root / ".snakemake"
    return [p for p in paths if (root / p).exists() and not any(_record(record / kind, p).exists() for kind in ("metadata", "incomplete"))]


def _record(folder: Path, path: str, longest: int = 255) -> Path:
    """Where Snakemake keeps what it knows about `path`: a file named by its base64, split where a file name would be too long."""
    name = urlsafe_b64encode(path.encode()).decode()
    parts = [name[i : i + longest - 1] for i in range(0, len(name), longest - 1)]
    return folder.joinpath(*[f"@{part}" for part in parts[:-1]], parts[-1])


def guard(paths: Iterable[str], root: Path = Path()) -> None:
    """Stops a run that would trust files nobody knows the making of.

    Raises:
        UserError: names such files and the two ways out.
    """
    strangers = unrecorded(paths, root)
    if strangers:
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        raise UserError(
            f"{len(strangers)} result files have no record of how they were made, so nothing can tell whether they are up to date",
            where=", ".join(strangers[:3]) + more,
            fix="`dvc pull` (or `dvc checkout`) brings results together with their record; or `make clean` removes them and the next run makes them anew",
        )


class RunLock:
    """Lets one run at a time work in a checkout; the operating system frees it when the process ends, even when killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            UserError: another live run holds it.
        """
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.handle)
            raise UserError("another run is at work in this checkout", where=str(self.path), fix="wait for it, or end it, then start again") from None
