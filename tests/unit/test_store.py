"""The feature store: round trips, damage, and `verify`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causalroute.features import verify
from causalroute.features.progress import Progress
from causalroute.features.store import Store, shard_problem
from causalroute.io import write_tensors


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def rows(numbers: list[int], width: int = 3) -> torch.Tensor:
    return torch.tensor([[number, -number, number / 2][:width] for number in numbers], dtype=torch.float16)


def filled(root: Path, *groups: list[int]) -> Store:
    store = Store(root, "key")
    for numbers in groups:
        store.add([digest(number) for number in numbers], {"pooled": rows(numbers)})
    return store


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True), min_size=1, max_size=4), data=st.data())
def test_what_is_stored_comes_back_in_any_order(groups: list[list[int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("store")
    written = filled(root, *groups)
    known = sorted({number for group in groups for number in group})
    asked = data.draw(st.lists(st.sampled_from(known), min_size=1))
    for store in (written, Store(root, "key")):
        assert store.missing([digest(number) for number in asked]) == []
        assert torch.equal(store.pooled([digest(number) for number in asked]), rows(asked))
        assert store.missing([digest(100), digest(known[0]), digest(100)]) == [digest(100)]


def test_tokens_come_back_with_their_lengths(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    for number, length in ((1, 2), (2, 5)):
        tokens = torch.full((1, 6, 4), number, dtype=torch.float16)
        store.add([digest(number)], {"pooled": rows([number]), "tokens": tokens, "lengths": torch.tensor([length], dtype=torch.int32)})
    asked = [digest(2), digest(1)]
    assert store.lengths(asked).tolist() == [5, 2]
    assert store.tokens(asked).tolist() == [[2.0] * 4] * 5 + [[1.0] * 4] * 2
    assert store.tokens(asked[1:]).shape == (2, 4)
    assert store.tokens([]).shape == (0, 0)


def test_nothing_asked_gives_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    assert store.missing([]) == []
    assert store.pooled([]).shape == (0, 0)


def test_backbones_do_not_mix(tmp_path: Path) -> None:
    filled(tmp_path, [1])
    assert Store(tmp_path, "other").missing([digest(1)]) == [digest(1)]


@pytest.mark.parametrize("place", ["header", "data", "end"])
def test_a_damaged_shard_is_told_removed_and_never_used(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, [1, 2], [3])
    [path] = [path for path in (tmp_path / "key").iterdir() if path.stat().st_size == max(p.stat().st_size for p in (tmp_path / "key").iterdir())]
    content = bytearray(path.read_bytes())
    if place == "end":
        content = content[:-3]
    else:
        content[2 if place == "header" else -1] ^= 1
    path.write_bytes(content)
    assert shard_problem(path)
    store = Store(tmp_path, "key")
    assert store.missing([digest(number) for number in (1, 2, 3)]) == [digest(1), digest(2)]
    assert "damaged shard" in capsys.readouterr().err
    assert not path.exists()
    assert torch.equal(store.pooled([digest(3)]), rows([3]))


def test_a_shard_that_another_process_removed_is_missing(tmp_path: Path) -> None:
    filled(tmp_path, [1])
    store = Store(tmp_path, "key")
    next((tmp_path / "key").iterdir()).unlink()
    assert store.missing([digest(1)]) == [digest(1)]


def test_two_writers_of_the_same_inputs_share_one_file(tmp_path: Path) -> None:
    first, second = Store(tmp_path, "key"), Store(tmp_path, "key")
    for store in (first, second):
        store.add([digest(1)], {"pooled": rows([1])})
    assert len(list((tmp_path / "key").iterdir())) == 1
    assert torch.equal(second.pooled([digest(1)]), rows([1]))


def test_verify_tells_sound_from_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, [1], [2])
    assert verify.main(["--store", str(tmp_path)]) == 0
    assert "2 shards" in capsys.readouterr().out
    path = min((tmp_path / "key").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    (tmp_path / "key" / ".x.safetensors.1.part").write_bytes(b"")
    assert verify.main(["--store", str(tmp_path)]) == 1
    assert "checksum differs" in capsys.readouterr().out
    assert path.exists()
    assert verify.main(["--store", str(tmp_path), "--repair"]) == 0
    assert "removed 2 files" in capsys.readouterr().out
    assert len(list((tmp_path / "key").iterdir())) == 1


def test_verify_finds_shards_that_were_wrong_from_the_start(tmp_path: Path) -> None:
    store = Store(tmp_path, "key")
    store.add([digest(1)], {"pooled": rows([1]) / 0})
    store.add([digest(2)], {"pooled": rows([2, 2])})
    store.add([digest(3)], {"pooled": rows([3]).float()})
    assert sorted(shard_problem(path).split(" for ")[0] for path in (tmp_path / "key").iterdir()) == [
        "features are not finite",
        "pooled features are torch.float16 (2, 3)",
        "pooled features are torch.float32 (1, 3)",
    ]


def test_verify_of_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert verify.main(["--store", str(tmp_path / "none")]) == 0


def test_progress_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 4.0, 12.0, 12.0, 12.0, 20.0])
    monkeypatch.setattr("causalroute.features.progress.time.monotonic", lambda: next(clock))
    progress = Progress(60, "texts")
    progress.update(10)
    progress.update(20)
    assert capsys.readouterr().err == "texts: 30/60, 2.5/s, 12 s left\n"
    progress.update(0)


@pytest.mark.slow
def test_feature_files_have_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = "import sys, torch; from causalroute.io import write_tensors\n"
    code += "write_tensors(sys.argv[1], {'x': torch.ones(2)}, {k: k for k in 'one two three é'.split()})"
    contents = set()
    for number in range(3):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{number}")], check=True, env={"PYTHONPATH": "src"}, cwd=Path(__file__).parents[2])
        contents.add((tmp_path / f"{number}").read_bytes())
    write_tensors(tmp_path / "here", {"x": torch.ones(2)}, {k: k for k in ("é", "three", "two", "one")})
    assert contents == {(tmp_path / "here").read_bytes()}
