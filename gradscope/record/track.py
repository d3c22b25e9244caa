"""`track(model)`: what a training script adds.

Must never know how anything is measured or written.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradscope.hooks import Choice, is_compiled, unwrap
from gradscope.record.agree import AgreedSampling
from gradscope.record.lesions import lesions_of
from gradscope.record.ranks import Follower, key_value_store, world
from gradscope.record.sampling import Sampling
from gradscope.record.scope import Scope
from gradscope.record.summary import findings_of
from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import RunWriter, environment

_open: weakref.WeakKeyDictionary[nn.Module, Scope] = weakref.WeakKeyDictionary()


def track(
    model: nn.Module,
    *,
    run: str | None = None,
    root: str | Path = "runs",
    every: int | str = "auto",
    budget: float = 0.02,
    observe: Choice | Sequence[Choice] | None = None,
    exclude: Choice | Sequence[Choice] | None = None,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    resume: bool = False,
    resume_step: int | None = None,
    histograms: bool = True,
    eager_samples: bool = False,
    ablate_every: int | None = None,
    ablate_on: Any = None,
    quiet: bool = False,
) -> Scope:
    """Record how gradients flow through `model` while it trains; training itself is not changed.

    run: name of the run below `root`; by default the model's class and the time. An existing run
        is an error unless `resume`, which goes on from `resume_step` (default: its last step).
    every: an int n samples each n-th step in full; "auto" samples as often as `budget` (share of
        the training's time) allows. Gradient norms and scalars are kept at every step.
    observe, exclude: module-path globs, module types or functions (path, module) -> bool.
    optimizer: the optimizer(s) whose steps count; found by itself when None.
    config, tags: kept with the run; JSON values.
    histograms: keep magnitude histograms (counts per binary exponent) at sampled steps.
    eager_samples: run sampled steps of a compiled model eagerly, so that its module outputs are
        seen; they then differ from compiled ones by rounding. False keeps training bit-identical.
    ablate_every, ablate_on: after every n-th step, from the first, drop each block alone and
        measure accuracy and loss on (inputs, targets) held out from training, or on a loader of
        its own: what each block is worth, over time. Costs about half as many evaluations as there
        are blocks; this is not part of `budget`, and its seconds are kept in the run's config.
    quiet: print no summary at the end.

    Raises GradScopeError for a model that is tracked already or cannot be tracked, a run that
    exists, or a choice that matches nothing.
    """
    inner = unwrap(_module(model))
    if inner in _open:
        raise GradScopeError(
            f"This {type(inner).__name__} is tracked already, into {_open[inner].path}; close that "
            "scope first."
        )
    rank, processes = world()
    sampling = Sampling(every, budget)
    if every == "auto" and processes > 1:
        sampling = AgreedSampling(budget, rank, key_value_store())
    optimizers = (
        [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else [*(optimizer or ())]
    )
    settings = {
        "every": every,
        "budget": budget,
        "torch": torch.__version__,
        "processes": processes,
        **_about(inner, optimizers),
        **(config or {}),
    }
    family = str(settings.get("family", ""))
    info = RunInfo(str(settings["model"]), settings, tuple(tags), environment(), family)
    name = run if run is not None else f"{type(inner).__name__}-{time.strftime('%Y%m%d-%H%M%S')}"
    writer = (
        Follower(root, name)
        if rank
        else RunWriter(root, name, info, resume=resume, resume_step=resume_step)
    )
    try:
        alone = None if isinstance(writer, Follower) else writer
        scope = Scope(
            inner,
            writer,
            sampling,
            observe=observe,
            exclude=exclude,
            optimizers=optimizers,
            histograms=histograms,
            eager_samples=eager_samples,
            compiled=is_compiled(model),
            start=getattr(writer, "start_step", 0),
            quiet=quiet or rank > 0,
            on_close=lambda closing: _closed(closing, sampling),
            lesions=lesions_of(inner, ablate_every, ablate_on, alone),
        )
    except BaseException as error:
        writer.close("failed", f"{type(error).__name__}: {error}")
        raise
    _open[inner] = scope
    return scope


def _module(model: object) -> nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        raise GradScopeError(
            "A scripted model runs without Python's hooks and cannot be tracked; track the model "
            "before torch.jit.script."
        )
    if not isinstance(model, nn.Module):
        raise GradScopeError(
            f"track takes a torch.nn.Module, not {type(model).__name__}; functions of torch.func "
            "are not supported: track the module they call."
        )
    return model


def _about(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    first = next(model.parameters(), None)
    about: dict[str, Any] = {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(first.device) if first is not None else "cpu",
        "dtype": str(first.dtype).removeprefix("torch.") if first is not None else "",
    }
    if optimizers:
        about["optimizer"] = type(optimizers[0]).__name__
        about["lr"] = float(optimizers[0].param_groups[0].get("lr", float("nan")))
    return about


def _closed(scope: Scope, sampling: Sampling) -> None:
    """At the end of a recording: forget the model and keep the diagnosis with the run."""
    for model, known in list(_open.items()):
        if known is scope:
            del _open[model]
    sampling.close()
    scope.keep_findings(findings_of)


def _at_exit() -> None:
    """Close what the script left open, saying how it ended."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for scope in list(_open.values()):
        if error is None:
            scope.close()
        elif isinstance(error, KeyboardInterrupt):
            scope.close("interrupted", "interrupted by the user")
        else:
            scope.close("failed", f"{type(error).__name__}: {error}")


def _in_forked_child() -> None:
    for scope in list(_open.values()):
        scope.abandon()
    _open.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
