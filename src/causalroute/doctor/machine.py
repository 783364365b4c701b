"""The machine: cores and memory within the limits of its container, text encoding, locks between processes, and the way to the model hub."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from causalroute.doctor.finding import Finding

GIB = 2**30
LITTLE = 4 * GIB
"""Memory below which an image encoder beside a training job may not fit."""
CGROUP = Path("/sys/fs/cgroup")
HUB = "https://huggingface.co"
PATIENCE = 5.0
"""Seconds to wait for the hub."""


def cores(cgroup: Path = CGROUP) -> tuple[float, int]:
    """Cores that this process may use, and those of the machine."""
    machine = os.cpu_count() or 1
    allowed = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(machine)
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not quota:  # the older layout
        quota, period = _read(cgroup / "cpu" / "cpu.cfs_quota_us"), _read(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period):
        allowed = min(allowed, int(quota) / int(period))
    return allowed, machine


def memory(cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Bytes that this process may use, and those of the machine; 0 where the system does not say."""
    lines = dict(line.split(":", 1) for line in _read(meminfo).splitlines() if ":" in line)
    words = lines.get("MemTotal", "").split()
    machine = int(words[0]) * 1024 if words else 0
    limits = [_read(cgroup / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit() and int(limit) < machine)]), machine


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""


def resources() -> Iterator[Finding]:
    """Cores, threads and memory."""
    allowed, machine = cores()
    told = f"{allowed:g} of {machine} cores" if allowed < machine else f"{machine} cores"
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > max(1, allowed):
        fix = "export OMP_NUM_THREADS=1; the workflow splits its work into processes and sets that itself"
        yield Finding("cores", "warning", f"{told}, and OMP_NUM_THREADS asks for {threads} threads", fix)
    else:
        yield Finding("cores", "ok", told)
    usable, whole = memory()
    told = f"{usable / GIB:.1f} of {whole / GIB:.1f} GiB" if usable < whole else f"{whole / GIB:.1f} GiB"
    if not whole:
        yield Finding("memory", "ok", "this system does not say how much")
    elif usable < LITTLE:
        yield Finding(
            "memory", "warning", f"{told}; encoding and training want about 4 GiB a job", "raise the limit, or run with `--cores 1` and a small backbone"
        )
    else:
        yield Finding("memory", "ok", told)


def text_encoding() -> Iterator[Finding]:
    """Posts are UTF-8: so must be what Python opens and prints."""
    found = {"files": locale.getpreferredencoding(False), "paths": sys.getfilesystemencoding(), "terminal": getattr(sys.stdout, "encoding", None) or "none"}
    other = {name: value for name, value in found.items() if value.lower().replace("-", "") not in ("utf8", "none")}
    if other:
        told = ", ".join(f"{name} {value}" for name, value in other.items())
        yield Finding("locale", "warning", f"not UTF-8: {told}", "export LC_ALL=C.UTF-8 PYTHONUTF8=1")
    else:
        yield Finding("locale", "ok", "UTF-8")


def semaphores() -> Iterator[Finding]:
    """Locks between processes, which Linux keeps in /dev/shm; a container may have none, or one that cannot be written to."""
    try:
        import multiprocessing

        multiprocessing.Lock()
    except (ImportError, OSError) as error:
        yield Finding("locks", "warning", f"processes cannot share locks: {error}", "mount /dev/shm, writable to you (docker: --shm-size 1g)")
        return
    yield Finding("locks", "ok", "processes can share locks")


def hub(online: bool) -> Iterator[Finding]:
    """The model hub; asked only where `online`."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    address = os.environ.get("HF_ENDPOINT", HUB)
    if offline:
        status, fix = ("warning", "unset HF_HUB_OFFLINE") if online else ("ok", "unset HF_HUB_OFFLINE to download others")
        yield Finding("hub", status, "HF_HUB_OFFLINE is set: only models that are here already can be used", fix)  # type: ignore[arg-type]
    elif not online:
        yield Finding("hub", "ok", "not asked", "--online asks whether it answers")
    else:
        why = unreachable(address)
        fix = "check network, HTTPS_PROXY and HF_ENDPOINT; or take the backbone `small`, which needs no download, or a model folder copied from elsewhere"
        yield Finding("hub", "warning", f"{address} does not answer: {why}", fix) if why else Finding("hub", "ok", f"{address} answers")


def unreachable(address: str) -> str:
    """Why an address does not answer; empty when it does, whatever it says."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", "") or error)
    return ""
