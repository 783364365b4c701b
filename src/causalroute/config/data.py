"""Sections that say what a data set is and where it comes from."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from causalroute.parsing import section
from causalroute.variants import is_visual, parent_of


@section
class Source:
    """One place the raw files come from."""

    kind: Literal["local", "table", "http", "git", "hub", "planted"]
    """local folder or file, local table with the images it names and nothing else of their folder, http(s) download, git checkout, Hugging Face hub data
    set, or the built-in generator"""
    path: str = ""
    """local: folder or file, table: file, both relative to the checkout; git and hub: the sub-folder wanted (empty: all)"""
    images: str = ""
    """table: column with the image paths (empty: no images are brought)"""
    root: str = ""
    """table: folder that image paths are relative to (empty: the table's)"""
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
        needed = {"local": ("path",), "table": ("path",), "http": ("url", "sha256"), "git": ("url", "revision"), "hub": ("repo", "revision"), "planted": ()}
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
    """column with train / valid / id / ood / neutral / clean (empty: splits are made)"""
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
    sources: tuple[Literal["both", "none", "core_text", "core_image"], ...] = ()
    """equal shares of posts: both cues are shortcuts there, or none, or one belongs to the meaning and the other is a shortcut (empty: one, both, no style)"""
    style: Literal["shown", "hidden"] = "shown"
    """whether a post shows its source, by a handle in the text and a frame around the image, or shows those of a random one"""
    core_bias: float = 0.5
    """sources core_*: probability that the cue which belongs to the meaning agrees with the label in train, valid and id; 1 - core_bias in ood"""


@section
class Inject:
    """Known shortcuts put into posts of any data set (docs/injected.md); the numbers of `Planted` have the same names."""

    rho_text: float = 0.9
    """probability that the hashtag agrees with the label in train, valid and id; 1 - rho in ood, 1/C in neutral, no hashtag in clean"""
    rho_image: float = 0.9
    """the same for the visual mark, or for the attribute word where the visual side is attribute words"""
    mark: Literal["border", "corner", "tint"] = "corner"
    """what is drawn on images, in the class's own pattern and colour"""
    place: Literal["end", "front"] = "end"
    """where in the text the hashtag stands"""
    seed: int = 0
    """seed of the cues and of the choice of words"""

    def __post_init__(self) -> None:
        for key in ("rho_text", "rho_image"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise ValueError(f"{key} must lie strictly between 0 and 1, found {getattr(self, key)}")


@section
class Splits:
    """How posts without a published split are divided, and whether an OOD test is made of the test posts."""

    valid: float = 0.1
    """share of posts"""
    test: float = 0.1
    """share of posts"""
    seed: int = 0
    """seed of the assignment"""
    ood: Literal["published", "resampled", "if_possible"] = "published"
    """published: the data set's own OOD posts, if any; resampled: test posts chosen so that words say nothing of the label they went with in train
    (docs/injected.md); if_possible: published ones where there are any, else resampled ones where enough can be chosen, else none"""


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
    held_out: str = ""
    """a key of `editors` that no method of the data set trains on: its counterfactuals serve evaluation alone (empty: none)"""
    looker: str = ""
    """a key of `backbones` that editors look at posts with (empty: `backbone`); a multimodal LLM needs another where an editor asks a model"""
    methods: tuple[str, ...]
    """keys of `methods`, in the order of the result table"""
    search: bool = False
    """choose settings on validation posts first, for each method that says which (`SEARCH` in its module); see the section `search`"""
    ablation: tuple[str, ...] = ()
    """variants, keys of `methods` such as `causal_moe@rule`, that `snakemake ablation` compares with their methods; and token_moe, with causal_moe"""
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
    """shares are used where the data set has no published split; `ood` wherever it is set"""
    inject: Inject | None = None
    """puts known shortcuts into the posts (null: none)"""
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
        if self.format == "planted" and (self.inject or self.splits.ood != "published"):
            raise ValueError("planted posts have shortcuts and OOD posts of their own: leave out 'inject' and 'splits.ood'")
        if self.inject and self.splits.ood != "published":
            raise ValueError("'inject' and 'splits.ood' both make the split ood: choose one")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods names one method twice")
        if self.held_out and self.held_out == self.editor:
            raise ValueError("held_out must be another editor than the one methods train on")
        plain = [method for method in self.ablation if parent_of(method) == method]
        if plain or len(set(self.ablation)) != len(self.ablation):
            what = f"ablation lists variants (`<method>@<name>`) and derived methods, each once; {plain} are none"
            raise ValueError(what if plain else "ablation names one variant twice")
        blind = [method for method in (*self.methods, *self.ablation) if is_visual(method)]
        if self.format == "table" and not self.columns.image and blind:
            raise ValueError(
                f"methods {blind} need images, and columns.image is empty: leave them out of `methods` and `ablation`, or name the column with the image paths"
            )
