"""One table -> audit, trained models, report and a saved model, in a project folder that remembers what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import causalroute
from causalroute import layout, plan
from causalroute.config import Config
from causalroute.data.sources import table as table_source
from causalroute.errors import UserError
from causalroute.io import read_json, sha256_bytes, sha256_file
from causalroute.project import backbones, params, settings
from causalroute.project.run import Lines, Watch, run
from causalroute.project.settings import Wanted
from causalroute.project.steps import WORDS

MODEL = "model"
REFERENCE = "erm"


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished call of `train`."""

    folder: Path
    dataset: str
    model: Path
    changed: bool
    """whether anything was done; False: all was up to date"""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A project whose settings are written, and what its run needs."""

    folder: Path
    config: Config
    dataset: str
    method: str
    more: tuple[str, ...]
    """further words of the Snakemake call"""
    environment: Mapping[str, str]


def prepare(wanted: Wanted, folder: Path, *, lines: Lines, force: bool = False, fetch: bool = True) -> Prepared:
    """Understands the table, writes params.yaml and makes sure that the backbone can be had.

    Args:
        wanted: what to make of which table.
        folder: of the project.
        lines: where to tell what was guessed.
        force: write params.yaml anew even where a user edited it.
        fetch: download a backbone that is not here.

    Raises:
        UserError: the table, a setting or the backbone is unusable; comes before any long work.
    """
    guessed, values = settings.plan(wanted)
    outcome = params.settle(folder, params.text_of(values), force=force)
    lost = ", ".join(f"{count} {reason}" for reason, count in guessed.dropped.items())
    lines.tell(f"{wanted.table.path.name}: {guessed.used} posts, classes {', '.join(guessed.classes)}" + (f"; cannot be used: {lost}" if lost else ""))
    for note in guessed.notes:
        lines.tell(f"  {note}")
    lines.tell(f"  {folder / 'params.yaml'}: {'has your edits, kept' if outcome == 'kept' else 'every setting of this run'}")
    config = params.read(folder)
    dataset = settings.name_of(wanted.table.path)
    dataset = dataset if dataset in config.run else config.run[0]
    return Prepared(folder, config, dataset, _saved(config, dataset, wanted.method), _stale(folder, config), _environment(config, fetch, wanted))


def _saved(config: Config, dataset: str, method: str) -> str:
    methods = config.datasets[dataset].methods
    if method not in methods:
        fix = f"name one of {list(methods)} with --method, or add it to `methods` of the data set"
        raise UserError(f"the method {method!r} is not among those of the project", where="--method", fix=fix)
    from causalroute.serving.assemble import require_saveable

    require_saveable(config, dataset, method)
    return method


def _stale(folder: Path, config: Config) -> tuple[str, ...]:
    """`--forcerun fetch` where a table or its images changed since they were brought."""
    for name in config.run:
        path = folder / layout.source(name)
        for source in config.datasets[name].sources:
            if source.kind == "table" and path.is_file() and not table_source.is_current(source, read_json(path)):
                return ("--forcerun", "fetch")
    return ()


def _environment(config: Config, fetch: bool, wanted: Wanted) -> dict[str, str]:
    """Everything of the hub is here by now, and a network that goes away must not end a long run; only language models of editors are fetched later."""
    used = {editor for name in config.run for editor in plan.feature_editors(config, name)}
    reading, looking = ({getattr(config.datasets[name], role) for name in config.run} - {""} for role in ("backbone", "looker"))
    if fetch:
        for name in sorted(reading):
            backbones.available(config.backbones[name], wanted.backbone)
        for name in sorted(looking - reading):
            backbones.available(config.backbones[name], wanted.looker, "--looker")
    return {} if any(config.editors[editor].llm for editor in used) else {"HF_HUB_OFFLINE": "1"}


def train(wanted: Wanted, folder: Path, cores: int, *, lines: Lines | None = None, force: bool = False) -> Done:
    """The whole way from a table to a saved model; what is up to date is not done again.

    Args:
        wanted: what to make of which table.
        folder: of the project.
        cores: how many the run may use.
        lines: where to tell (None: standard error).
        force: write params.yaml anew even where a user edited it.

    Raises:
        UserError: the table, a setting or the backbone is unusable, or a step failed.
        Stopped: the user ended the run.
    """
    shown = lines or Lines()
    made = prepare(wanted, folder, lines=shown, force=force)
    watch = run(folder, cores, more=made.more, lines=shown, environment=made.environment)
    saved = save(made, shown)
    return Done(folder, made.dataset, folder / MODEL, not watch.nothing or saved)


def rehearse(wanted: Wanted, folder: Path, cores: int, *, lines: Lines, force: bool = False) -> Watch:
    """Writes params.yaml and says what would run.

    Raises:
        UserError: as `train`, the backbone apart, which is not fetched.
    """
    made = prepare(wanted, folder, lines=lines, force=force, fetch=False)
    watch = run(folder, cores, more=("--dry-run", *made.more), lines=Lines(lines.stream, live=False), environment=made.environment)
    if watch.nothing:
        lines.tell("  up to date: nothing would run")
    for rule, count in watch.counts.items():
        lines.tell(f"  would run {count:>3} x {WORDS[rule].format(editor='each editor', method='each method')}")
    return watch


def save(made: Prepared, lines: Lines) -> bool:
    """Makes `<project>/model`, unless it is there and made from these very files; says whether it did."""
    method, reference = made.method, REFERENCE if REFERENCE in made.config.datasets[made.dataset].methods and made.method != REFERENCE else ""
    files = [path for name in filter(None, (method, reference)) for path in sorted((made.folder / "models" / made.dataset / name).rglob("weights.safetensors"))]
    read = [made.folder / "params.yaml", made.folder / layout.reports(made.dataset) / "metrics.json", *files]
    key = sha256_bytes(causalroute.__version__.encode(), method.encode(), *(sha256_file(path).encode() for path in read))
    if params.record(made.folder).get("model") == key and (made.folder / MODEL / "config.json").is_file():
        return False
    from causalroute.serving.assemble import assemble

    lines.now("  saving the model")
    assemble(made.folder, made.dataset, method, made.folder / MODEL, reference=reference)
    params.note(made.folder, model=key)
    return True
