"""A recorded run with a checkpoint -> the ablation of its network, stored in the run.

Must never know figures or the dashboard.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from gradscope.ablation import Ablation, ablate
from gradscope.ablation.run import Progress
from gradscope.experiments.checkpoint import rebuild
from gradscope.experiments.datasets import load
from gradscope.experiments.heldout import TestImages
from gradscope.experiments.training import pick_device
from gradscope.schema import GradScopeError
from gradscope.store import RunWriter, open_run


def ablate_run(
    run: str | Path,
    *,
    drop: str | Iterable[str] = "blocks",
    data_root: str | Path | None = None,
    limit: int | None = None,
    device: str = "cpu",
    progress: Progress | bool = False,
    **options: Any,
) -> Ablation:
    """Drop units of a run's trained network, measured on its data set's test images.

    `limit`: use that many test images. The rows go into the run's table `ablations` at its last
    step; of lesions measured before, readers see the newest rows. What a broken-off call measured
    is kept beside the checkpoint, and the same call goes on from there. `options` go to
    `gradscope.ablate`. GradScopeError for a run without a checkpoint, or one still being written.
    """
    path = Path(run)
    model, config = rebuild(path)
    stored = open_run(path)
    if stored.status.state == "running":
        raise GradScopeError(f"The run {path} is being written now: ablate it when it has ended.")
    data = load(str(config["data"]), data_root, side=config.get("image_size"))
    words = [drop] if isinstance(drop, str) else list(drop)
    asked = json.dumps([words, limit, sorted(options.items())], default=repr)
    partial = path / f".ablation-{zlib.crc32(asked.encode()):08x}.npz"
    with torch.random.fork_rng():
        found = ablate(
            model.to(pick_device(device)),
            loader=TestImages(data, limit),
            drop=words,
            progress=progress,
            step=max(stored.status.last_step, 0),
            save_to=partial,
            **options,
        )
    writer = RunWriter(path.parent, path.name, stored.info, resume=True)
    found.save(writer)
    writer.close()
    partial.unlink(missing_ok=True)
    return found
