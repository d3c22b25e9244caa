"""Evidence -> findings on how training goes over time: peaks, updates, clipping, the loss.

Judges courses over steps, so it is silent on few steps; must never judge depth.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gradscope.diagnosis.evidence import Evidence, Floats
from gradscope.diagnosis.thresholds import (
    CLIPPED_HARD,
    CLIPPED_STEPS_SHARE,
    DIVERGED_NOISE,
    DIVERGED_SHARE,
    LOSS_PARTS,
    LOSS_STEPS,
    PLATEAU_SHARE,
    PLATEAU_STEPS,
    SPIKE_FACTOR,
    SPIKE_HISTORY,
    UPDATE_LARGE,
    UPDATE_SMALL,
    UPDATE_WINDOWS,
)
from gradscope.diagnosis.words import power, share, some, steps_words
from gradscope.schema import Finding


def gradient_spike(evidence: Evidence) -> list[Finding]:
    """A gradient norm of the whole model far above all before it."""
    panel = evidence.parameters
    if evidence.at_rest or "grad_norm" not in panel.high:
        return []
    squares = np.where(np.isfinite(panel.high["grad_norm"]), panel.high["grad_norm"], 0.0) ** 2
    totals = np.sqrt(squares.sum(axis=1))
    if len(totals) < 2:
        return []
    before = np.maximum.accumulate(totals)[:-1]
    history = panel.first[1:] - panel.first[0] >= SPIKE_HISTORY
    ratio = np.divide(totals[1:], before, out=np.zeros_like(before), where=before > 0)
    peaks = np.flatnonzero(history & (ratio >= SPIKE_FACTOR))
    if len(peaks) == 0:
        return []
    row = int(peaks[np.argmax(ratio[peaks])]) + 1
    site = evidence.name(int(panel.sites[int(np.argmax(squares[row]))]))
    factor = float(ratio[row - 1])
    first, last = int(panel.first[row]), int(panel.last[row])
    norm = float(totals[row])
    return [
        Finding(
            kind="gradient_spike",
            severity="warning",
            site=site,
            first_step=first,
            last_step=last,
            sentence=f"The gradient norm jumps to {power(norm)}, {power(factor)} times the largest "
            f"before it ({steps_words(first, last)}), mostly in {site}.",
            advice="Clip the gradient norm at about "
            f"{power(float(np.median(totals[:row])) * 2)} (torch.nn.utils.clip_grad_norm_), and "
            "look at that step's batch.",
            confidence=round(min(0.99, 1 - 0.3 * SPIKE_FACTOR / factor), 3),
            evidence={"norm": norm, "factor": factor, "spikes": len(peaks)},
        )
    ]


def update_ratio(evidence: Evidence) -> list[Finding]:
    """Weights that are thrown about, or hardly touched, by the updates really applied."""
    panel = evidence.parameters
    if evidence.at_rest or "update_ratio" not in panel.mean:
        return []
    matrices = np.array([len(evidence.sites[i].shape) >= 2 for i in panel.sites], dtype=bool)
    ratios = panel.mean["update_ratio"][:, matrices]
    sites = panel.sites[matrices]
    rows = np.flatnonzero(np.isfinite(ratios).any(axis=1))
    if len(rows) < UPDATE_WINDOWS:
        return []
    ratios = ratios[rows]
    first, last = int(panel.first[rows[0]]), int(panel.last[rows[-1]])
    return [
        *_large_updates(evidence, ratios, sites, first, last),
        *_small_updates(ratios, first, last),
    ]


def _large_updates(
    evidence: Evidence, ratios: Floats, sites: NDArray[np.int64], first: int, last: int
) -> list[Finding]:
    counts = np.isfinite(ratios).sum(axis=0)
    typical = _median(ratios, axis=0)
    large = np.flatnonzero((counts >= UPDATE_WINDOWS) & (typical > UPDATE_LARGE))
    if len(large) == 0:
        return []
    names = [evidence.name(int(sites[i])) for i in large[np.argsort(-typical[large])]]
    worst = float(typical[large].max())
    return [
        Finding(
            kind="update_ratio",
            severity="warning",
            site=names[0],
            first_step=first,
            last_step=last,
            sentence=f"Each update changes {some(names)} by {share(worst)} of the weights' norm "
            f"(median over {steps_words(first, last)}); about 0.1 % is usual.",
            advice=f"Lower the learning rate about {power(worst / 1e-2)} times, or clip gradients.",
            confidence=round(1 - 0.3 * UPDATE_LARGE / worst, 3),
            evidence={"update_ratio": worst, "parameters": len(names), "names": names[:20]},
        )
    ]


def _small_updates(ratios: Floats, first: int, last: int) -> list[Finding]:
    largest = float(np.nanmax(_median(ratios, axis=1)))
    if largest >= UPDATE_SMALL:
        return []
    return [
        Finding(
            kind="update_ratio",
            severity="warning",
            site="(model)",
            first_step=first,
            last_step=last,
            sentence="The weights hardly move: no update changed half of the layers by more than "
            f"{power(largest)} of their norm ({steps_words(first, last)}); about 1e-3 is usual.",
            advice="Raise the learning rate tenfold, and again until the ratio is near 1e-3.",
            confidence=0.8,
            evidence={"update_ratio": largest},
        )
    ]


def _median(values: Floats, axis: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=axis))


def clipping(evidence: Evidence) -> list[Finding]:
    """Gradient clipping that acts at nearly every step."""
    panel = evidence.parameters
    if evidence.at_rest or "clip_factor" not in panel.mean:
        return []
    factors = _median(panel.mean["clip_factor"], axis=1)
    known = np.flatnonzero(np.isfinite(factors))
    if len(known) < UPDATE_WINDOWS:
        return []
    acting = float((factors[known] < 0.999).mean())
    if acting < CLIPPED_STEPS_SHARE:
        return []
    typical = float(np.median(factors[known]))
    first, last = int(panel.first[known[0]]), int(panel.last[known[-1]])
    hard = typical < CLIPPED_HARD
    return [
        Finding(
            kind="clipping",
            severity="warning" if hard else "info",
            site="(model)",
            first_step=first,
            last_step=last,
            sentence=f"Clipping acts in {share(acting)} of the steps and leaves {power(typical)} "
            f"of the gradient (median over {steps_words(first, last)}).",
            advice=f"Raise the clipping norm about {power(1 / max(typical, 1e-30))} times so that "
            "only peaks are cut, and lower the learning rate by what that adds.",
            confidence=0.9,
            evidence={"clip_factor": typical, "share_of_steps": acting},
        )
    ]


def loss_course(evidence: Evidence) -> list[Finding]:
    """A loss that ends above where it began, or that never left where it began."""
    loss = evidence.scalars.get("loss")
    if evidence.at_rest or loss is None:
        return []
    finite = np.isfinite(loss.values)
    steps, values = loss.steps[finite], loss.values[finite]
    if len(values) < LOSS_STEPS or not finite[-1]:
        return []
    parts = list(np.array_split(values, LOSS_PARTS))
    levels = np.array([np.median(part) for part in parts])
    noise = 1.4826 * float(
        np.median(np.concatenate([np.abs(p - m) for p, m in zip(parts, levels, strict=True)]))
    )
    start, best, end = float(levels[0]), float(levels.min()), float(levels[-1])
    first, last = int(steps[0]), int(steps[-1])
    scale = max(abs(start), 1e-12)
    numbers = {"start": start, "best": best, "end": end, "noise": noise}
    rise = end - max(start, best)
    if rise > DIVERGED_NOISE * noise and rise > DIVERGED_SHARE * scale:
        turn = int(steps[int(np.argmin(levels)) * len(values) // LOSS_PARTS])
        return [_diverged(numbers, turn, last)]
    if last - first >= PLATEAU_STEPS and start - best < PLATEAU_SHARE * scale and first == 0:
        return [_flat(numbers, first, last)]
    return []


def _diverged(numbers: dict[str, float], turn: int, last: int) -> Finding:
    return Finding(
        kind="divergence",
        severity="critical",
        site="loss",
        first_step=turn,
        last_step=last,
        sentence=f"The loss ends at {numbers['end']:.3g}, above the {numbers['start']:.3g} it "
        f"began with; it rises after step {turn}.",
        advice="Go back to a checkpoint before that step with a third of the learning rate.",
        confidence=0.9,
        evidence=numbers,
    )


def _flat(numbers: dict[str, float], first: int, last: int) -> Finding:
    return Finding(
        kind="plateau",
        severity="warning",
        site="loss",
        first_step=first,
        last_step=last,
        sentence=f"The loss has not moved from {numbers['start']:.3g} "
        f"({steps_words(first, last)}).",
        advice="Try to overfit one batch; if the loss does not fall there either, the gradient "
        "does not reach the weights or the labels do not belong to the data.",
        confidence=0.7,
        evidence=numbers,
    )
