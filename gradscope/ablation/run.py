"""A model, an evaluation and a choice of lesions -> an Ablation; the model is as before afterwards.

Must never know runs, figures or DataFrames.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gradscope.ablation.intervals import paired_mean, paired_share
from gradscope.ablation.lesions import Lesion, plan
from gradscope.ablation.replay import Replay, same
from gradscope.ablation.result import Ablation, Row
from gradscope.ablation.saved import SavedScores, fingerprint
from gradscope.ablation.scores import (
    CLASSIFICATION,
    Metric,
    Scores,
    batches,
    normalised,
    score,
)
from gradscope.ablation.state import restored
from gradscope.hooks import is_compiled
from gradscope.schema import GradScopeError
from gradscope.units import Chosen, find_units, replaced, unwrapped

Progress = Callable[[int, int], None]
_INTACT = "intact"
_SAVE_EVERY = 20.0


def ablate(
    model: nn.Module,
    evaluate: Callable[[nn.Module], Any] | None = None,
    *,
    loader: Iterable[Any] | None = None,
    drop: str | Iterable[str] = "blocks",
    units: Chosen = None,
    k: Iterable[int] | int | None = None,
    draws: int = 20,
    seed: int = 0,
    metric: str | Mapping[str, Metric] | None = None,
    example: Any = None,
    progress: Progress | bool | None = None,
    save_to: str | Path | None = None,
    resume: bool = True,
    step: int = 0,
    reuse: bool = True,
    memory: int = 512 << 20,
) -> Ablation:
    """Measures what the network loses with each part taken out.

    Give either `evaluate(model)` (a number, a mapping of them, or values per sample; `metric`
    names it) or a `loader` of (inputs, class targets), which yields accuracy and loss, or the
    per-sample functions of a mapping `metric`, with the outputs before a lesion reused. `drop`:
    words of `DROPS`; `k` and `draws` belong to "random" and "reorder". `memory` bounds the bytes
    of the outputs kept for one batch: larger batches are cut. `save_to` keeps scores in a file;
    the same call goes on from there. Intervals are 95 % and paired; NaN for bare numbers.
    Model, modes, buffers and random state are restored, upon errors and Ctrl-C too.
    GradScopeError: neither or both of evaluate and loader, nothing to drop, unknown names.
    """
    if (evaluate is None) == (loader is None):
        raise GradScopeError("Give one of evaluate=, a function of the model, or loader=.")
    inner = unwrapped(model)
    with _eager(model), restored(inner, weights=evaluate is not None):
        if loader is not None and example is None:
            inputs, _ = next(iter(batches(loader, inner, 2)), ((), None))
            if not inputs:
                raise GradScopeError("The loader is empty: there is nothing to measure on.")
            example = inputs
        found = find_units(inner, example=example, units=units)
        lesions = plan(inner, found, drop, k=k, draws=draws, seed=seed)
        parts = [f"{x.kind}/{x.label}/{x.detail}" for x in lesions]
        mark = fingerprint(inner, parts) if save_to is not None else ""
        saved = SavedScores(save_to, mark, resume=resume)
        show = _bar if progress is True else progress or None
        try:
            if loader is not None:
                metrics = metric if isinstance(metric, Mapping) else CLASSIFICATION
                task = _Loaded(inner, lesions, metrics, memory, reuse, saved, show)
                scores, baseline = task.run(loader)
                notes, kept, reused = tuple(task.notes), task.kept_bytes, task.reuse
            else:
                assert evaluate is not None
                name = metric if isinstance(metric, str) else "value"
                scores, baseline = _evaluated(model, evaluate, lesions, name, saved, show)
                notes, kept, reused = (), 0, False
        finally:
            saved.write()
    return Ablation(_rows(lesions, scores, baseline, step, seed), kept, reused, notes)


def _eager(model: nn.Module) -> AbstractContextManager[Any]:
    """No compiled code inside: a compiled network would be compiled anew for every lesion."""
    if is_compiled(model) or is_compiled(unwrapped(model)):
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return stance
    return nullcontext()


def _evaluated(
    model: nn.Module,
    evaluate: Callable[[nn.Module], Any],
    lesions: list[Lesion],
    name: str,
    saved: SavedScores,
    show: Progress | None,
) -> tuple[list[Scores], Scores]:
    inner = unwrapped(model)
    for number, lesion in enumerate([None, *lesions]):
        key = _INTACT if lesion is None else str(number - 1)
        if key not in saved.scores:
            with (
                restored(inner, weights=True),
                replaced(model, lesion.replacements if lesion else {}),
            ):
                saved.scores[key] = normalised(evaluate(model), name)
        if show is not None:
            show(number + 1, len(lesions) + 1)
    return [saved.scores[str(n)] for n in range(len(lesions))], saved.scores[_INTACT]


class _Loaded:
    """The lesions measured batch by batch, one pass over the loader."""

    def __init__(
        self,
        model: nn.Module,
        lesions: list[Lesion],
        metrics: Mapping[str, Metric],
        memory: int,
        reuse: bool,
        saved: SavedScores,
        show: Progress | None,
    ) -> None:
        self.model, self.lesions, self.metrics = model, lesions, metrics
        self.memory, self.reuse, self.saved, self.show = memory, reuse, saved, show
        self.replay = Replay(model, {path for lesion in lesions for path in lesion.replacements})
        self.kept_bytes = 0
        self.notes: list[str] = []
        self.total = 0
        self.place = (0, 0, 1)
        self.written = time.monotonic()

    def run(self, loader: Iterable[Any]) -> tuple[list[Scores], Scores]:
        self.model.eval()
        self.total = len(loader) if hasattr(loader, "__len__") else 0  # type: ignore[arg-type]
        with torch.no_grad():
            size = self._chunk(loader) if self.reuse else sys.maxsize
            seen: set[str] = set()
            for number, batch in enumerate(loader):
                parts = list(batches([batch], self.model, size))
                for part, (inputs, target) in enumerate(parts):
                    key = f"{number}.{part}.{_check(target)}"
                    seen.add(key)
                    self.place = (number, part, len(parts))
                    self._batch(key, inputs, target)
        if any(key.rpartition("/")[0] not in seen for key in self.saved.scores):
            raise GradScopeError(
                "The loader gives other batches than those saved: use shuffle=False, or another "
                "save_to."
            )
        return self._joined()

    def _chunk(self, loader: Iterable[Any]) -> int:
        """From two samples: whether reuse gives the same bits as a whole pass, for a lesion in the
        middle, and how many samples' outputs fit the memory."""
        inputs, target = next(iter(batches(loader, self.model, 2)))
        middle = self.lesions[len(self.lesions) // 2].replacements
        with self.replay.installed():
            self.replay.intact(*inputs)
            per_sample = max(1, self.replay.kept_bytes // len(target))
            reused = self.replay.lesioned(middle, *inputs)
        with replaced(self.model, middle):
            self.reuse = same(reused, self.model(*inputs))
        if not self.reuse:
            self.notes.append("outputs could not be reused in this model: every pass was whole")
            return sys.maxsize
        return max(1, self.memory // per_sample)

    def _batch(self, key: str, inputs: tuple[Any, ...], target: Any) -> None:
        """Scores of the intact network and of each lesion not measured yet, on one batch."""
        known = self.saved.scores
        left = [n for n in range(len(self.lesions)) if f"{key}/{n}" not in known]
        if not left:
            self._tell(len(self.lesions))
            return
        with self.replay.installed() if self.reuse else nullcontext():
            intact = self.replay.intact(*inputs) if self.reuse else self.model(*inputs)
            self.kept_bytes = max(self.kept_bytes, self.replay.kept_bytes)
            known[f"{key}/{_INTACT}"] = score(self.metrics, intact, target)
            for number in left:
                output = self._lesioned(number, inputs)
                known[f"{key}/{number}"] = score(self.metrics, output, target)
                self._tell(number + 1)

    def _lesioned(self, number: int, inputs: tuple[Any, ...]) -> Any:
        replacements = self.lesions[number].replacements
        if self.reuse:
            return self.replay.lesioned(replacements, *inputs)
        with replaced(self.model, replacements):
            return self.model(*inputs)

    def _tell(self, done: int) -> None:
        """Shows how far the measurement is, in passes, and now and then saves it."""
        if time.monotonic() - self.written > _SAVE_EVERY:
            self.saved.write()
            self.written = time.monotonic()
        if self.show is not None:
            number, part, parts = self.place
            passes = len(self.lesions)
            share = (part * passes + done) // parts
            self.show(number * passes + share, max(self.total, number + 1) * passes)

    def _joined(self) -> tuple[list[Scores], Scores]:
        by_lesion: dict[str, list[Scores]] = {}
        for key, scores in self.saved.scores.items():
            by_lesion.setdefault(key.rpartition("/")[2], []).append(scores)
        whole = {
            name: {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}
            for name, parts in by_lesion.items()
        }
        return [whole[str(n)] for n in range(len(self.lesions))], whole[_INTACT]


def _check(target: torch.Tensor) -> str:
    """Tells a batch from another, so that a reshuffled loader is not taken for the saved one."""
    weights = torch.arange(1, target.numel() + 1, device=target.device)
    return f"{int((target.flatten().long() * weights).sum())}x{target.numel()}"


def _rows(
    lesions: list[Lesion], scores: list[Scores], baseline: Scores, step: int, seed: int
) -> tuple[Row, ...]:
    rows: list[Row] = []
    for metric, intact in baseline.items():
        values = np.stack([s[metric] for s in scores])
        binary = bool(np.isin(intact, (0, 1)).all() and np.isin(values, (0, 1)).all())
        samples = len(intact) if len(intact) > 1 else 0
        nothing = np.full(len(lesions), np.nan)
        mean, low, high = (values[:, 0] - intact[0], nothing, nothing)
        if samples and not binary:
            mean, low, high = paired_mean(intact, values, seed=seed)
        for n, lesion in enumerate(lesions):
            bounds = (float(mean[n]), float(low[n]), float(high[n]))
            if samples and binary:
                bounds = paired_share(intact, values[n])
            value, base = float(values[n].mean()), float(intact.mean())
            rows.append(
                Row(
                    step,
                    lesion.label,
                    lesion.kind,
                    metric,
                    value,
                    base,
                    *bounds,
                    samples=samples,
                    parameters=lesion.parameters,
                    macs=lesion.macs,
                    k=lesion.k,
                    detail=lesion.detail,
                )
            )
    return tuple(rows)


def _bar(done: int, total: int) -> None:
    filled = 30 * done // max(1, total)
    end = "\n" if done == total else ""
    sys.stderr.write(f"\rablating [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}{end}")
    sys.stderr.flush()
