"""A trained network <-> plain arrays in its run folder; no pickle in either direction.

Must never know training or figures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import nn

from gradscope.models import build, set_survival
from gradscope.schema import GradScopeError
from gradscope.store import open_run

FILE = "checkpoint.npz"


def save(model: nn.Module, run: Path) -> Path:
    """Write the state of `model` as `checkpoint.npz` into a run folder, whole or not at all."""
    arrays = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    target = run / FILE
    scratch = run / f".{FILE}.tmp"
    with scratch.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(scratch, target)
    return target


def rebuild(run: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a run made by `train`, on the CPU in eval mode, and the run's config.

    Raises GradScopeError when the run has no checkpoint or was recorded by a script of the user's.
    """
    stored = open_run(run)
    config = dict(stored.info.config)
    path = Path(run) / FILE
    if not path.is_file() or "build" not in config:
        raise GradScopeError(
            f"The run {run} has no checkpoint that GradScope made; train one with "
            "`gradscope train`, or call gradscope.ablate(model, evaluate) in your own script."
        )
    model = build(str(config["model"]), **config["build"])
    if config.get("survival_until", 1.0) < 1.0:
        set_survival(model, 1.0)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        model.load_state_dict(state)
    except (ValueError, OSError, EOFError, RuntimeError, BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
        raise GradScopeError(f"{path} cannot be read ({reason}); train the run again.") from None
    return model.eval(), config
