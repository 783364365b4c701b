"""Archives of strangers: nothing lands outside the target, no link on disk, no bomb."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from causalroute.data.sources import archive
from causalroute.errors import UserError


def zip_of(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, body in members.items():
            packed.writestr(name, body)
    return path


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_archives_cannot_leave_their_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / "deep" / "out"
    target.mkdir(parents=True)
    zip_of(tmp_path / "z.zip", **{name: "x"})
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as packed:
        member = tarfile.TarInfo(name)
        member.size = 1
        packed.addfile(member, io.BytesIO(b"x"))
    for packed_file in ("z.zip", "t.tar.gz"):
        with pytest.raises(UserError, match="leads outside"):
            archive.unpack(tmp_path / packed_file, target)
    assert not list(tmp_path.rglob("*evil*"))


def test_archive_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for number, (goal, fine) in enumerate({"real": True, "../secret": False, str(tmp_path / "secret"): False}.items()):
        packed_file, target = tmp_path / f"{number}.tar", tmp_path / f"out{number}"
        target.mkdir()
        with tarfile.open(packed_file, "w") as packed:
            member = tarfile.TarInfo("real")
            member.size = 2
            packed.addfile(member, io.BytesIO(b"ok"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, goal
            packed.addfile(link)
        if fine:
            archive.unpack(packed_file, target)
            assert (target / "link").read_text() == "ok"
            assert not (target / "link").is_symlink()
        else:
            with pytest.raises(UserError, match="leads outside"):
                archive.unpack(packed_file, target)
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as zipped:
        zipped.writestr(info, "/etc/hostname")
    with pytest.raises(UserError, match="is a link"):
        archive.unpack(tmp_path / "l.zip", tmp_path / "out0")


def test_archive_limits_and_damage(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    packed = zip_of(tmp_path / "z.zip", a="x" * 100, b="y")
    with pytest.raises(UserError, match="more than 1 files"):
        archive.unpack(packed, target, max_files=1)
    with pytest.raises(UserError, match="more than 50 bytes"):
        archive.unpack(packed, target, max_bytes=50)
    (tmp_path / "cut.zip").write_bytes(packed.read_bytes()[:60])
    with pytest.raises(UserError, match="cannot be unpacked"):
        archive.unpack(tmp_path / "cut.zip", target)
