"""Shell commands in documentation: does the program exist, and does its own parser take the arguments? Nothing is run to find out."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"git", "cd", "sed", "jq", "hf", "curl", "export", "tensorboard", "nvidia-smi", "docker"}
"""Programs of others: their name is known, their arguments are not looked at."""
OPERATORS = {"|", "||", "&", "&&", ";", ">", ">>", "<"}
MODULES = ("causalroute", "benchmarks")
SAFE = {"audit", "doctor"}
"""Sub-commands that take seconds and leave nothing but files in the folder."""


class _Parsed(Exception):
    """The arguments were taken."""


def simple(line: str) -> list[list[str]]:
    """The simple commands of a line: comments, operators, redirections and assignments in front taken away."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = [[]]
    for word in lexer:
        if word.startswith("#"):
            break
        if word in OPERATORS:
            found.append([word] if word in (">", ">>", "<") else [])
        else:
            found[-1].append(word)
    plain = [words for words in found if words and words[0] not in OPERATORS]
    return [words for words in map(_without_assignments, plain) if words]


def _without_assignments(words: list[str]) -> list[str]:
    first = next((i for i, word in enumerate(words) if not re.match(r"[A-Za-z_]\w*=", word)), len(words))
    return words[first:]


def problems(words: list[str]) -> list[str]:
    """What is wrong with a simple command, given as its program and arguments."""
    program, *rest = words[0].rpartition("/")[2], *words[1:]
    if program in ELSEWHERE:
        return []
    if program in ("python", "python3"):
        return _python(rest)
    look = {"causalroute": lambda: _causalroute(rest), "make": lambda: _make(rest), "snakemake": lambda: _snakemake(rest), "dvc": lambda: _dvc(rest)}
    look |= {"pip": lambda: _pip(rest), "sh": lambda: [] if (ROOT / rest[0]).is_file() else [f"there is no {rest[0]}"]}
    return look[program]() if program in look else [f"unknown program {program!r}"]


@contextlib.contextmanager
def _strict(*, stop: bool) -> Iterator[None]:
    """Parsers take no abbreviations; with `stop`, parsing ends the program that asked for it."""
    known, parse = argparse.ArgumentParser.parse_known_args, argparse.ArgumentParser.parse_args

    def parse_known_args(self, args=None, namespace=None, **more):
        self.allow_abbrev = False
        return known(self, args, namespace, **more)

    def parse_args(self, args=None, namespace=None):
        found = parse(self, args, namespace)
        if stop:
            raise _Parsed
        return found

    argparse.ArgumentParser.parse_known_args, argparse.ArgumentParser.parse_args = parse_known_args, parse_args  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args, argparse.ArgumentParser.parse_args = known, parse  # type: ignore[method-assign]


def _refused(work, *, stop: bool = False) -> list[str]:
    """What a parser says against the arguments that `work` gives it."""
    said = io.StringIO()
    try:
        with _strict(stop=stop), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            work()
    except _Parsed:
        return []
    except SystemExit as end:
        return [said.getvalue().strip().splitlines()[-1]] if end.code else []
    return []


def _causalroute(words: list[str]) -> list[str]:
    from causalroute import cli

    return _refused(lambda: cli.parser().parse_args(words))


def _python(words: list[str]) -> list[str]:
    if words[:1] == ["-c"]:
        compile(words[1], "-c", "exec")
        return []
    module = words[1] if words[:1] == ["-m"] else ""
    if module and module.split(".")[0] not in MODULES:
        return []
    base = ROOT / ("src" if module.startswith("causalroute") else ".") / (module.replace(".", "/") or words[0])
    file = next((path for path in (base, base.with_suffix(".py"), base / "__main__.py") if path.is_file()), None)
    if file is None:
        return [f"there is no {module or words[0]}"]
    rest = words[2:] if module else words[1:]
    if "parse_args" not in _source(file):
        return [f"{file.name} takes no arguments"] if rest else []
    return _main(file, rest)


def _source(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return text if "stage_parser" not in text and file.name != "__main__.py" else text + "parse_args"


def _main(file: Path, rest: list[str]) -> list[str]:
    """Lets a program come as far as its parser."""
    before = sys.argv
    sys.argv = [str(file), *rest]
    try:
        return _refused(lambda: runpy.run_path(str(file), run_name="__main__"), stop=True)  # by its file: another test may have imported the module
    finally:
        sys.argv = before


def _make(words: list[str]) -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    names = [word.partition("=") for word in words if not word.startswith("-")]
    found = [f"make has no target {name!r}" for name, sign, _ in names if not sign and name not in targets]
    return found + [f"the Makefile has no variable {name!r}" for name, sign, _ in names if sign and f"$({name})" not in text]


def _snakemake(words: list[str]) -> list[str]:
    from snakemake.cli import get_argument_parser

    rules = {name for path in (ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")) for name in re.findall(r"^rule (\w+)", path.read_text(), re.MULTILINE)}
    found: list[str] = []

    def parse() -> None:
        arguments = get_argument_parser().parse_args(words)
        targets = [target for target in arguments.targets or [] if "/" not in target]
        found.extend(f"there is no rule {name!r}" for name in [*targets, *(arguments.forcerun or [])] if name not in rules)
        if arguments.profile and not (ROOT / str(arguments.profile)).is_dir():
            found.append(f"there is no profile {arguments.profile}")

    return _refused(parse) + found


def _dvc(words: list[str]) -> list[str]:
    from dvc.cli import DvcParserError, parse_args

    settings: list[str] = []
    try:
        arguments = parse_args(words)
        settings = getattr(arguments, "params", None) or getattr(arguments, "set_param", None) or []
    except DvcParserError:
        return [f"dvc does not take: {' '.join(words)}"]
    return [problem for one in settings for problem in _setting(one)]


def _setting(text: str) -> list[str]:
    """Whether `key=value` of `dvc exp run -S` leaves params.yaml valid; of a grid its first value."""
    from tests.unit.documentation import settings_problems

    key, sign, value = text.lstrip("+").partition("=")
    if not sign:
        return [f"-S {text}: no value"]
    fragment = yaml.safe_load(value if value.startswith("[") else value.split(",")[0])
    for part in reversed(key.split(".")):
        fragment = {part: fragment}
    return settings_problems(fragment)


def _pip(words: list[str]) -> list[str]:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    asked = [name for word in words for group in re.findall(r"causalroute\[([^\]]*)\]", word) for name in group.split(",")]
    return [f"there is no extra {name!r}" for name in asked if name not in extras]


def runnable(words: list[str], *, slow: bool) -> bool:
    """Whether the tests run a command: it takes seconds (or `slow` is said), needs no network and ends by itself."""
    if {"--help", "--version"} & set(words):
        return words[0] in ("causalroute", "python")
    if words[0] == "causalroute":
        return len(words) > 1 and words[1] != "serve" and (words[1] in SAFE or slow) and "--online" not in words
    return words[:2] == ["python", "-m"] and words[2:3] in (["causalroute"], ["causalroute.doctor"], ["causalroute.features.verify"])
