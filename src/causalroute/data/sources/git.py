"""A pinned commit of a git repository, without history, hooks, filters or submodules.

Only the wanted sub-folder is checked out; `.git/info/attributes` switches every line-end and smudge filter off, so that the files are the
very bytes of the commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from causalroute.config import Dataset, Source
from causalroute.data.sources.local import copy_tree
from causalroute.errors import UserError

ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding\n"
SAFE = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.autocrlf=false", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"]
QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true", "LC_ALL": "C"}


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Puts the content of `source.path` (a folder or a file) at commit `source.revision` into `target`.

    Raises:
        UserError: no git, no network, no such repository, commit or path.
    """
    if shutil.which("git") is None:
        raise UserError("the program git is not installed", where=source.url, fix="install git (for example: apt install git)")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".git-") as folder:
        checkout = Path(folder)
        _clone(source, checkout)
        wanted = checkout / source.path
        if not wanted.resolve().is_relative_to(checkout.resolve()) or not wanted.exists():
            there = _git(checkout, ["ls-tree", "--name-only", source.revision], source).split()
            fix = f"correct 'path'; the top of the repository holds: {', '.join(there[:20])}"
            raise UserError(f"the repository has no {source.path!r} at that commit", where=f"{source.url}@{source.revision}", fix=fix)
        copy_tree(wanted, target)


def _clone(source: Source, checkout: Path) -> None:
    _git(checkout, ["init", "-q", "--template=", "."], source)
    info = checkout / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text(ATTRIBUTES)
    _git(checkout, ["remote", "add", "origin", "--", source.url], source)
    if source.path:
        _git(checkout, ["sparse-checkout", "set", "--no-cone", f"/{source.path}"], source)
    _git(checkout, ["fetch", "-q", "--depth", "1", "--no-tags", "--filter=blob:none", "origin", source.revision], source)
    _git(checkout, ["checkout", "-q", "--detach", source.revision], source)


def _git(checkout: Path, arguments: list[str], source: Source) -> str:
    done = subprocess.run(["git", *SAFE, *arguments], cwd=checkout, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith(("warning:", "hint:"))] or [f"exit status {done.returncode}"]
    fix = "check the network, the address and the commit; behind a proxy set https_proxy; or clone it elsewhere and use a source of kind local"
    raise UserError(f"git {arguments[0]} failed: {' '.join(lines[:3])[:300]}", where=f"{source.url}@{source.revision}", fix=fix)
