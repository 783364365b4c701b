"""Every section of `params.yaml` as a frozen dataclass: `make schema` makes the JSON schema of it. Settings of a method live in `methods/<name>.py`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any, Literal

from causalroute.parsing import parse, section, suggest

__all__ = ["parse", "section", "suggest"]


@section
class Source:
    """One place the raw files come from."""

    kind: Literal["local", "http", "git", "hub", "planted"]
    """local folder or file, http(s) download, git checkout, Hugging Face hub data set, or the built-in generator"""
    path: str = ""
    """local: folder or file, relative to the checkout; git and hub: the sub-folder wanted (empty: all)"""
    url: str = ""
    """http: address of the file (.zip and .tar.* are unpacked); git: address of the repository"""
    sha256: str = ""
    """http: checksum of the downloaded file; required"""
    revision: str = ""
    """git and hub: the pinned commit, 40 hex digits; required"""
    repo: str = ""
    """hub: owner/name"""
    into: str = ""
    """sub-folder of data/{dataset}/raw the files land in (empty: its top)"""

    def __post_init__(self) -> None:
        needed = {"local": ("path",), "http": ("url", "sha256"), "git": ("url", "revision"), "hub": ("repo", "revision"), "planted": ()}
        for key in needed[self.kind]:
            if not getattr(self, key):
                raise ValueError(f"a source of kind {self.kind!r} needs {key!r}")
        if self.kind in ("git", "hub") and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError("revision must be a full commit id (40 hex digits), so that a run can be repeated")


@section
class Columns:
    """Which columns of a user's table hold what."""

    text: str = "text"
    """column with the text"""
    image: str = "image"
    """column with the image path, relative to the data root (empty: no images)"""
    label: str = "label"
    """column with the label"""
    id: str = ""
    """column with a unique id (empty: the row number)"""
    split: str = ""
    """column with train / valid / id / ood / neutral (empty: splits are made)"""
    groups: tuple[str, ...] = ()
    """columns whose values are reported as groups"""


@section
class Planted:
    """The generated benchmark with known causal truth (docs/planted.md)."""

    seed: int = 0
    """seed of the posts"""
    train: int = 2000
    """train posts (as many again without shortcut for the oracle)"""
    valid: int = 600
    """validation posts (likewise)"""
    test: int = 1000
    """posts in each of the splits id, ood and neutral"""
    rho_text: float = 0.9
    """probability that the hashtag agrees with the label in train, valid and id; 1 - rho in ood, .5 in neutral"""
    rho_image: float = 0.9
    """the same for the background"""
    label_noise: float = 0.08
    """share of train and valid labels replaced by another class (also in their oracle twins)"""


@section
class Splits:
    """How posts without a published split are divided."""

    valid: float = 0.1
    """share of posts"""
    test: float = 0.1
    """share of posts"""
    seed: int = 0
    """seed of the assignment"""


@section
class Dataset:
    """One data set: where it comes from, what it is, and which parts of the run it uses."""

    format: Literal["planted", "mvsa", "mmsd", "table"]
    """file layout, one module each in causalroute/data/formats"""
    task: Literal["sarcasm", "sentiment", "classification"]
    """decides which metrics are reported"""
    classes: tuple[str, ...]
    """label names in the order of their numbers"""
    positive: str = ""
    """the class that precision, recall and F1 of a two-class task refer to"""
    backbone: str
    """a key of `backbones`"""
    editor: str
    """a key of `editors`: makes the counterfactuals that methods train on"""
    methods: tuple[str, ...]
    """keys of `methods`, in the order of the result table"""
    sources: tuple[Source, ...]
    """where the raw files come from, in order"""
    table: str = ""
    """format table: the CSV, TSV, JSONL or Parquet file, relative to the raw folder"""
    columns: Columns = dataclasses.field(default_factory=Columns)
    """format table: column names"""
    label_map: dict[str, str] = dataclasses.field(default_factory=dict)
    """raw label -> class, where the two differ"""
    variant: str = ""
    """mvsa: single or multiple; mmsd: mmsd or mmsd2"""
    splits: Splits = dataclasses.field(default_factory=Splits)
    """used where the data set has no published split"""
    planted: Planted = dataclasses.field(default_factory=Planted)
    """format planted: the numbers of the generator"""
    expected: dict[str, int] = dataclasses.field(default_factory=dict)
    """declared number of usable items per split; another number is an error"""

    def __post_init__(self) -> None:
        if len(set(self.classes)) < 2:
            raise ValueError("classes must name at least two different labels")
        if self.positive and self.positive not in self.classes:
            raise ValueError(f"positive {self.positive!r} is not one of classes {list(self.classes)}")
        if self.format == "table" and not self.table:
            raise ValueError("format 'table' needs 'table': the file name inside the raw folder")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods names one method twice")


