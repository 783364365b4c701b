"""The code blocks of README.md and docs/, and what can be wrong with them. `python -m tests.unit.documentation` lists them.

Every fenced block names its language. Comments in front of a block say what is to be known about it, one a line:

    <!-- not run: REASON -->     it is checked, not run
    <!-- slow -->                it takes more than seconds: tests/workflow runs it
    <!-- in: datasets.mvsa -->   yaml: where in params.yaml the fragment stands (default: at the top)

`yaml` is a part of params.yaml: merged into the shipped one and checked by the schema. `sh` and `console` (lines that begin with `$ `): every command exists
and its arguments parse; settings of `dvc exp run -S` are checked as yaml is. `python` compiles, and runs: the blocks of a page one after the other,
commands among them, in an empty folder. `text`, `csv` and `mermaid` are left alone.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.unit import documentation_shell as shell

from causalroute import schema
from causalroute.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
EXEMPT = ("text", "csv", "mermaid")
CHECKED = ("python", "sh", "console", "yaml")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$")
COMMENT = re.compile(r"^ *<!-- *(?P<key>not run|slow|in)(?:: *(?P<value>.*?))? *-->$")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    """of the fence"""
    language: str
    text: str
    told: dict[str, str] = field(default_factory=dict)
    """the comments in front of it"""

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def skipped(self) -> str:
        """Why it is not run; empty when it is."""
        return self.told.get("not run", "")

    @property
    def slow(self) -> bool:
        return "slow" in self.told


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of a page.

    Raises:
        ValueError: a fence that is not closed.
    """
    told: dict[str, str] = {}
    opened: tuple[re.Match[str], int, list[str]] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened = (fence, number, [])
        elif opened is not None and fence and fence["fence"].startswith(opened[0]["fence"]) and not fence["info"].strip():
            start, first, lines = opened
            indent = len(start["indent"])
            yield Block(page, first, start["info"].strip().split(" ")[0], "\n".join(one[indent:] for one in lines) + "\n", told)
            opened, told = None, {}
        elif opened is not None:
            opened[2].append(line)
        elif comment := COMMENT.match(line):
            told = told | {comment["key"]: comment["value"] or ""}
        elif line.strip():
            told = {}
    if opened is not None:
        raise ValueError(f"{page}:{opened[1]}: the block is not closed")


def every() -> list[Block]:
    return [block for page in pages() for block in blocks(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))]


def indented(page: str, text: str) -> list[str]:
    """Blocks that are code by their indentation alone, where no language can be said."""
    found, fenced, before = [], False, ""
    for number, line in enumerate(text.split("\n"), 1):
        fenced ^= bool(FENCE.match(line))
        if not fenced and re.match(r" {4,}\S", line) and not before.strip():
            found.append(f"{page}:{number}")
        before = line
    return found


def problems(block: Block) -> list[str]:
    """What is wrong with a block; it is not run for that."""
    if block.language in EXEMPT:
        return []
    if block.language not in CHECKED:
        return [f"language {block.language!r}: name one of {', '.join((*CHECKED, *EXEMPT))}"]
    if "not run" in block.told and len(block.skipped.split()) < 2:
        return ["`not run` has to say why"]
    if block.language == "yaml":
        return [] if block.skipped else fragment_problems(block)
    if block.language == "python":
        return python_problems(block)
    return [problem for words in commands(block) for problem in shell.problems(words)]


def python_problems(block: Block) -> list[str]:
    try:
        compile(block.text, block.name, "exec")
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    return []


def fragment_problems(block: Block) -> list[str]:
    """Whether params.yaml with this fragment in it is valid."""
    try:
        fragment = yaml.safe_load(block.text)
    except yaml.YAMLError as error:
        return [str(error)]
    for key in reversed([part for part in block.told.get("in", "").split(".") if part]):
        fragment = {key: fragment}
    return settings_problems(fragment)


def settings_problems(fragment: Any) -> list[str]:
    if not isinstance(fragment, dict):
        return ["no mapping"]
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    try:
        schema.check(merged(shipped, fragment), root=ROOT)
    except UserError as error:
        return error.what.splitlines()
    return []


def merged(base: Any, fragment: Any) -> Any:
    """`fragment` in `base`: mappings are merged, all else is replaced."""
    if not isinstance(base, dict) or not isinstance(fragment, dict):
        return copy.deepcopy(fragment)
    return {key: merged(base.get(key), fragment[key]) if key in fragment else copy.deepcopy(base[key]) for key in {**base, **fragment}}


def commands(block: Block) -> list[list[str]]:
    """The simple commands of a block, each as its words."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [words for line in lines for words in shell.simple(line)]


def steps(page: str, *, slow: bool) -> list[tuple[int, str, Any]]:
    """What of a page is run, in order: (line, "python", code) and (line, "sh", words).

    Args:
        page: name of the page.
        slow: whether blocks that take long are among them.

    Raises:
        AssertionError: a block holds a command that may not be run, and does not say so.
    """
    found: list[tuple[int, str, Any]] = []
    for block in every():
        if block.page != page or block.skipped or (block.slow and not slow):
            continue
        if block.language == "python":
            found.append((block.line, "python", block.text))
        elif block.language in ("sh", "console"):
            for words in commands(block):
                assert shell.runnable(words, slow=block.slow), f"{block.name}: {' '.join(words)} is not run by the tests: say why with <!-- not run: ... -->"
                found.append((block.line, "sh", words))
    return found


def main() -> None:
    """Lists the blocks, and counts them."""
    found = every()
    for block in found:
        print(f"{block.name:<34} {block.language:<8} {'slow' if block.slow else block.skipped and 'not run: ' + block.skipped}")
    print(f"{len(found)} blocks: {dict(Counter(block.language for block in found))}")
    for reason, count in Counter(block.skipped for block in found if block.skipped).most_common():
        print(f"{count:4} not run: {reason}")


if __name__ == "__main__":
    main()
