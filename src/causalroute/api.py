"""The Python interface: `audit(frame)` finds shortcuts, `Debiaser` trains past them, predicts and explains, with the code of the commands."""

from __future__ import annotations

import dataclasses
import html
import io
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from huggingface_hub import ModelHubMixin

from causalroute.audit.table import GUESSES, Table, audit_table, guess
from causalroute.config import Audit, Train
from causalroute.data.formats.table import open_table
from causalroute.errors import UserError
from causalroute.frames import is_path, table_of, written
from causalroute.io import canonical_json, write_csv, write_json, write_text

if TYPE_CHECKING:
    from causalroute.serving.posts import Post, Prediction
    from causalroute.serving.predictor import Predictor


@dataclasses.dataclass(frozen=True)
class AuditResult:
    """What an audit found; `found` is the content of audit.json (docs/audit.md)."""

    found: dict[str, Any]
    dropped: pl.DataFrame
    """rows and images that could not be used: id, reason, where"""

    def summary(self) -> str:
        """The findings as `causalroute audit` prints them."""
        from causalroute.cli.terminal import summary

        return summary(self.found, Path("audit")).rpartition("\n\nwritten:")[0] + "\n"

    def html(self) -> str:
        """The page for a reader: one file, no network; it quotes posts."""
        from causalroute.report.audit_page import render

        return render(self.found, self.found["table"]["file"])

    def save(self, folder: str | Path) -> Path:
        """Writes audit.json, audit.html and dropped.csv; returns the folder."""
        folder = Path(folder)
        write_json(folder / "audit.json", self.found)
        write_text(folder / "audit.html", self.html())
        write_csv(folder / "dropped.csv", self.dropped)
        return folder

    def _repr_html_(self) -> str:
        """The page inside a notebook, where it can neither run scripts of the notebook nor reach its document."""
        return f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(self.html())}" width="100%" height="700" style="border:0"></iframe>'


def audit(
    posts: Any, *, text: str | None = None, label: str | None = None, image: str | None = None, split: str | None = None, id: str | None = None,
    metadata: Sequence[str] = (), classes: Sequence[str] = (), root: str | Path | None = None, features: str | Path | None = None, **settings: Any,
) -> AuditResult:  # fmt: skip
    """Searches a table of posts for shortcuts; nothing is trained, nothing written.

    Args:
        posts: a polars or pandas frame, a list of dictionaries, or the path of a CSV, TSV, JSONL or Parquet file.
        text: column with the text (None: guessed; "": there is none); likewise `label`, `image`, `split`, `id`.
        label: see `text`.
        image: see `text`; paths are relative to `root`.
        split: see `text`.
        id: see `text`.
        metadata: further columns to test.
        classes: labels to compare (empty: all).
        root: folder that image paths are relative to (None: the table's, of a frame the working directory).
        features: safetensors with image features, one row per post.
        settings: alpha, control, min_count, folds, examples, seed, as in `causalroute audit --help`.

    Raises:
        UserError: the posts or the arguments are unusable.
    """
    try:
        chosen = Audit(**settings)
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in dataclasses.fields(Audit))
        raise UserError(str(error), where="causalroute.audit(...)", fix=f"settings are {known}") from None
    with table_of(posts) as path:
        base = Path(root) if root is not None else path.parent if is_path(posts) else Path.cwd()
        files = {"root": base, "features": Path(features) if features is not None else None}
        table = Table(path, text, label, image, split, id, tuple(metadata), tuple(classes), **files)
        return AuditResult(*audit_table(table, chosen))


