"""Unpacks .zip and .tar.* files of strangers: no path outside the target, no links on disk, no bombs."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from causalroute.errors import UserError

MAX_FILES = 2_000_000
MAX_BYTES = 200 << 30
MAX_RATIO = 200  # unpacked to packed bytes, above a free allowance
ALLOWANCE = 1 << 30
BLOCK = 1 << 20
Member = tuple[str, IO[bytes]]


def is_archive(name: str) -> bool:
    """Whether the name is one of a zip or (compressed) tar file."""
    name = name.lower()
    return name.endswith((".zip", ".tar", ".tgz", ".tbz2", ".txz")) or ".tar." in name


def unpack(path: Path, target: Path, max_files: int = MAX_FILES, max_bytes: int | None = None) -> None:
    """Unpacks an archive into the folder `target`; links become copies of what they point to inside the archive.

    Args:
        path: .zip or .tar.* file.
        target: existing folder.
        max_files: more members are refused.
        max_bytes: more unpacked bytes are refused, whatever the archive's headers say (default: by the size of the archive).

    Raises:
        UserError: an unsafe name or link, a bomb, or a damaged archive.
    """
    limit = max_bytes if max_bytes is not None else min(MAX_BYTES, ALLOWANCE + MAX_RATIO * path.stat().st_size)
    members = _zip(path) if zipfile.is_zipfile(path) else _tar(path)
    written = 0
    try:
        for count, (name, stream) in enumerate(members, start=1):
            if count > max_files:
                raise _unsafe(path, f"more than {max_files} files")
            file = target / _safe(path, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with stream, file.open("wb") as out:
                while block := stream.read(BLOCK):
                    written += len(block)
                    if written > limit:
                        raise _unsafe(path, f"it unpacks to more than {limit} bytes")
                    out.write(block)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
        FileExistsError,
        NotADirectoryError,
        IsADirectoryError,
    ) as error:
        raise UserError(
            f"the archive cannot be unpacked: {error}", where=str(path), fix="fetch it again; encrypted archives must be unpacked by hand"
        ) from None


def _unsafe(path: Path, what: str) -> UserError:
    return UserError(
        f"the archive is not safe to unpack: {what}", where=str(path), fix="look at it; if you trust it, unpack it by hand and use a source of kind local"
    )


def _safe(path: Path, name: str) -> PurePosixPath:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0] or not pure.parts:
        raise _unsafe(path, f"the name {name!r} leads outside")
    return pure


def _zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise _unsafe(path, f"{member.filename!r} is a link")
            yield member.orig_filename, archive.open(member)


def _tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not (member.isfile() or member.islnk() or member.issym()):
                raise _unsafe(path, f"{member.name!r} is neither file nor folder")
            try:
                stream = archive.extractfile(member)
            except KeyError:
                stream = None
            if stream is None:
                raise _unsafe(path, f"the link {member.name!r} -> {member.linkname!r} leads outside or to a folder")
            yield member.name, stream
