"""Sections that say what is done with the data: backbones, editors, training, statistics; and the whole file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from causalroute.config.data import Dataset
from causalroute.parsing import section, suggest


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
class Llm:
    """A local instruction-tuned language model that edits texts (editor text: llm)."""

    model: str
    """folder in HuggingFace format, or a hub id"""
    revision: str = ""
    """pinned commit of a hub id; required for one"""
    batch_size: int = 8
    """posts per generation"""
    max_new_tokens: int = 256
    """longest reply in tokens; a longer one counts as malformed"""
    budget: float = 0.6
    """largest share of tokens that an edit may mark or change"""
    verify: bool = True
    """a second pass asks the model to check each edit; what it refuses is dropped and counted"""


@section
class Editor:
    """How counterfactual texts and images are made."""

    text: Literal["lexicon", "surface", "occlusion", "llm", "random", "truth"]
    """a module of causalroute/counterfactual/text"""
    image: Literal["saliency", "attention", "similarity", "occlusion", "centre", "random", "truth"]
    """a module of causalroute/counterfactual/image"""
    seed: int = 0
    """seed of donors and of the random editors"""
    swaps: int = 2
    """context swaps per item and modality"""
    z: float = 5.0
    """lexicon: a token is context when its log-odds z exceeds this in absolute value"""
    core_share: float = 0.3
    """share of patches kept as core before smoothing"""
    grid: int = 8
    """patches per side"""
    fill: Literal["mean", "blur", "telea"] = "mean"
    """what the core is filled with in v_s"""
    level: Literal["pixels", "patches"] = "pixels"
    """image views are edited pixels encoded again, or cached patch features pooled again (cheap, but patches know their neighbours)"""
    llm: Llm | None = None
    """text: llm needs it"""

    def __post_init__(self) -> None:
        if (self.text == "llm") != (self.llm is not None):
            raise ValueError("an editor has a section 'llm' exactly when its text is 'llm'")


@section
class Gate:
    """What an editor must pass before its swaps are trained on."""

    folds: int = 4
    """cross-fitting folds of the probes"""
    seed: int = 0
    """seed of the folds"""


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
    gate: Gate = dataclasses.field(default_factory=Gate)
    """bar for editors"""
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    """statistics"""
    datasets: dict[str, Dataset]
    """data sets"""
    backbones: dict[str, Backbone]
    """frozen encoders"""

    def __post_init__(self) -> None:
        _known("run", self.run, self.datasets)
        for name, dataset in self.datasets.items():
            _known(f"datasets.{name}.backbone", [dataset.backbone], self.backbones)
            _known(f"datasets.{name}.editor", [dataset.editor, *filter(None, [dataset.held_out])], self.editors)
            _known(f"datasets.{name}.methods", dataset.methods, self.methods)


def _known(key: str, values: Iterable[str], known: Iterable[str]) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"{key}: {value!r} is not defined; {suggest(value, known)}")
