"""One feature file, looked at for some of a data set's items.

The file stays where it is: what is read of it is mapped into memory, and of a tensor those rows alone are made that are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from causalroute.errors import UserError

HELD = {"t_held_swap": "t_swap", "v_held_swap": "v_swap"}
"""Views of the editor that is held out of training -> their names in its own file."""
AGAIN = "run the whole pipeline (make reproduce), which makes it anew"


class Standardised:
    """A view of N posts as methods see it: standardised float32, indexed like a tensor whose first index is of posts.

    Args:
        stored: (M, ..., D) as the file has it.
        place: (N,) rows of `stored`.
        standardise: what to do with the rows picked.
    """

    def __init__(self, stored: Tensor, place: Tensor, standardise: Callable[[Tensor], Tensor]) -> None:
        self.stored, self.place, self.standardise = stored, place, standardise

    @property
    def shape(self) -> torch.Size:
        """(N, ..., D)."""
        return torch.Size((len(self.place), *self.stored.shape[1:]))

    def __len__(self) -> int:
        """N."""
        return len(self.place)

    def __getitem__(self, index: Any) -> Tensor:
        """The posts `index`, or `index[0]` with an index of every further axis behind it: a tensor of its own."""
        posts, *further = index if isinstance(index, tuple) else (index,)
        return self.standardise(self.stored[(self.place[posts], *further)])


class FeatureFile:
    """The rows of a feature file that belong to the wanted items, in their order.

    Args:
        path: `factual.safetensors`, with a row for every item of the manifest, or an editor's file, which says whose rows it has.
        rows: (N,) the wanted rows of the manifest.
        total: items of the manifest.
        digest: of the ids of the manifest.

    Raises:
        UserError: the file belongs to another manifest, or lacks some of the items.
    """

    def __init__(self, path: Path, rows: Tensor, total: int, digest: str) -> None:
        self.path = path
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            if metadata.get("ids_sha256") != digest:
                raise UserError("the features belong to another manifest", where=str(path), fix=AGAIN)
            self.backbone_key: str | None = metadata.get("backbone_key")
            self.names = frozenset(stream.keys())
            self.answers: list[str] = json.loads(metadata.get("answers", "[]"))
            held = stream.get_tensor("rows") if "rows" in self.names else torch.arange(total)
        place = torch.full((total,), -1, dtype=torch.int64)
        place[held] = torch.arange(len(held))
        self.place = place[rows]
        if (self.place < 0).any():
            what = f"{int((self.place < 0).sum())} items have no counterfactual features"
            raise UserError(what, where=str(path), fix=AGAIN)

    def require_backbone_of(self, other: Path) -> None:
        """Refuses a file of another backbone than that of the feature file `other`.

        Raises:
            UserError: it is of another.
        """
        with safe_open(other, framework="pt") as stream:
            if stream.metadata().get("backbone_key") != self.backbone_key:
                raise UserError(f"the features are of another backbone than {other}", where=str(self.path), fix=AGAIN)

    def __getitem__(self, name: str) -> Tensor:
        """(N, ...) one tensor at the wanted items.

        Raises:
            UserError: there is none of this name.
        """
        return self.whole(name)[self.place]

    def whole(self, name: str) -> Tensor:
        """The tensor as it is stored.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self.names:
            raise UserError(f"the features hold no {name}", where=str(self.path), fix=AGAIN)
        with safe_open(self.path, framework="pt") as stream:
            return stream.get_tensor(name)

    def scores(self, name: str, classes: Sequence[str], everybody: bool = False) -> Tensor:
        """Log-likelihoods of answers (N, ..., C) in the order of `classes`; of no post at all (V, C), for everybody.

        Raises:
            UserError: the answers are of other classes.
        """
        self._require_classes(classes)
        order = [self.answers.index(label) for label in classes]
        return (self.whole(name)[0] if everybody else self[name])[..., order]

    def replies(self, classes: Sequence[str]) -> Tensor | None:
        """(N,) int8 class that each reply names, as a number of `classes`, or what stands below 0 where it names none; None where none were written.

        Raises:
            UserError: the answers are of other classes.
        """
        if "replies" not in self.names:
            return None
        self._require_classes(classes)
        found = self["replies"]
        number = torch.tensor([list(classes).index(label) for label in self.answers], dtype=found.dtype)
        return torch.where(found < 0, found, number[found.long().clamp(min=0)])

    def _require_classes(self, classes: Sequence[str]) -> None:
        if set(self.answers) != set(classes):
            fix = "let every prompt of the backbone name one answer for each class of the data set (mllm.prompts), or turn zero_shot off"
            raise UserError(f"the answers of the model are of the classes {self.answers}, the data set has {list(classes)}", where=str(self.path), fix=fix)
