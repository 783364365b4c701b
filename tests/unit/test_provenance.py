from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalroute import provenance
from causalroute.errors import UserError
from causalroute.provenance import RunLock, closure, code_hash, constants, guard, unrecorded

STAGE = "causalroute.stages.work"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A package: stages/work imports tool (deep inside a function), tool imports .part; other is not reachable."""
    root = tmp_path / "src" / "causalroute"
    (root / "stages").mkdir(parents=True)
    (root / "tool").mkdir()
    for folder in (root, root / "stages"):
        (folder / "__init__.py").write_text("")
    (root / "stages" / "work.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import causalroute.other\ndef f():\n    from causalroute import tool\n"
    )
    (root / "tool" / "__init__.py").write_text('"""Tool."""\nfrom .part import value\n')
    (root / "tool" / "part.py").write_text('"""Part."""\n\nvalue = 1  # one\n')
    (root / "other.py").write_text("value = 1\n")
    return root.parent


def edited(source: Path, name: str, text: str) -> str:
    """The hash after a file was written; every edit is seen by a fresh process."""
    (source / "causalroute" / name).write_text(text)
    for cached in (provenance._syntax, provenance._data, provenance.constants):
        cached.cache_clear()
    return code_hash(STAGE, source=source)


def test_closure_follows_imports_at_any_depth_and_leaves_type_checking_out(source: Path) -> None:
    expected = {"causalroute", "causalroute.stages", STAGE, "causalroute.tool", "causalroute.tool.part"}
    assert closure([STAGE], source) == expected


@pytest.mark.parametrize(
    "text", ['"""Part."""\n\nvalue = 1\n', "value = 1", '"""Another."""\nvalue = (1)\n"""said of value"""\n', "\n\n\nvalue  =  1 # more"], ids=range(4)
)
def test_comments_docstrings_and_layout_do_not_count(source: Path, text: str) -> None:
    before = code_hash(STAGE, source=source)
    assert edited(source, "tool/part.py", text) == before


@pytest.mark.parametrize("text", ["value = 2", "value = True", "value = '1'", "Value = 1", "value = 1\nprint(value)", "value: int = 1"])
def test_any_other_edit_counts(source: Path, text: str) -> None:
    before = code_hash(STAGE, source=source)
    assert edited(source, "tool/part.py", text) != before


def test_unreachable_modules_do_not_count_and_carried_files_do(source: Path) -> None:
    before = code_hash(STAGE, source=source)
    assert edited(source, "other.py", "value = 5") == before
    (source / "causalroute" / "tool" / "templates").mkdir()
    with_template = edited(source, "tool/templates/page.html", "<p>")
    assert with_template != before
    assert edited(source, "tool/templates/page.html", "<b>") != with_template


def test_plugins_are_part_of_the_hash(source: Path) -> None:
    assert code_hash(STAGE, "causalroute.other", source=source) != code_hash(STAGE, source=source)


def test_missing_or_broken_modules_are_told(source: Path) -> None:
    with pytest.raises(UserError, match=r"no module 'causalroute\.methods\.none'"):
        code_hash("causalroute.methods.none", source=source)
    with pytest.raises(UserError, match="not valid Python"):
        edited(source, "tool/part.py", "value = (")


@given(st.integers(), st.text(alphabet="abc \n#", max_size=20))
def test_syntax_text_depends_on_values_alone(number: int, comment: str) -> None:
    import ast

    noise = "\n".join(f"# {line}" for line in comment.split("\n"))
    assert provenance._dump(ast.parse(f"{noise}\nx = {number}\n")) == provenance._dump(ast.parse(f"x = {number}"))
    assert provenance._dump(ast.parse(f"x = {number + 1}")) != provenance._dump(ast.parse(f"x = {number}"))


def test_constants_reads_literals_without_importing(source: Path) -> None:
    edited(source, "other.py", "import nowhere\nEDITOR: str = 'truth'\nEMPTY = None\nCOMPUTED = 1 + len('a')\n")
    assert constants("causalroute.other", source) == {"EDITOR": "truth", "EMPTY": None}


def record(root: Path, path: str, kind: str = "metadata") -> None:
    file = provenance._record(root / ".snakemake" / kind, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")


def test_guard_stops_at_files_without_a_record(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("x")
    record(tmp_path, "a.txt")
    record(tmp_path, "b.txt", "incomplete")
    assert unrecorded(["a.txt", "b.txt", "c.txt", "absent.txt"], tmp_path) == ["c.txt"]
    with pytest.raises(UserError, match=r"(?s)no record.*c\.txt.*dvc pull"):
        guard(["a.txt", "c.txt"], tmp_path)
    record(tmp_path, "c.txt")
    guard(["a.txt", "c.txt"], tmp_path)


def test_long_names_are_looked_up_where_snakemake_puts_them(tmp_path: Path) -> None:
    path = "a" * 150 + "/" + "b" * 150
    parts = provenance._record(tmp_path, path).relative_to(tmp_path).parts
    assert len(parts) == 2
    assert parts[0].startswith("@")
    assert all(len(part) <= 255 for part in parts)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path / "x" / "lock"), RunLock(tmp_path / "x" / "lock")
    first.acquire()
    with pytest.raises(UserError, match="another run"):
        second.acquire()
