"""Evidence -> findings on the way of the gradient from the loss to the input.

Vanishing and exploding are told from measured profiles alone; must never look at the network's
name or family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradscope.diagnosis.evidence import Evidence, Floats, Panel
from gradscope.diagnosis.slope import attenuation, end_ratio, logarithms, slopes
from gradscope.diagnosis.thresholds import (
    CONVERGED_SHARE,
    DECADES_CRITICAL,
    DECADES_WARNING,
    EDGE_SHARE,
    END_OF_RUN_SHARE,
    END_SHARE,
    LASTING_SHARE,
    MIN_SITES,
)
from gradscope.diagnosis.words import power, steps_words
from gradscope.schema import Finding

SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh", "LogSigmoid")


@dataclass(frozen=True)
class Profile:
    """Logarithms of the gradient at each site: `rms` and `norm`, (windows, sites), by depth."""

    panel: Panel
    sites: NDArray[np.int64]
    depth: Floats
    rms: Floats
    norm: Floats


def gradient_profile(evidence: Evidence) -> Profile | None:
    """The profile at module outputs, or at weights where outputs were not recorded.

    Windows in which something was not finite, or in which the loss sent back next to nothing, are
    NaN throughout. Exact zeros are missing: a cut is not an attenuation. None with fewer than
    `MIN_SITES` sites.
    """
    for panel, weights_only in ((evidence.outputs, False), (evidence.parameters, True)):
        if "grad_rms" not in panel.mean or "grad_norm" not in panel.mean:
            continue
        rms, norm = logarithms(panel.mean["grad_rms"]), logarithms(panel.mean["grad_norm"])
        keep = np.isfinite(rms).any(axis=0)
        if weights_only:
            shapes = [len(evidence.sites[i].shape) for i in panel.sites]
            keep &= np.array(shapes, dtype=int) >= 2
        if keep.sum() < MIN_SITES:
            continue
        sites = panel.sites[keep]
        rms, norm = rms[:, keep], norm[:, keep]
        broken = _carries_nothing(rms) | _not_finite(panel)
        rms[broken], norm[broken] = np.nan, np.nan
        depth = np.array([evidence.sites[i].depth for i in sites], dtype=np.float64)
        return Profile(panel, sites, depth, rms, norm)
    return None


def _not_finite(panel: Panel) -> NDArray[np.bool_]:
    bad = np.zeros(panel.windows, dtype=bool)
    for name in ("nonfinite", "grad_nonfinite"):
        if name in panel.high:
            bad |= (panel.high[name] > 0).any(axis=1)
    return bad


def _carries_nothing(rms: Floats) -> NDArray[np.bool_]:
    """Windows whose gradient at the loss end is far below the run's own median there."""
    last = np.full(len(rms), -np.inf)
    for i, row in enumerate(rms):
        finite = row[np.isfinite(row)]
        if len(finite):
            size = max(1, round(END_SHARE * len(row)))
            last[i] = np.median(finite[-size:])
    known = np.isfinite(last)
    if not known.any():
        return np.ones(len(rms), dtype=bool)
    quiet: NDArray[np.bool_] = last < np.median(last[known]) + np.log10(CONVERGED_SHARE)
    return quiet


def decades(profile: Profile) -> Floats:
    """Decades gained (+) or lost (-) towards the input, per window, told conservatively.

    Four readings: the fitted slope times the depth, and the two ends, each in rms and in norm.
    rms alone would call pooling an attenuation, norm alone a change of width. Where they disagree
    in sign the answer is 0, else the smallest of them. Unchanged by a common factor.
    """
    span = float(profile.depth[-1] - profile.depth[0])
    readings = []
    for logs in (profile.rms, profile.norm):
        readings += [slopes(logs, profile.depth)[0] * span, end_ratio(logs)]
    stacked = np.array(readings)
    agree = (stacked > 0).all(axis=0) | (stacked < 0).all(axis=0)
    smallest = np.abs(stacked).min(axis=0) * np.sign(stacked[0])
    return np.where(np.isfinite(stacked).all(axis=0), np.where(agree, smallest, 0.0), np.nan)


def vanishing(evidence: Evidence) -> list[Finding]:
    """The gradient falls by `DECADES_WARNING` decades or more from the loss to the input."""
    return _attenuated(evidence, "vanishing", -1.0)


def exploding(evidence: Evidence) -> list[Finding]:
    """The gradient grows by `DECADES_WARNING` decades or more from the loss to the input."""
    return _attenuated(evidence, "exploding", 1.0)


