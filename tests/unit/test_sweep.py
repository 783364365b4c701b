"""The presets of sweeps: every value is a setting, every grid one command."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from causalroute import schema

ROOT = Path(__file__).resolve().parents[2]


def sweep() -> Any:
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "scripts" / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sweep().PRESETS)
def test_every_value_of_a_sweep_is_a_setting(name: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    module = sweep()
    key, values = module.PRESETS[name]
    *path, last = key.format(editor="estimated").split(".")
    assert len(set(values)) == len(values) > 1
    for value in values:
        changed = copy.deepcopy(params)
        node = changed
        for part in path:
            node = node[part]
        node[last] = value
        schema.check(changed, root=ROOT)


def test_a_sweep_is_one_dvc_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    module = sweep()
    assert module.main(["rank", "fill", "--dataset", "mvsa", "--print"]) == 0
    shown = capsys.readouterr().out.strip()
    expected = "dvc exp run --queue --name rank-fill -S 'run=[mvsa]' -S ++methods.causal_moe.rank=0,4,8,16 -S ++editors.single.fill=mean,blur,telea"
    assert shown == expected
    assert module.main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(module.PRESETS)
    assert module.main(["rnk"]) == 1
    assert "there is no preset 'rnk'" in capsys.readouterr().err
    assert module.main(["rank", "--dataset", "nowhere"]) == 1
    assert "there is no data set 'nowhere'" in capsys.readouterr().err
