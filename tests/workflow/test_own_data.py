"""A stranger's mistake as it is seen on the terminal of the real command, with the real stages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.project import ROOT

ENTRY = {
    **{"format": "table", "task": "classification", "classes": ["negative", "positive"], "backbone": "planted_clip", "editor": "estimated"},
    **{"methods": ["erm"], "sources": [{"kind": "local", "path": "my_folder"}], "table": "posts.csv", "columns": {"image": ""}},
}


@pytest.mark.slow
def test_the_terminal_shows_what_where_and_how_to_mend(tmp_path: Path) -> None:
    for name in ("workflow", "profiles", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["run"], settings["datasets"] = ["mine"], {"mine": ENTRY}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "my_folder").mkdir()
    (tmp_path / "my_folder" / "posts.csv").write_text("text,label\n" + "".join(f"post {n},Positive\n" for n in range(30)))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["snakemake", "--cores", "1", "data/mine/manifest.parquet"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300)
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in shown
    for line in ("error: 30 of 30 posts are unusable for one reason: unknown_label", "line 2: label 'Positive'; did you mean 'positive'?", "  fix:   correct"):
        assert line in shown, shown
    assert not (tmp_path / "data/mine/dropped.csv").exists()
    assert len((tmp_path / "logs/mine/dropped.csv").read_text().splitlines()) == 31