def _attenuated(evidence: Evidence, kind: str, sign: float) -> list[Finding]:
    profile = gradient_profile(evidence)
    if profile is None:
        return []
    change = decades(profile) * sign
    usable = np.isfinite(change)
    seen = usable & (change >= DECADES_WARNING)
    if not seen.any():
        return []
    where = np.flatnonzero(seen)
    first, last = int(profile.panel.first[where[0]]), int(profile.panel.last[where[-1]])
    measured = attenuation(10.0 ** profile.rms[seen], profile.depth)
    typical = float(np.median(change[seen]))
    share = float(seen.sum() / usable.sum())
    site, cause, edge = _where(evidence, profile, seen, sign)
    severity = _severity(usable, seen, typical)
    ratio = power(10.0 ** (sign * typical))
    verb = "falls to" if sign < 0 else "grows to"
    settled = " and settles afterwards" if severity == "info" else ""
    sentence = (
        f"The loss gradient {verb} {ratio} times its size on the way from the loss to the input "
        f"({steps_words(first, last)}){settled}; {cause}."
    )
    return [
        Finding(
            kind=kind,
            severity=severity,
            site=site,
            first_step=first,
            last_step=last,
            sentence=sentence,
            advice=_advice(evidence, sign, edge),
            confidence=round(1.0 - 0.3 * DECADES_WARNING / typical / float(np.sqrt(seen.sum())), 3),
            evidence={
                "decades": sign * typical,
                "slope": measured.slope,
                "slope_low": measured.low,
                "slope_high": measured.high,
                "ratio": measured.ratio,
                "share_of_steps": share,
                "sites": len(profile.sites),
            },
        )
    ]


def _severity(usable: NDArray[np.bool_], seen: NDArray[np.bool_], typical: float) -> str:
    tail = np.flatnonzero(usable)[-max(1, round(END_OF_RUN_SHARE * int(usable.sum()))) :]
    if seen.sum() / usable.sum() < LASTING_SHARE and not seen[tail].any():
        return "info"
    return "critical" if typical >= DECADES_CRITICAL else "warning"


def _where(
    evidence: Evidence, profile: Profile, seen: NDArray[np.bool_], sign: float
) -> tuple[str, str, str]:
    """Site to name, the clause that says where it happens, and the edge ("" where none)."""
    middle = np.nanmedian(profile.rms[seen], axis=0)
    known = np.flatnonzero(np.isfinite(middle))
    logs, names = middle[known], [evidence.name(int(i)) for i in profile.sites[known]]
    size = max(1, round(END_SHARE * len(logs)))
    from_loss = (logs - np.median(logs[-size:])) * sign
    total = float(np.median(from_loss[:size]))
    jumps = from_loss[:-1] - from_loss[1:]
    widest = int(np.argmax(jumps))
    if jumps[widest] > EDGE_SHARE * max(total, DECADES_WARNING):
        verb = "lost" if sign < 0 else "gained"
        clause = (
            f"{jumps[widest]:.1f} decades of it are {verb} between "
            f"{names[widest + 1]} and {names[widest]}"
        )
        return names[widest], clause, names[widest + 1]
    beyond = np.flatnonzero(from_loss >= DECADES_WARNING)
    site = names[int(beyond[-1])] if len(beyond) else names[int(np.argmax(from_loss))]
    side = "less than 1/1000" if sign < 0 else "more than 1000 times"
    per = abs(total) / max(len(logs) - 1, 1)
    return site, f"from {site} on it is {side}, about {per:.2f} decades per site", ""


def _advice(evidence: Evidence, sign: float, edge: str) -> str:
    types = {site.module_type for site in evidence.sites if site.kind == "output"}
    if edge:
        side = "small" if sign < 0 else "large"
        return f"Look at {edge}: of its weights' norm and its input's rms one is too {side}."
    saturating = sorted(t for t in types if t in SATURATING)
    if sign < 0 and saturating:
        return (
            f"Replace {saturating[0]} in the hidden layers by ReLU or GELU, with He "
            "initialisation (torch.nn.init.kaiming_normal_)."
        )
    if not any("Norm" in t for t in types):
        side = "raise" if sign < 0 else "lower"
        return (
            "Initialise each layer to keep the variance (torch.nn.init.kaiming_normal_ for ReLU), "
            f"which will {side} the weights, or put a normalisation layer after each."
        )
    if sign < 0:
        return "Add shortcuts around every two or three layers, for the gradient to go by."
    return (
        "Add shortcuts around every two or three layers, or warm the learning rate up from a "
        "hundredth over the first few hundred steps."
    )
