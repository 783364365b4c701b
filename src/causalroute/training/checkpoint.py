"""Training state on disk between epochs and finished seeds between jobs: safetensors with JSON metadata, written atomically.

A file is only taken up when its key, a digest of everything that decides the result, is the job's own; any other is thrown away.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from causalroute.io import read_tensors, write_tensors
from causalroute.training.loop import Best, State


class Folder:
    """The hidden folder of one job."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def save_state(self, seed: int, state: State) -> None:
        """Writes the state of an unfinished seed."""
        tensors = {f"method/{k}": v.clone() for k, v in state.method.state_dict().items()} | {f"best/{k}": v for k, v in state.best.tensors.items()}
        tensors |= {f"optimizer/{k}": v for k, v in state.optimizer.state().items()}
        tensors["generator"] = state.generator.get_state()
        meta = {"epoch": state.epoch, "history": state.history, "best": [state.best.epoch, state.best.accuracy, state.best.loss]}
        self._write(f"seed{seed}.state", tensors, meta)

    def load_state(self, seed: int, state: State) -> bool:
        """Puts a saved state into a freshly started one; False when there is none."""
        found = self._read(f"seed{seed}.state")
        if found is None:
            return False
        tensors, meta = found
        state.method.load_state_dict(_under(tensors, "method/"))
        state.optimizer.load(_under(tensors, "optimizer/"))
        state.generator.set_state(tensors["generator"])
        state.epoch, state.history = meta["epoch"], meta["history"]
        epoch, accuracy, loss = meta["best"]
        state.best = Best(epoch, accuracy, loss, _under(tensors, "best/"))
        return True

    def save_seed(self, seed: int, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Keeps a finished seed until the job ends."""
        self._write(f"seed{seed}.done", tensors, meta)
        (self.path / f"seed{seed}.state.safetensors").unlink(missing_ok=True)

    def load_seed(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """A finished seed, or None."""
        return self._read(f"seed{seed}.done")

    def remove(self) -> None:
        """Ends the job."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        write_tensors(self.path / f"{name}.safetensors", tensors, {"key": self.key, "meta": json.dumps(meta)})

    def _read(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        path = self.path / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
        except SafetensorError:
            metadata = {}
        if metadata.get("key") != self.key:
            path.unlink()
            return None
        return tensors, json.loads(metadata["meta"])


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
