"""The examination: starts what takes time, looks at the rest meanwhile, and puts the findings in order."""

from __future__ import annotations

from pathlib import Path

from causalroute.doctor import checkout, compute, machine, packages, storage
from causalroute.doctor.finding import Finding, attempt


def examine(folder: Path, *, online: bool = False, deep: bool = False) -> list[Finding]:
    """Looks at the interpreter, the packages, the devices, the machine, the caches and, where `folder` is one, the checkout or project folder.

    Args:
        folder: a checkout, a project folder, or any other.
        online: also asks whether the model hub answers.
        deep: also reads every shard of the feature store.

    Returns:
        The findings, in the order to read them. Nothing is raised: a check that fails is a finding.
    """
    torch, imports = compute.start("torch"), compute.start("imports", *packages.modules())
    shards = compute.start("shards") if deep else None
    return [
        *attempt("python", packages.python),
        *attempt("packages", packages.required),
        *attempt("extras", packages.extras),
        *attempt("imports", lambda: compute.imported(imports)),
        *attempt("torch", lambda: compute.devices(torch)),
        *attempt("machine", machine.resources),
        *attempt("locale", machine.text_encoding),
        *attempt("locks", machine.semaphores),
        *attempt("hub", lambda: machine.hub(online)),
        *attempt("storage", storage.caches),
        *(attempt("feature store", lambda: compute.sound(shards)) if shards else []),
        *attempt("project", lambda: checkout.look(folder)),
    ]
