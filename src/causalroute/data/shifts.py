"""Test splits that `prepare` makes of the test posts, where the settings ask for them: injected shortcuts, or a re-sampled OOD split.

Both replace the OOD posts that a data set publishes: those are listed in dropped.csv. A re-sampled split that is only wanted if possible replaces none, and is
left out, with the reason in summary.json, where it cannot be made or is too small to say anything.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from causalroute.config import Dataset
from causalroute.data.inject import inject
from causalroute.data.records import Records, dropped_of
from causalroute.data.resample import with_ood
from causalroute.errors import UserError

FEWEST = 50
"""Posts of a re-sampled OOD split that is made if possible: with fewer, an accuracy has an interval of more than 14 points to either side."""


def asked(dataset: Dataset) -> bool:
    """Whether test splits are to be made in the place of published ones."""
    return dataset.inject is not None or dataset.splits.ood == "resampled"


def unshifted(records: Records, dataset: Dataset) -> Records:
    """The records, without published OOD posts where others will be made."""
    if not asked(dataset):
        return records
    known = pl.col("split").is_null() | ~pl.col("split").is_in(("ood", "neutral", "clean", "oracle_train", "oracle_valid"))
    left = records.frame.filter(~known)
    dropped = dropped_of([(name or "", "replaced_split", where) for name, where in left.select("id", "where").iter_rows()])
    return dataclasses.replace(records, frame=records.frame.filter(known), dropped=pl.concat([records.dropped, dropped]))


def shifted(frame: pl.DataFrame, truth: pl.DataFrame | None, dataset: Dataset) -> tuple[pl.DataFrame, pl.DataFrame | None, dict[str, Any]]:
    """Posts, truth and further keys of the summary, once the splits are known.

    Args:
        frame: usable posts, every split assigned.
        truth: what the format reader knows.
        dataset: its settings.

    Raises:
        UserError: the posts do not allow what is asked for.
    """
    if dataset.inject is not None:
        posts, known, told = inject(frame, dataset.inject, len(dataset.classes))
        return posts, known, {"injected": told}
    if dataset.splits.ood == "resampled":
        return with_ood(frame), truth, {"ood": "resampled"}
    if dataset.splits.ood == "if_possible" and not (frame["split"] == "ood").any():
        tried, became = _tried(frame)
        return tried, truth, {"ood": became}
    return frame, truth, {}


def _tried(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The posts, with a re-sampled OOD split where it can be made and is large enough, and what became of it."""
    try:
        posts = with_ood(frame)
    except UserError as error:
        return frame, f"none: {error.what}"
    chosen = posts.height - frame.height
    return (posts, "resampled") if chosen >= FEWEST else (frame, f"none: only {chosen} test posts could be chosen, {FEWEST} are needed")
