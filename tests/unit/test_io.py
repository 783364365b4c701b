"""Atomic, deterministic writes and named random substreams."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causalroute import io, layout, rng
from causalroute.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    io.write_text(path, "old")

    def fail() -> None:
        with io.atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_line_ends_and_rights_are_those_of_a_plain_write(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.txt", tmp_path / "b.txt"
    io.write_text(path, "one\r\ntwo\n")
    plain.write_text("")
    assert path.read_bytes() == b"one\r\ntwo\n"
    assert path.stat().st_mode == plain.stat().st_mode


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(value=JSON)
def test_canonical_json_is_one_line_and_reads_back(value: object) -> None:
    text = io.canonical_json(value)
    assert json.loads(text) == value
    assert "\n" not in text


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert io.canonical_json({"b": 1, "a": 2}) == io.canonical_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.canonical_json(float("nan"))


def test_tensors_frames_and_json_survive_the_round_trip(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(6).reshape(2, 3).T}  # not contiguous
    io.write_tensors(tmp_path / "t.safetensors", tensors, {"key": "value"})
    back, metadata = io.read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(back["x"], tensors["x"])
    assert metadata == {"key": "value"}
    frame = pl.DataFrame({"a": [1, 2], "b": [0.1234567891, None]})
    io.write_parquet(tmp_path / "f.parquet", frame)
    assert pl.read_parquet(tmp_path / "f.parquet").equals(frame)
    io.write_csv(tmp_path / "f.csv", frame)
    assert (tmp_path / "f.csv").read_text() == "a,b\n1,0.123457\n2,\n"
    io.write_json(tmp_path / "j.json", {"b": 1, "a": [1]})
    assert io.read_json(tmp_path / "j.json") == {"a": [1], "b": 1}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        io.write_tensors(tmp_path / name, {"x": torch.ones(3), "a": torch.zeros(1)}, {"k": "v"})
    assert io.sha256_file(tmp_path / "one") == io.sha256_file(tmp_path / "two")


@given(parts=st.lists(st.binary(max_size=4), max_size=3), others=st.lists(st.binary(max_size=4), max_size=3))
def test_hash_of_parts_tells_apart_where_one_part_ends(parts: list[bytes], others: list[bytes]) -> None:
    assert (io.sha256_bytes(*parts) == io.sha256_bytes(*others)) == (parts == others)


def test_substreams_are_repeatable_and_apart() -> None:
    assert rng.generator(0, "a", 1).random() == rng.generator(0, "a", 1).random()
    seeds = {rng.substream(seed, *names) for seed in (0, 1) for names in ((), ("a",), ("a", 1), ("a1",))}
    assert len(seeds) == 8
    assert rng.substream(0, "pinned") == 3399621010286191249  # a change of the scheme would change every result
    first, again = (torch.rand(3, generator=rng.torch_generator(3, "x")) for _ in range(2))
    assert torch.equal(first, again)


def test_the_feature_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path))
    assert layout.feature_store() == tmp_path / "features"
    monkeypatch.delenv("CAUSALROUTE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert layout.feature_store() == tmp_path / "xdg" / "causalroute" / "features"


def test_an_error_tells_what_where_and_how_to_mend() -> None:
    assert (
        str(UserError("no column 'txt'", where="posts.csv", fix="name it in columns.text"))
        == "no column 'txt'\n  where: posts.csv\n  fix:   name it in columns.text"
    )
