"""Sections that say what is done with the data: backbones, editors, training, statistics; and the whole file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from causalroute.config.data import Dataset
from causalroute.config.mllm import Mllm
from causalroute.config.study import Ablation, Search
from causalroute.parsing import section, suggest
from causalroute.variants import module_of, parent_of


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
    styles: bool = False
    """images have frames and some captions handles, as posts of several planted sources do"""


@section
class Backbone:
    """A frozen pretrained encoder."""

    kind: Literal["dual_encoder", "encoder_pair", "mllm"]
    """one model with a text and an image tower (CLIP, SigLIP), any text AutoModel beside any vision AutoModel, or a multimodal LLM"""
    model: str = ""
    """dual_encoder and mllm: folder or hub id (dual_encoder, empty: trained by the pipeline, see pretrain)"""
    text_model: str = ""
    """encoder_pair: folder, hub id, or package:<name> for a model folder that a Python package carries"""
    image_model: str = ""
    """encoder_pair: likewise (empty: no images, the visual side is attribute words)"""
    revision: str = ""
    """pinned commit of a hub id; required for one"""
    pretrain: Pretrain | None = None
    """trains the backbone before use"""
    batch_size: int = 32
    """inputs per forward pass; part of the result only through rounding"""
    mllm: Mllm | None = None
    """how a multimodal LLM is asked"""

    def __post_init__(self) -> None:
        if (self.kind == "mllm") != (self.mllm is not None) or (self.kind == "mllm" and not self.model):
            raise ValueError("a backbone of kind mllm, and no other, has a section 'mllm'; it also needs 'model'")
        if self.kind == "mllm" and (self.text_model or self.image_model or self.pretrain):
            raise ValueError("a backbone of kind mllm takes 'model' and 'mllm', not 'text_model', 'image_model' or 'pretrain'")
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
    classes: tuple[str, ...] = ()
    """the two class names, in the order of the data set: the model is asked for flipped texts too; empty: it is not"""

    def __post_init__(self) -> None:
        if len(self.classes) not in (0, 2):
            raise ValueError("an llm has 'classes' of two names or none: a flip of more than two has no one label")


@section
class Corrupt:
    """Errors put into the swaps of an editor on purpose, at known rates: what does it cost when counterfactuals are bad?"""

    fail: float = 0.0
    """share of posts, drawn for each side on its own, whose swaps are the post itself: the cue stays"""
    destroy: float = 0.0
    """share of posts, likewise and none of the former, whose swaps bear the core of a random train post"""
    seed: int = 0
    """seed of the draw; a higher rate hits the posts of a lower one and more"""

    def __post_init__(self) -> None:
        if min(self.fail, self.destroy) < 0 or self.fail + self.destroy > 1:
            raise ValueError(f"fail and destroy are shares of the same posts, together at most 1, found {self.fail:g} and {self.destroy:g}")


@section
class Editor:
    """How counterfactual texts and images are made."""

    text: Literal["lexicon", "surface", "occlusion", "llm", "random", "truth"]
    """a module of causalroute/counterfactual/text"""
    image: Literal["saliency", "attention", "similarity", "occlusion", "centre", "places", "random", "truth"]
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
    style: bool = False
    """t_s also keeps hashtags, mentions, links, emoji and numbers that are not context: the style of the post, which may tell where a context is a shortcut"""
    llm: Llm | None = None
    """text: llm needs it"""
    corrupt: Corrupt = dataclasses.field(default_factory=Corrupt)
    """errors put into the swaps; none unless a rate is above 0"""

    def __post_init__(self) -> None:
        if (self.text == "llm") != (self.llm is not None):
            raise ValueError("an editor has a section 'llm' exactly when its text is 'llm'")
        if self.level == "patches" and (self.corrupt.fail or self.corrupt.destroy):
            raise ValueError("'corrupt' works on edited pixels, not on level 'patches'")


@section
class Gate:
    """What an editor must pass before its swaps are trained on."""

    folds: int = 4
    """cross-fitting folds of the probes"""
    seed: int = 0
    """seed of the folds, the probes and the resamples"""
    posts: int = 4000
    """labelled posts that the probes look at, at most"""
    min_posts: int = 200
    """posts with a usable swap below which a side is undecided"""
    max_auc: float = 0.95
    """a side fails when its swaps are told from real posts with a higher AUC (.5: not at all)"""
    max_cue_left: float = 0.9
    """a side fails when its swaps keep a larger share of what the side alone tells about the label"""
    min_label_kept: float = 0.6
    """a side fails when its swaps keep a smaller share of what real posts tell about their label, cues aside"""
    min_flipped: float = 0.5
    """flipped texts fail when a smaller share of them reads as another class"""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError("folds must be at least 2")


@section
class Audit:
    """Shortcut search without training."""

    folds: int = 4
    """cross-fitting folds of the unimodal probes and of the joint model"""
    alpha: float = 0.05
    """error rate that `control` holds over all tests of the audit"""
    control: Literal["fwer", "fdr"] = "fwer"
    """what a cue must pass to be listed: family-wise error (Bonferroni) or false discovery rate (Benjamini-Hochberg); both are reported"""
    min_count: int = 20
    """train posts a cue must occur in (and be absent from) to be tested"""
    examples: int = 3
    """posts quoted per cue in audit.html; audit.json of a run names their ids alone"""
    seed: int = 0
    """seed of the folds and of the feature clusters"""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, found {self.alpha}")
        if self.folds < 2 or self.min_count < 1 or self.examples < 0:
            raise ValueError("folds must be at least 2, min_count at least 1, examples at least 0")


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
    """settings of each method; an empty mapping takes its defaults. `<method>@<variant>` is the same method under settings of its own"""
    editors: dict[str, Editor]
    """counterfactual editors"""
    audit: Audit = dataclasses.field(default_factory=Audit)
    """shortcut search"""
    gate: Gate = dataclasses.field(default_factory=Gate)
    """bar for editors"""
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    """statistics"""
    search: Search = dataclasses.field(default_factory=Search)
    """choice of settings"""
    ablation: Ablation = dataclasses.field(default_factory=Ablation)
    """variants"""
    datasets: dict[str, Dataset]
    """data sets"""
    backbones: dict[str, Backbone]
    """frozen encoders"""

    def __post_init__(self) -> None:
        _known("run", self.run, self.datasets)
        reported = max(self.replicates.seeds, self.ablation.seeds)
        if self.search.first_seed < reported:
            raise ValueError(f"search.first_seed must be at least {reported}: the seeds before it are those of the result table")
        whole = [name for name in self.methods if name == module_of(name)]
        for name, dataset in self.datasets.items():
            _known(f"datasets.{name}.backbone", [dataset.backbone, *filter(None, [dataset.looker])], self.backbones)
            _known(f"datasets.{name}.editor", [dataset.editor, *filter(None, [dataset.held_out])], self.editors)
            _known(f"datasets.{name}.methods", dataset.methods, self.methods)
            _known(f"datasets.{name}.ablation", dataset.ablation, self.methods)
            _known(f"datasets.{name}.ablation, the method itself", map(parent_of, dataset.ablation), whole)


def _known(key: str, values: Iterable[str], known: Iterable[str]) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"{key}: {value!r} is not defined; {suggest(value, known)}")