@section
class Pretrain:
    """Contrastive training of the default's own small CLIP on generated, label-free captioned images."""

    seed: int = 0
    """seed of images, captions and weights"""
    images: int = 5000
    """generated images, three captions each"""
    steps: int = 260
    """optimiser steps"""
    batch_size: int = 64
    """image-caption pairs per step"""
    lr: float = 0.002
    """peak AdamW learning rate, cosine schedule"""
    width: int = 64
    """hidden width of both towers"""
    layers: int = 2
    """layers of both towers"""
    image_size: int = 64
    """pixels"""
    patch_size: int = 8
    """pixels"""


@section
class Backbone:
    """A frozen pretrained encoder."""

    kind: Literal["dual_encoder", "encoder_pair"]
    """one model with a text and an image tower (CLIP, SigLIP), or any text AutoModel beside any vision AutoModel"""
    model: str = ""
    """dual_encoder: folder or hub id (empty: trained by the pipeline, see pretrain)"""
    text_model: str = ""
    """encoder_pair: folder, hub id, or package:<name> for a model folder that a Python package carries"""
    image_model: str = ""
    """encoder_pair: likewise (empty: no images, the visual side is attribute words)"""
    revision: str = ""
    """pinned commit of a hub id; required for one"""
    pretrain: Pretrain | None = None
    """trains the backbone before use"""
    tokens: bool = False
    """store token and patch features beside the pooled ones"""
    batch_size: int = 32
    """inputs per forward pass; part of the result only through rounding"""

    def __post_init__(self) -> None:
        if self.kind == "dual_encoder" and bool(self.model) == (self.pretrain is not None):
            raise ValueError("a dual_encoder needs either 'model' or 'pretrain'")
        if self.kind == "encoder_pair" and not self.text_model:
            raise ValueError("an encoder_pair needs 'text_model'")
        if self.kind == "encoder_pair" and (self.model or self.pretrain):
            raise ValueError("an encoder_pair takes 'text_model' and 'image_model', not 'model' or 'pretrain'")


@section
class Editor:
    """How counterfactual texts and images are made."""

    text: Literal["lexicon", "random", "truth"]
    """a module of causalroute/counterfactual/text"""
    image: Literal["saliency", "random", "truth"]
    """a module of causalroute/counterfactual/image"""
    seed: int = 0
    """seed of donors and of the random editors"""
    swaps: int = 2
    """context swaps per item and modality"""
    z: float = 5.0
    """lexicon: a token is context when its log-odds z exceeds this in absolute value"""
    core_share: float = 0.3
    """saliency: share of patches kept as core before smoothing"""
    grid: int = 8
    """saliency: patches per side"""
    fill: Literal["mean", "blur"] = "mean"
    """what the core is filled with in v_s"""


@section
class Audit:
    """Shortcut search without training."""

    folds: int = 4
    """cross-fitting folds of the unimodal probes"""
    alpha: float = 0.05
    """family-wise error rate of the token tests (Bonferroni)"""
    min_count: int = 20
    """train posts a token must occur in"""
    seed: int = 0
    """seed of the folds"""


@section
class Train:
    """One budget for every method."""

    epochs: int = 40
    """passes over the train split"""
    batch_size: int = 128
    """posts per step"""
    lr: float = 0.001
    """AdamW learning rate, cosine schedule"""
    weight_decay: float = 0.01
    """AdamW"""
    hidden: int = 128
    """units of the joint encoder"""
    dropout: float = 0.1
    """of the joint encoder"""


@section
class Replicates:
    """Seeds, and how many of them share a job."""

    seeds: int = 5
    """number of training seeds, from 0 on"""
    per_job: int = 5
    """seeds per training job"""


@section
class Evaluate:
    """Statistics."""

    confidence: float = 0.95
    """of every interval"""
    bootstrap: int = 2000
    """resamples of the paired bootstrap over items and seeds"""
    seed: int = 0
    """seed of the resamples"""


@section
class Config:
    """The whole of `params.yaml`."""

    run: tuple[str, ...]
    """data sets of this run: keys of `datasets`"""
    replicates: Replicates = dataclasses.field(default_factory=Replicates)
    """seeds"""
    train: Train = dataclasses.field(default_factory=Train)
    """training budget"""
    methods: dict[str, dict[str, Any]]
    """settings of each method; an empty mapping takes its defaults"""
    editors: dict[str, Editor]
    """counterfactual editors"""
    audit: Audit = dataclasses.field(default_factory=Audit)
    """shortcut search"""
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    """statistics"""
    datasets: dict[str, Dataset]
    """data sets"""
    backbones: dict[str, Backbone]
    """frozen encoders"""

    def __post_init__(self) -> None:
        wanted: list[tuple[str, Iterable[str], Iterable[str]]] = [("run", self.run, self.datasets)]
        for name, d in self.datasets.items():
            n = f"datasets.{name}"
            wanted += [(f"{n}.backbone", [d.backbone], self.backbones), (f"{n}.editor", [d.editor], self.editors), (f"{n}.methods", d.methods, self.methods)]
        for key, values, known in wanted:
            for value in values:
                if value not in known:
                    raise ValueError(f"{key}: {value!r} is not defined; {suggest(value, known)}")
