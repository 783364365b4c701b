from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from causalroute import schema
from causalroute.config import Config
from causalroute.errors import UserError
from causalroute.io import read_json
from causalroute.variants import module_of

HEAVY = {"torch", "transformers", "polars", "sklearn", "numpy"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def params() -> Any:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def told(values: Any) -> str:
    with pytest.raises(UserError) as caught:
        schema.check(values, root=ROOT)
    return str(caught.value)


def test_schema_and_page_are_those_of_the_dataclasses() -> None:
    built = schema.build()
    assert read_json(ROOT / schema.SCHEMA) == built, "stale: run `make schema`"
    assert (ROOT / schema.PAGE).read_text() == schema.page(built), "stale: run `make schema`"


def nodes(node: Any) -> list[dict[str, Any]]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return ([node] if isinstance(node, dict) else []) + [found for child in children for found in nodes(child)]


def test_unknown_keys_are_refused_everywhere() -> None:
    found = [node for node in nodes(read_json(ROOT / schema.SCHEMA)) if isinstance(node.get("properties"), dict) and "type" in node]
    assert len(found) > 15
    for node in found:
        assert node.get("additionalProperties") is False, node.get("title")


def test_the_shipped_settings_are_right(params: Any) -> None:
    config = schema.check(params, root=ROOT)
    assert isinstance(config, Config)
    assert set(map(module_of, config.methods)) == set(schema.methods())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("train", "lr"), "1e-3", ["train.lr", "'1e-3'", "write 0.001"]),
        (("train", "epochs"), "40", ["train.epochs", "write 40"]),
        (("train", "epoch"), 4, ["train.epoch: unknown key", "did you mean 'epochs'"]),
        (("datasets", "planted", "formt"), "x", ["datasets.planted.formt", "did you mean 'format'"]),
        (("datasets", "planted", "format"), "csv", ["datasets.planted.format", "'csv' is not one of"]),
        (("methods", "emr"), {}, ["methods.emr: unknown key", "did you mean 'erm'"]),
        (("methods", "erm", "nonsense"), 1, ["methods.erm.nonsense: unknown key"]),
        (("methods", "causal_moe@soft", "top"), 1, ["methods.causal_moe@soft.top: unknown key", "did you mean 'top_k'"]),
        (("methods", "causal_mo@x"), {}, ["methods.causal_mo@x: a variant of an unknown method; did you mean 'causal_moe'"]),
        (("methods", "erm@No-NDE"), {}, ["methods.erm@No-NDE: a variant is named in lower-case letters"]),
        (("datasets", "planted", "ablation"), ["causal_moe@x"], ["datasets.planted.ablation: 'causal_moe@x' is not defined"]),
        (("backbones", "planted_clip", "pretrain", "step"), 1, ["pretrain.step: unknown key", "did you mean 'steps'"]),
        (("datasets", "planted", "editor"), "estimate", ["datasets.planted.editor", "did you mean 'estimated'"]),
        (("datasets", "planted", "positive"), "happy", ["positive 'happy' is not one of classes"]),
        (("run",), "planted", ["run", "is not of type 'array'"]),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_key_is_told_with_its_place_and_mend(params: Any, path: tuple[str, ...], value: Any, words: list[str]) -> None:
    values = copy.deepcopy(params)
    node = values
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    message = told(values)
    assert "params.yaml" in message
    assert "docs/params.md" in message
    for word in words:
        assert word in message, message


def test_a_missing_section_and_several_errors_are_told_at_once(params: Any) -> None:
    del params["backbones"]
    params["train"]["lrr"] = 1
    message = told(params)
    assert "'backbones' is a required property" in message
    assert "train.lrr" in message
    assert "top level" in told([])


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_numbers_in_hints_are_numbers_to_every_yaml_reader(value: float) -> None:
    shown = schema._number(f"{value:.6e}")
    assert shown is not None
    assert isinstance(yaml.safe_load(shown), int | float)
    assert float(shown) == pytest.approx(value, rel=1e-5, abs=1e-14)


@pytest.mark.parametrize("text", ["abc", "", "nan", "inf", "1,5"])
def test_other_texts_are_no_numbers(text: str) -> None:
    assert schema._number(text) is None


def test_the_check_imports_nothing_heavy() -> None:
    code = f"import sys, causalroute.schema, causalroute.plan, jsonschema; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": "src", "PATH": ""}, check=True)
    assert done.stdout.strip() == "[]"
