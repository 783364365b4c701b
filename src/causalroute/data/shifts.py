"""Test splits that `prepare` makes of the test posts, where the settings ask for them: injected shortcuts, or a re-sampled OOD split.

Both replace the OOD posts that a data set publishes: those are listed in dropped.csv.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import polars as pl

from causalroute.config import Dataset
from causalroute.data.inject import inject
from causalroute.data.records import Records, dropped_of
from causalroute.data.resample import with_ood


def asked(dataset: Dataset) -> bool:
    """Whether test splits are to be made."""
    return dataset.inject is not None or dataset.splits.ood != "published"


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
    if dataset.splits.ood != "published":
        return with_ood(frame), truth, {"ood": "resampled"}
    return frame, truth, {}
