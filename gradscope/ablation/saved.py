"""Scores measured so far <-> one file, so that a long ablation goes on where it stopped.

Must never know networks or lesions beyond their fingerprint.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import nn

from gradscope.ablation.scores import Scores
from gradscope.schema import GradScopeError


def fingerprint(model: nn.Module, parts: Iterable[str]) -> str:
    """Changes with any weight, buffer or part."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


class SavedScores:
    """Scores by key (`batch/lesion`), kept in memory and, with a path, in an .npz file."""

    def __init__(self, path: str | Path | None, mark: str, *, resume: bool) -> None:
        self.path = Path(path) if path is not None else None
        self.mark = mark
        self.scores: dict[str, Scores] = {}
        if self.path is not None and self.path.exists():
            if not resume:
                raise GradScopeError(f"{self.path} exists: pass resume=True or another save_to.")
            self._read(self.path)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored["mark"]) != self.mark:
                    raise GradScopeError(
                        f"{path} belongs to another model, other lesions or other data: "
                        "pass another save_to."
                    )
                for entry in stored.files:
                    if entry != "mark":
                        key, _, metric = entry.rpartition("|")
                        self.scores.setdefault(key, {})[metric] = stored[entry]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise GradScopeError(f"{path} is no saved ablation ({error}): remove it.") from None

    def write(self) -> None:
        """Replaces the file in one step."""
        if self.path is None:
            return
        flat = {f"{k}|{m}": v for k, scores in self.scores.items() for m, v in scores.items()}
        partial = self.path.with_name(self.path.name + ".part")
        with partial.open("wb") as file:
            np.savez(file, mark=np.array(self.mark), **flat)  # type: ignore[arg-type]
        os.replace(partial, self.path)
