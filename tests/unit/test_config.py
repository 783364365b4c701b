from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalroute import config
from causalroute.config import Backbone, Columns, Config, Dataset, Editor, Planted, Source, Train, parse, suggest
from causalroute.errors import UserError
from causalroute.io import canonical_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECTIONS = [cls for cls in vars(config).values() if dataclasses.is_dataclass(cls) and isinstance(cls, type)]
DATASET: dict[str, Any] = {
    "format": "table", "table": "posts.csv", "task": "classification", "classes": ["a", "b"], "backbone": "clip", "editor": "estimated", "methods": ["erm"],
    "sources": [{"kind": "local", "path": "mine"}],
}  # fmt: skip


def told(cls: type, **values: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse(cls, canonical_json(values))
    return str(caught.value)


@pytest.mark.parametrize("cls", SECTIONS)
def test_sections_are_frozen_strict_and_explained(cls: Any) -> None:
    schema = config.parse.__globals__["TypeAdapter"](cls).json_schema()
    assert schema["additionalProperties"] is False
    assert cls.__dataclass_params__.frozen
    for field in dataclasses.fields(cls):
        assert schema["properties"][field.name].get("description"), f"{cls.__name__}.{field.name} has no docstring line"


@given(st.floats(1e-6, 10), st.integers(1, 500))
def test_parse_undoes_asdict(lr: float, epochs: int) -> None:
    train = Train(lr=lr, epochs=epochs)
    assert parse(Train, canonical_json(dataclasses.asdict(train))) == train


def test_a_full_data_set_survives_the_round_trip() -> None:
    dataset = parse(Dataset, canonical_json(DATASET | {"columns": {"text": "t", "groups": ["g"]}, "label_map": {"x": "a"}, "expected": {"train": 3}}))
    assert dataset.columns == Columns(text="t", groups=("g",))
    assert parse(Dataset, canonical_json(dataclasses.asdict(dataset))) == dataset


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "local"}, "needs 'path'"),
        ({"kind": "http", "url": "https://example.org/a.zip"}, "needs 'sha256'"),
        ({"kind": "git", "url": "https://example.org/a.git"}, "needs 'revision'"),
        ({"kind": "hub", "repo": "a/b", "revision": "main"}, "full commit id"),
        ({"kind": "ftp"}, "kind"),
        ({"kind": "local", "pth": "x", "path": "y"}, "did you mean 'path'"),
    ],
)
def test_a_source_says_what_it_lacks(values: dict[str, str], words: str) -> None:
    assert words in told(Source, **values)


def test_complete_sources_are_taken() -> None:
    assert parse(Source, canonical_json({"kind": "hub", "repo": "a/b", "revision": COMMIT})).revision == COMMIT
    assert parse(Source, '{"kind":"planted"}').kind == "planted"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["a", "a"]}, "at least two different labels"),
        ({"positive": "c"}, "not one of classes"),
        ({"table": ""}, "needs 'table'"),
        ({"methods": ["erm", "erm"]}, "names one method twice"),
        ({"columns": {"txt": "t"}}, "did you mean 'text'"),
        ({"expected": {"train": "many"}}, "expected.train"),
        ({"classes": [1, 2]}, "classes.0"),
    ],
)
def test_a_data_set_says_what_contradicts(change: dict[str, Any], words: str) -> None:
    assert words in told(Dataset, **(DATASET | change))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "dual_encoder"}, "either 'model' or 'pretrain'"),
        ({"kind": "dual_encoder", "model": "m", "pretrain": {}}, "either 'model' or 'pretrain'"),
        ({"kind": "encoder_pair"}, "needs 'text_model'"),
        ({"kind": "encoder_pair", "text_model": "t", "model": "m"}, "not 'model' or 'pretrain'"),
    ],
)
def test_a_backbone_says_what_contradicts(values: dict[str, Any], words: str) -> None:
    assert words in told(Backbone, **values)


@pytest.mark.parametrize(
    ("key", "value", "known"),
    [("run", ["x"], "run"), ("backbones", {}, "datasets.d.backbone"), ("editors", {}, "datasets.d.editor"), ("methods", {}, "datasets.d.methods")],
)
def test_names_must_be_defined(key: str, value: Any, known: str) -> None:
    whole: dict[str, Any] = {
        "run": ["d"], "datasets": {"d": DATASET}, "methods": {"erm": {}}, "editors": {"estimated": {"text": "lexicon", "image": "saliency"}},
        "backbones": {"clip": {"kind": "dual_encoder", "model": "m"}},
    }  # fmt: skip
    parse(Config, canonical_json(whole))
    assert known in told(Config, **(whole | {key: value}))


def test_values_are_not_converted_silently() -> None:
    assert "epochs" in told(Train, epochs="40")
    assert "epochs" in told(Train, epochs=1.5)
    assert "train" in told(Planted, train=True)
    assert "text" in told(Editor, text="lexicn", image="random")


def test_suggest_names_the_closest_or_all() -> None:
    assert suggest("epoch", ["epochs", "lr"]) == "did you mean 'epochs'?"
    assert suggest("zzz", ["b", "a"]) == "choose from ['a', 'b']"
