"""A pinned revision of a data set on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from causalroute import layout
from causalroute.config import Dataset, Source
from causalroute.data.sources.local import copy_tree
from causalroute.errors import UserError


def materialise(source: Source, dataset: Dataset, target: Path) -> None:
    """Puts the content of `source.path` (a folder or a file; empty: all) of the hub data set into `target`.

    The download lies in the user's cache, where an interrupted one goes on.

    Raises:
        UserError: no network, no such data set or revision, access not granted, or nothing at that path.
    """
    from huggingface_hub import snapshot_download

    where = f"{source.repo}@{source.revision}"
    local = layout.download_cache() / "hub" / f"{source.repo.replace('/', '--')}@{source.revision}"
    patterns = [source.path, f"{source.path.rstrip('/')}/**"] if source.path else None
    try:
        snapshot_download(source.repo, repo_type="dataset", revision=source.revision, allow_patterns=patterns, local_dir=local)
    except Exception as error:  # the hub client raises its own, requests', httpx' and value errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        fix = "check the network (HF_HUB_OFFLINE must not be 1), the name and the revision; for a gated data set log in with `hf auth login`"
        raise UserError(f"the hub data set could not be fetched: {type(error).__name__}: {reason[:300]}", where=where, fix=fix) from None
    wanted = local / source.path
    if not wanted.exists():
        raise UserError(f"the data set has nothing at {source.path!r}", where=where, fix="correct 'path'")
    copy_tree(wanted, target)
