"""ERM trained where no shortcut exists (splits oracle_train and oracle_valid, rho = .5): the ceiling of the benchmark (labelled oracle, planted data only)."""

from __future__ import annotations

from causalroute.methods import erm

Settings = erm.Settings
EDITOR = None


class Method(erm.Method):
    """See the module."""

    split_roles = {"train": "oracle_train", "valid": "oracle_valid"}  # noqa: RUF012 - read only
