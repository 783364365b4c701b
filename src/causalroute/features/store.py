"""Content-addressed shards of features: identical inputs are encoded once, by whichever run, data set or checkout comes first.

Layout: `<root>/<backbone key>/<sha256 of the file>.safetensors`. A shard holds `keys` (n, 32) uint8 (digests of the inputs), `pooled` (n, D) float16
and, where asked for, `tokens` (n, L, D) float16 with `lengths` (n,) int32; of a multimodal LLM also `scores` (n, V, C) float32 and `replies` (n,) int8
(`mllm.replies`). It is written whole or not at all, so a killed run resumes after its last shard; its name is its checksum, so that any damage shows
and processes that write at once cannot harm each other.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from causalroute.errors import UserError
from causalroute.io import atomic, sha256_file

DIGEST = 32
UNREADABLE = (SafetensorError, OSError, ValueError)


class Store:
    """The features of one backbone. Opening reads the keys of every shard, nothing else.

    Args:
        root: folder shared by all backbones.
        key: `Backbone.key`.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.folder = Path(root) / key
        self.shards: list[Path] = []
        self.index: dict[bytes, tuple[int, int]] = {}
        self.checked: set[int] = set()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                self._register(path, _read(path, "keys"))
            except UNREADABLE as error:
                self._discard(path, str(error))

    def _register(self, path: Path, keys: torch.Tensor) -> int:
        raw = keys.numpy().tobytes()
        for row in range(len(raw) // DIGEST):
            self.index.setdefault(raw[row * DIGEST : (row + 1) * DIGEST], (len(self.shards), row))
        self.shards.append(path)
        return len(self.shards) - 1

    def _discard(self, path: Path, why: str) -> None:
        print(f"feature store: damaged shard {path} ({why}) is removed; its inputs are encoded again", file=sys.stderr)
        path.unlink(missing_ok=True)

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those of `digests` that are not stored, each once, in order. The shards that hold the others are checked first; a damaged one is removed."""
        wanted = list(dict.fromkeys(digests))
        for number in sorted({self.index[digest][0] for digest in wanted if digest in self.index} - self.checked):
            path = self.shards[number]
            problem = checksum_problem(path)
            if problem:
                self._discard(path, problem)
                self.index = {digest: place for digest, place in self.index.items() if place[0] != number}
            self.checked.add(number)
        return [digest for digest in wanted if digest not in self.index]

    def add(self, digests: Sequence[bytes], tensors: Mapping[str, torch.Tensor]) -> None:
        """Stores n inputs as one shard.

        Args:
            digests: n keys of 32 bytes.
            tensors: `pooled` (n, D) and possibly `tokens` (n, L, D) and `lengths` (n,).
        """
        keys = torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).reshape(-1, DIGEST)
        content = save({"keys": keys, **{name: tensor.contiguous() for name, tensor in tensors.items()}})
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.safetensors"
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        self.checked.add(self._register(path, keys))

    def pooled(self, digests: Sequence[bytes]) -> torch.Tensor:
        """Pooled features (n, D) float16 of stored inputs.

        Raises:
            KeyError: an input is not stored.
        """
        return self.values(digests, "pooled")

    def values(self, digests: Sequence[bytes], name: str) -> torch.Tensor:
        """What is stored under `name` for each input, (n, ...).

        Raises:
            KeyError: an input is not stored.
        """
        result: torch.Tensor | None = None
        for number, rows, places in self._by_shard(digests):
            values = self._load(number, name)
            result = torch.empty(len(digests), *values.shape[1:], dtype=values.dtype) if result is None else result
            result[places] = values[rows]
        return torch.empty(0, 0, dtype=torch.float16) if result is None else result

    def lengths(self, digests: Sequence[bytes]) -> torch.Tensor:
        """Number of tokens (n,) int32 of each stored input."""
        result = torch.zeros(len(digests), dtype=torch.int32)
        for number, rows, places in self._by_shard(digests):
            result[places] = self._load(number, "lengths")[rows]
        return result

    def tokens(self, digests: Sequence[bytes]) -> torch.Tensor:
        """Token features (sum of `lengths`, D) float16 of stored inputs, those of one input behind those of the one before."""
        lengths = self.lengths(digests).long()
        starts, result = lengths.cumsum(0) - lengths, None
        for number, rows, places in self._by_shard(digests):
            values = self._load(number, "tokens")
            result = torch.empty(int(lengths.sum()), values.shape[2], dtype=values.dtype) if result is None else result
            offset = torch.arange(values.shape[1])
            there = offset < lengths[places][:, None]
            result[(starts[places][:, None] + offset)[there]] = values[rows][there]
        return torch.empty(0, 0, dtype=torch.float16) if result is None else result

    def _by_shard(self, digests: Sequence[bytes]) -> list[tuple[int, list[int], list[int]]]:
        """(shard, rows in it, places in `digests`): each shard is opened once."""
        groups: dict[int, tuple[list[int], list[int]]] = {}
        for place, digest in enumerate(digests):
            number, row = self.index[digest]
            rows, places = groups.setdefault(number, ([], []))
            rows.append(row)
            places.append(place)
        return [(number, rows, places) for number, (rows, places) in groups.items()]

    def _load(self, number: int, name: str) -> torch.Tensor:
        path = self.shards[number]
        try:
            return _read(path, name)
        except UNREADABLE as error:
            raise UserError(f"a shard of the feature store vanished while it was read: {error}", where=str(path), fix="run again") from error


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as stream:
        return stream.get_tensor(name)


def checksum_problem(path: Path) -> str:
    """Why the bytes of a shard are not those that were written; empty when they are."""
    try:
        return "" if sha256_file(path) == path.stem else "checksum differs"
    except OSError as error:
        return str(error)


def shard_problem(path: Path) -> str:
    """What is wrong with a shard: checksum, shapes, types or values that are not finite; empty when it is sound."""
    problem = checksum_problem(path)
    if problem:
        return problem
    try:
        keys, pooled = _read(path, "keys"), _read(path, "pooled")
    except UNREADABLE as error:
        return str(error)
    if keys.dtype != torch.uint8 or keys.dim() != 2 or keys.shape[1] != DIGEST:
        return f"keys have shape {tuple(keys.shape)}"
    if pooled.dtype != torch.float16 or pooled.dim() != 2 or len(pooled) != len(keys):
        return f"pooled features are {pooled.dtype} {tuple(pooled.shape)} for {len(keys)} keys"
    return "" if bool(torch.isfinite(pooled).all()) else "features are not finite"
