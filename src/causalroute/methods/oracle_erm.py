"""ERM trained where no shortcut exists: the ceiling of the benchmark (labelled oracle, planted and injected data only).

The splits oracle_train and oracle_valid have cues at random (planted, r = 1/C) or none (injected).
"""

from __future__ import annotations

from causalroute.methods import erm

Settings = erm.Settings
EDITOR = None


class Method(erm.Method):
    """See the module."""

    split_roles = {"train": "oracle_train", "valid": "oracle_valid"}  # noqa: RUF012 - read only
