"""A file behind an http(s) address: checked by SHA-256, resumed where it broke off, tried again with growing pauses.

pooch keeps the file in the user's cache and checks it; the download itself (HTTP Range into a `.part` file beside it) is ours, for pooch starts over.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from causalroute import layout
from causalroute.config import Dataset, Source
from causalroute.data.sources.archive import is_archive, unpack
from causalroute.errors import UserError

ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; doubles
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
BLOCK = 1 << 16  # bytes; a broken connection loses at most one block
MEND = "check the network and the address; behind a proxy set https_proxy; or download the file by hand and use a source of kind local"


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Downloads `source.url` and puts the file, or the content of the archive, into `target`.

    Raises:
        UserError: no network, the server refuses, another checksum, or an archive that is unsafe to unpack.
    """
    import pooch

    if urlsplit(source.url).scheme not in ("http", "https"):
        raise UserError("the address is neither http nor https", where=source.url, fix="use a source of kind local for files of this machine")
    name = PurePosixPath(unquote(urlsplit(source.url).path)).name or "download"
    folder = layout.download_cache() / "http"
    pooch.get_logger().setLevel("WARNING")
    try:
        path = Path(
            pooch.retrieve(
                source.url, f"sha256:{source.sha256.lower()}", fname=f"{source.sha256[:16]}-{name}", path=folder, downloader=_downloader(folder, source)
            )
        )
    except ValueError as error:
        fix = "if the publisher changed the file, look at it and put its new sha256 in params.yaml; if not, do not use it"
        raise UserError(f"the file is not the declared one: {error}", where=source.url, fix=fix) from None
    if is_archive(name):
        unpack(path, target)
    else:
        shutil.copyfile(path, target / name)


def _downloader(folder: Path, source: Source) -> Callable[[str, str, Any], None]:
    part = folder / f"{source.sha256[:16]}.part"

    def download(url: str, output: str, _: Any) -> None:
        resume(url, part)
        shutil.move(part, output)  # a file with the wrong checksum is not kept: the next run starts afresh

    return download


def resume(url: str, part: Path, attempts: int = ATTEMPTS, pause: float = PAUSE) -> None:
    """Downloads `url` into `part`, going on from the bytes that are already there.

    Raises:
        UserError: the server says no (4xx), or all attempts broke.
    """
    import requests

    for attempt in range(attempts):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            return _attempt(url, part)
        except (requests.RequestException, ConnectionError) as error:
            failure: Exception = error
            if _refused(error):
                break
    reason = f"the server answers {failure}" if isinstance(failure, requests.HTTPError) else f"no complete answer in {attempts} attempts ({_plain(failure)})"
    raise UserError(f"download failed: {reason}", where=url, fix=f"{MEND}; what has arrived is kept and the next run goes on from there")


def _refused(error: Exception) -> bool:
    """Whether the server said no, so that asking again is in vain."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return 400 <= status < 500 and status not in (408, 429)


def _plain(failure: Exception) -> str:
    inner: BaseException = failure
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return f"{type(inner).__name__}: {inner}"[:200]


def _attempt(url: str, part: Path) -> None:
    import requests
    from tqdm import tqdm

    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if start and answer.status_code == 416:  # nothing after the bytes we have: whole, or longer than the file; the checksum tells
            return
        answer.raise_for_status()
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if resumed else 0
        expected = int(answer.headers.get("Content-Length") or 0) + start
        bar = tqdm(total=expected or None, initial=start, unit="B", unit_scale=True, desc=part.name, disable=not sys.stderr.isatty())
        with bar, part.open("ab" if resumed else "wb") as stream:
            for block in answer.iter_content(BLOCK):
                stream.write(block)
                bar.update(len(block))
    if expected and part.stat().st_size < expected:
        raise ConnectionError(f"the connection closed after {part.stat().st_size} of {expected} bytes")
