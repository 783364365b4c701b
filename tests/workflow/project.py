"""A scratch project: the real workflow around stand-in stages, in its own git repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("Snakefile", "workflow", "profiles", "dvc.yaml", ".dvcignore", ".gitignore")
CORE = ("__init__", "config", "errors", "io", "layout", "parsing", "plan", "provenance", "schema", "variants")
STAGES = (
    "fetch",
    "prepare",
    "audit",
    "pretrain",
    "features",
    "tokens",
    "counterfactuals",
    "gate",
    "gallery",
    "grade",
    "search",
    "train",
    "evaluate",
    "report",
    "ablate",
)
METHODS = {"erm": None, "causal_moe": "dataset", "oracle_swap": "truth", "token_moe": "dataset"}
READS = {"token_moe": "tokens"}
SEARCH = {"causal_moe": {"rank": (4, 8)}}
PLUGINS = ("data/formats/planted", "data/sources/planted", "counterfactual/text/lexicon", "counterfactual/text/random", "counterfactual/text/truth")
IMAGES = ("counterfactual/image/saliency", "counterfactual/image/random", "counterfactual/image/truth")

STAGE = '''"""Stand-in."""
from causalroute import helper  # a module in the import closure
from causalroute.stages._standin import stage

if __name__ == "__main__":
    stage({name!r}, {version})
'''

PARAMS = """\
run: [planted]
replicates: {seeds: 2, per_job: 2}
train: {epochs: 4, lr: 0.001}
methods:
  erm: {}
  causal_moe: {}
  oracle_swap: {}
  token_moe: {}
editors:
  estimated: {text: lexicon, image: saliency}
  random: {text: random, image: random}
  truth: {text: truth, image: truth}
audit: {folds: 4}
gate: {min_posts: 200}
evaluate: {bootstrap: 100}
datasets:
  planted:
    format: planted
    task: sarcasm
    classes: [literal, sarcastic]
    positive: sarcastic
    backbone: clip
    editor: estimated
    methods: [erm, causal_moe, oracle_swap]
    sources: [{kind: planted}]
backbones:
  clip: {kind: dual_encoder, pretrain: {steps: 2}}
"""

JOBS = [  # every job of one run, sorted
    *("audit", "counterfactuals estimated", "counterfactuals random", "counterfactuals reference", "counterfactuals truth"),
    *("evaluate causal_moe 0-1", "evaluate erm 0-1", "evaluate oracle_swap 0-1", "features estimated", "features factual", "features truth"),
    *(
        "fetch",
        "gallery",
        "gate estimated",
        "gate truth",
        "grade",
        "prepare",
        "pretrain",
        "report",
        "train causal_moe 0-1",
        "train erm 0-1",
        "train oracle_swap 0-1",
    ),
]


class Project:
    """A checkout of the scratch project, and how to work in it."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log

    def path(self, name: str) -> Path:
        """A file of the checkout."""
        return self.folder / name

    def edit(self, name: str, old: str, new: str) -> None:
        """Replaces text that must be there."""
        text = self.path(name).read_text()
        assert old in text, f"{old!r} is not in {name}"
        self.path(name).write_text(text.replace(old, new))

    def call(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the checkout with this interpreter's programs first on PATH."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment(**environment), capture_output=True, text=True, timeout=900)
        if check and done.returncode:
            raise AssertionError(f"{command} failed\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}")
        return done

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a user with the virtual environment activated."""
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return {**clean, "PATH": programs, "STANDIN_LOG": str(self.log), "DVC_NO_ANALYTICS": "1", "DVC_TEST": "1", **more}

    def git(self, *words: str) -> str:
        """Runs git and returns what it prints."""
        return self.call("git", *words).stdout.strip()

    def commit(self, message: str) -> None:
        """Commits everything that is not ignored."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def snakemake(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs the workflow."""
        return self.call("snakemake", "--cores", "2", *words, check=check, **environment)

    def executed(self) -> list[str]:
        """Jobs that ran since the last call, sorted."""
        lines = sorted(self.log.read_text().split("\n")[:-1]) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def run(self) -> list[str]:
        """Runs the workflow and says which jobs it took."""
        self.executed()
        self.snakemake()
        return self.executed()

    def planned(self) -> list[str]:
        """Rules that a dry run announces, with how often: `train 2`."""
        text = self.snakemake("-n", "--quiet", "host").stdout + self.snakemake("-n", "--quiet", "host").stderr
        return sorted(f"{rule} {count}" for rule, count in re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE) if rule not in ("all", "total"))

    def clone(self, folder: Path) -> Project:
        """A fresh git clone."""
        subprocess.run(["git", "clone", "-q", str(self.folder), str(folder)], check=True)
        other = Project(folder, self.log)
        identify(other)
        return other


def identify(project: Project) -> None:
    """Gives the repository a committer."""
    project.git("config", "user.name", "Test")
    project.git("config", "user.email", "test@example.org")


def build(folder: Path, log: Path) -> Project:
    """Writes the scratch project and commits it."""
    folder.mkdir(parents=True)
    for name in SHELL:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    (folder / "params.yaml").write_text(PARAMS)
    shutil.copy(ROOT / "environment.yml", folder)
    package(folder / "src" / "causalroute")
    project = Project(folder, log)
    project.git("init", "-q", "-b", "main")
    identify(project)
    project.commit("scratch project")
    return project


def package(folder: Path) -> None:
    """The package with its real core, stand-in stages and empty plug-ins."""
    (folder / "stages").mkdir(parents=True)
    for name in CORE:
        source = ROOT / "src" / "causalroute" / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source.with_suffix(".py"), folder)
    (folder / "helper.py").write_text('"""Helper."""\n\nVALUE = 1  # a number\n')
    (folder / "stages" / "__init__.py").write_text("")
    shutil.copy(Path(__file__).with_name("standin.py"), folder / "stages" / "_standin.py")
    for name in STAGES:
        (folder / "stages" / f"{name}.py").write_text(STAGE.format(name=name, version=1))
    for name in (*PLUGINS, *IMAGES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text('"""Plug-in."""\n\nVALUE = 1\n')
    (folder / "methods").mkdir()
    for name, editor in METHODS.items():
        (folder / "methods" / f"{name}.py").write_text(
            f'"""Method."""\n\nEDITOR = {editor!r}\nREADS = {READS.get(name, "")!r}\nSEARCH = {SEARCH.get(name, {})!r}\n'
        )
