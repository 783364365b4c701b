"""Atomic, deterministic writes: a reader sees the whole old file or the whole new one, never a part."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    import torch


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text with the line ends as given."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def canonical_json(value: Any) -> str:
    """One line, sorted keys, no spaces, NaN refused: equal values give equal strings."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: str | Path, value: Any) -> None:
    """Writes indented JSON with sorted keys; NaN is refused (write null)."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: str | Path, frame: pl.DataFrame) -> None:
    """Writes a frame as zstd Parquet."""
    with atomic(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")


def write_csv(path: str | Path, frame: pl.DataFrame) -> None:
    """Writes a frame as CSV with six significant decimals, so that re-runs compare byte by byte."""
    with atomic(path) as temporary:
        frame.write_csv(temporary, float_precision=6)


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes named tensors as safetensors; metadata values are strings. Equal content gives equal bytes."""
    from safetensors.torch import save_file

    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=dict(metadata))
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Safetensors writes its metadata in the random order of a hash map: this puts them in order, in place."""
    with path.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError("the safetensors header grew")  # the tensors behind it must not move
        stream.seek(8)
        stream.write(text.ljust(size))


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads every tensor and the metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, dict(stream.metadata() or {})  # noqa: SIM118 (not a dict: only keys() iterates)


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, read in blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    """What `ids_sha256` of a feature file is: equal for equal ids in equal order."""
    return sha256_bytes(*(name.encode() for name in ids))


def sha256_bytes(*parts: bytes) -> str:
    """The SHA-256 of byte strings, each preceded by its length so that no two lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