class Debiaser(ModelHubMixin, library_name="causalroute", tags=["debiasing", "multimodal"]):
    """Trains a debiased classifier of posts, then predicts and explains.

    Args:
        backbone: short name, model folder, or hub id with its commit (`causalroute train --help`).
        method: the method whose model is kept.
        seeds: training seeds; predictions are the mean over them.
        epochs: passes over the train posts.
        methods: rows of the result table (empty: baselines, `erm`, `double_swap`, `causal_moe`).
        cores: cores to use (0: all).
        settings: any other key of params.yaml, such as {"train.lr": 0.003}.
        quiet: no line of progress on standard error.
        looker: encoder that finds the cores of images where the backbone is a multimodal LLM.
    """

    def __init__(
        self, backbone: str = "clip", method: str = "causal_moe", seeds: int = 5, *, epochs: int = Train().epochs, methods: Sequence[str] = (), cores: int = 0,
        settings: Mapping[str, Any] | None = None, quiet: bool = False, looker: str = "clip",
    ) -> None:  # fmt: skip
        self.backbone, self.method, self.seeds, self.epochs, self.methods = backbone, method, seeds, epochs, tuple(methods)
        self.cores, self.settings, self.quiet, self.looker = cores, dict(settings or {}), quiet, looker
        self.project: Path | None = None
        self.folder: Path | None = None
        self._columns: dict[str, str | None] = {}
        self._predictor: Predictor | None = None

    def fit(
        self, posts: Any, *, root: str | Path | None = None, text: str | None = None, label: str | None = None, image: str | None = None,
        split: str | None = None, project: str | Path | None = None,
    ) -> Debiaser:  # fmt: skip
        """Audits, trains and reports, as `causalroute train` does; what is up to date in `project` is not done again.

        Args:
            posts: as in `audit`.
            root: folder that image paths are relative to (None: the table's, of a frame the working directory).
            text: column with the text (None: guessed; "": there is none); likewise `label`, `image`, `split`.
            label: see `text`.
            image: see `text`.
            split: see `text`; made where there is none.
            project: folder that keeps settings, models and report (None: a temporary one, removed with this object).

        Raises:
            UserError: posts, settings or backbone are unusable, or a step failed.
        """
        from causalroute.project import train
        from causalroute.project.run import Lines
        from causalroute.project.workflow import every_core

        folder = self._place(project)
        path = Path(posts) if is_path(posts) else written(posts, folder)
        base = Path(root) if root is not None else None if is_path(posts) else Path.cwd()
        lines = Lines(io.StringIO() if self.quiet else sys.stderr)
        done = train.train(self._wanted(Table(path, text, label, image, split, root=base)), folder, self.cores or every_core(), lines=lines)
        self.project, self.folder, self._predictor, self._columns = folder, done.model, None, {"text": text, "image": image}
        return self

    def _place(self, project: str | Path | None) -> Path:
        if project is not None:
            return Path(project)
        folder = tempfile.mkdtemp(prefix="causalroute-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder) / "project"

    def _wanted(self, table: Table) -> Any:
        from causalroute.project.settings import Wanted

        changes = tuple(f"{key}={canonical_json(value)}" for key, value in self.settings.items())
        return Wanted(table, self.backbone, self.looker, self.methods, self.method, self.seeds, self.epochs, changes)

    @property
    def predictor(self) -> Predictor:
        """The saved model that answers.

        Raises:
            UserError: nothing was fitted or loaded yet.
        """
        if self.folder is None:
            raise UserError("there is no model yet", where="causalroute.Debiaser", fix="call fit(posts), or Debiaser.load(folder)")
        if self._predictor is None:
            from causalroute.serving.predictor import Predictor

            self._predictor = Predictor.load(self.folder)
        return self._predictor

    def predict(self, posts: Any, *, text: str | None = None, image: str | None = None, root: str | Path | None = None) -> pl.DataFrame:
        """Answers posts.

        Args:
            posts: as in `audit` (no label column is needed), or a sequence of `causalroute.serving.posts.Post`.
            text: column with the text (None: that of `fit`, else guessed; "": there is none); likewise `image`.
            image: see `text`.
            root: folder that image paths are relative to (None: the table's, of a frame the working directory).

        Returns:
            A row a post: `label`, `spread` (standard deviation of its probability over seeds), `biased_label`, and `p_<class>` of every class.

        Raises:
            UserError: there is no model, or the posts are unusable.
        """
        from causalroute.serving.posts import Post

        given = isinstance(posts, Sequence) and not isinstance(posts, str) and all(isinstance(post, Post) for post in posts)
        found = self.predictor.predict(posts if given else self._posts(posts, text, image, root))
        classes = self.predictor.classes
        rows = [
            {"label": one.label, "spread": one.spread, "biased_label": one.biased_label} | {f"p_{name}": one.probabilities[name] for name in classes}
            for one in found
        ]
        schema = {"label": pl.String, "spread": pl.Float64, "biased_label": pl.String} | {f"p_{name}": pl.Float64 for name in classes}
        return pl.DataFrame(rows, schema=schema)

    def _posts(self, posts: Any, text: str | None, image: str | None, root: str | Path | None) -> list[Post]:
        from causalroute.data.images import resolve
        from causalroute.serving.posts import Post

        with table_of(posts) as path:
            base = Path(root) if root is not None else path.parent if is_path(posts) else Path.cwd()
            names, rows = open_table(path)
            words = _column(names, "text", text, self._columns)
            pictures = _column(names, "image", image, self._columns, taken={words})
            if not (words or pictures):
                raise UserError("no column looks like the text or the image", where=str(names), fix='name them: predict(posts, text="...", image="...")')
            found = []
            for number, row in rows:
                if isinstance(row, str):
                    raise UserError(f"a row cannot be read: {row}", where=f"{path.name}, row {number}", fix="correct it, or leave it out")
                picture = (row.get(pictures) or "").strip() if pictures else ""
                found.append(Post(text=(row.get(words) or "") if words else "", image=resolve(base, picture) if picture else None))
            return found

    def explain(self, text: str = "", image: Any = None) -> Prediction:
        """The answer to one post with its explanation: effects of each side, gates, experts, words and regions.

        Args:
            text: of the post.
            image: path or PIL image (None: no image).

        Raises:
            UserError: there is no model, or the image is unusable.
        """
        predictor = self.predictor
        from causalroute.serving.posts import Post

        return predictor.predict([Post(text=text, image=Path(image) if isinstance(image, str) else image)], explain=True)[0]

    def save(self, folder: str | Path) -> Path:
        """Writes the saved model, for `load`, `causalroute predict` and `causalroute serve`; returns its folder.

        Raises:
            UserError: there is no model, or the folder holds something else.
        """
        from causalroute.serving import bundle

        bundle.copy(self.predictor.bundle.folder, Path(folder))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Debiaser:
        """A saved model; no training data is needed.

        Raises:
            UserError: the folder holds none.
        """
        from causalroute.serving.predictor import Predictor

        predictor = Predictor.load(Path(folder))
        made = cls(method=str(predictor.config.get("method", "")))
        made.folder, made._predictor = Path(folder), predictor
        return made

    def _save_pretrained(self, save_directory: Path) -> None:
        """What `save_pretrained` and `push_to_hub` of huggingface_hub write: the saved model with its own config.json and model card."""
        from causalroute.serving import bundle

        bundle.lay(self.predictor.bundle, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **download: Any) -> Debiaser:
        """What `from_pretrained` reads: a folder, or a model of the hub."""
        if Path(model_id).is_dir():
            return cls.load(model_id)
        from huggingface_hub import snapshot_download

        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        return cls.load(snapshot_download(model_id, **{key: download[key] for key in known}))


def _column(names: list[str], key: str, asked: str | None, fitted: Mapping[str, str | None], taken: set[str] | None = None) -> str:
    """The column for `key`: the one named, that of `fit`, or a guess; empty where there is none.

    Raises:
        UserError: the named column does not exist.
    """
    if asked is None and (known := fitted.get(key)) in names:
        asked = known
    if asked is None:
        return guess(names, GUESSES[key], taken or set())
    if asked and asked not in names:
        raise UserError(f"there is no column {asked!r}", where=str(names), fix=f"name the column with the {key}")
    return asked
