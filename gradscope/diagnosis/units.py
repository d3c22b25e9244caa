"""Evidence -> findings on units that say nothing and parameters that hear nothing.

Dead units are judged where zeros can be final, after an activation; must never judge a tensor
that a later normalisation or bias lifts again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gradscope.diagnosis.evidence import Evidence, Floats, Panel
from gradscope.diagnosis.thresholds import (
    DEAD_CHANCE,
    DEAD_SIGMAS,
    DEAD_WINDOWS,
    NO_GRADIENT_STEPS,
    WHOLE_LAYER_DEAD,
)
from gradscope.diagnosis.words import share, some, steps_words
from gradscope.schema import Finding, Site

PASSIVE = (
    "Conv",
    "Linear",
    "Bilinear",
    "Norm",
    "Dropout",
    "DropPath",
    "StochasticDepth",
    "Pool",
    "Identity",
    "Flatten",
    "Unflatten",
    "Embedding",
    "Upsample",
    "Pad",
    "Quant",
)
"""Parts of the type names of modules that end no activation: zeros there are an input's, or are
lifted again by what follows."""

CONTAINERS = ("ConvNormActivation", "Conv2dNormActivation", "Conv3dNormActivation")
"""Containers whose names contain a passive part."""

LISTED = 20
"""Parameters named in a finding's evidence; their number is always given."""


def dead_units(evidence: Evidence) -> list[Finding]:
    """Channels after an activation that are zero for every sample, until the end of the run."""
    panel = evidence.outputs
    if "dead_fraction" not in panel.low or panel.windows == 0:
        return []
    dead, zero = _dead(panel), panel.mean["zero_fraction"]
    found: list[tuple[Site, float]] = []
    findings = []
    for column, index in enumerate(panel.sites):
        site = evidence.sites[index]
        if not _can_be_dead(site) or _behind_gate(f"{site.name}.", evidence.closed):
            continue
        line = _line(site, dead[:, column], zero[:, column], evidence)
        stretch = _until_end(dead[:, column], line)
        if stretch is None or len(stretch) < (1 if evidence.at_rest else DEAD_WINDOWS):
            continue
        level = float(np.min(dead[stretch, column]))
        if any(_same_tensor(site, level, other, at) for other, at in found):
            continue
        found.append((site, level))
        findings.append(_dead_finding(site, level, line, panel, stretch))
    return findings


def _dead(panel: Panel) -> Floats:
    """Smallest dead share per window; a tensor all zero is wholly dead whatever its channels."""
    zero = panel.low["zero_fraction"]
    return np.where(zero >= 1.0, 1.0, panel.low["dead_fraction"])


def _can_be_dead(site: Site) -> bool:
    if site.module_type in CONTAINERS:
        return True
    return not any(part in site.module_type for part in PASSIVE)


def _line(site: Site, dead: Floats, zero: Floats, evidence: Evidence) -> float:
    """Share of dead channels that chance does not explain.

    A channel of m independent values, each zero with the probability z seen in the live channels,
    is zero throughout with z^m; values of one sample count as one, being correlated. Inputs that
    hardly vary between samples make the samples one, hence the floor of 1/2.
    """
    samples = evidence.config.get("batch_size") or (site.shape[0] if site.shape else 1)
    d, z = _median(dead), _median(zero)
    live_zero = min(max((z - d) / (1 - d), 0.0), 1.0) if d < 1 else 0.0
    chance = max(DEAD_CHANCE, live_zero ** max(int(samples), 1))
    line = chance + DEAD_SIGMAS * float(np.sqrt(chance * (1 - chance) / _channels(site)))
    return min(line, WHOLE_LAYER_DEAD)


def _channels(site: Site) -> int:
    """Length of the channel dimension: the last of sequences of features, else the second."""
    sequence = len(site.shape) == 3 and not site.module_type.endswith("1d")
    return max(site.shape[2 if sequence else 1], 1) if len(site.shape) > 1 else 1


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0


def _until_end(values: Floats, line: float) -> NDArray[np.intp] | None:
    """Windows of the last unbroken stretch at or above `line`, if it reaches the newest value."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0 or values[known[-1]] < line:
        return None
    below = np.flatnonzero(values[known] < line)
    return known[below[-1] + 1 :] if len(below) else known


def _same_tensor(site: Site, level: float, other: Site, at: float) -> bool:
    """Whether a container merely hands on what a module inside it was told of already."""
    inside = site.name == site.module_type or other.name.startswith(site.name + ".")
    return inside and abs(level - at) < 0.02


def _dead_finding(
    site: Site,
    level: float,
    line: float,
    panel: Panel,
    stretch: NDArray[np.intp],
) -> Finding:
    whole = level >= WHOLE_LAYER_DEAD
    first, last = int(panel.first[stretch[0]]), int(panel.last[stretch[-1]])
    later = stretch[0] > 0
    name = site.name or "(model)"
    what = "lets nothing through" if whole else f"has {share(level)} dead channels"
    since = f"from step {first} on" if later else f"{steps_words(first, last)}"
    if later:
        advice = (
            f"They died in training: lower the learning rate (or clip gradients), or use "
            f"LeakyReLU or GELU at {name}."
        )
    else:
        advice = (
            f"They were dead from the start: check the bias and the scale of what feeds {name} "
            "(bias 0 and He initialisation), or use LeakyReLU or GELU there."
        )
    return Finding(
        kind="dead_units",
        severity="critical" if whole else "warning",
        site=name,
        first_step=first,
        last_step=last,
        sentence=f"{name} {what}: zero for every sample in the batch ({since}).",
        advice=advice,
        confidence=round(1.0 - 0.3 / float(np.sqrt(len(stretch))), 3),
        evidence={"dead_fraction": level, "line": line, "samples_of_it": len(stretch)},
    )


def no_gradient(evidence: Evidence) -> list[Finding]:
    """Parameters that received no gradient while others did; frozen ones are only remarked."""
    panel = evidence.parameters
    if "grad_norm" not in panel.high or panel.windows == 0:
        return []
    high = panel.high["grad_norm"]
    heard = high > 0
    if "grad_nonfinite" in panel.high:
        heard |= panel.high["grad_nonfinite"] > 0
    alive = np.flatnonzero(heard.any(axis=1))
    if len(alive) == 0:
        return _nothing_at_all(evidence, panel, bool(np.isfinite(high).any()))
    groups: dict[tuple[str, int], list[int]] = {}
    for column, index in enumerate(panel.sites):
        silent = _silent_since(heard[:, column], alive)
        if silent is None or not _long_enough(panel, alive, silent, evidence.at_rest):
            continue
        zero = bool((high[alive[alive >= silent], column] == 0).any())
        reason = "zero" if zero else "stopped" if heard[:, column].any() else "absent"
        if zero and _behind_gate(evidence.name(int(index)), evidence.closed):
            reason = "gate"
        groups.setdefault((reason, silent), []).append(int(index))
    return [
        _silent_finding(evidence, panel, reason, window, members, int(alive[-1]))
        for (reason, window), members in groups.items()
    ]


def _behind_gate(name: str, closed: Sequence[str]) -> bool:
    return any(gate == "" or name.startswith(gate + ".") for gate in closed)


def _silent_since(heard: NDArray[np.bool_], alive: NDArray[np.intp]) -> int | None:
    """First of the windows, up to the end, in which this parameter heard nothing."""
    if heard[alive[-1]]:
        return None
    times = np.flatnonzero(heard)
    if len(times) == 0:
        return int(alive[0])
    return int(alive[alive > times[-1]][0])


def _long_enough(panel: Panel, alive: NDArray[np.intp], since: int, at_rest: bool) -> bool:
    if at_rest:
        return True
    return int(panel.last[alive[-1]] - panel.first[since]) + 1 >= NO_GRADIENT_STEPS


def _nothing_at_all(evidence: Evidence, panel: Panel, recorded: bool) -> list[Finding]:
    steps = int(panel.last[-1] - panel.first[0]) + 1
    if not recorded or (steps < NO_GRADIENT_STEPS and not evidence.at_rest):
        return []
    first, last = int(panel.first[0]), int(panel.last[-1])
    return [
        Finding(
            kind="no_gradient",
            severity="critical",
            site=evidence.name(int(panel.sites[-1])),
            first_step=first,
            last_step=last,
            sentence=f"No parameter received any gradient ({steps_words(first, last)}).",
            advice="Check that the loss depends on the model's output: no detach(), no argmax, "
            "no torch.no_grad() in between.",
            confidence=0.95,
            evidence={"parameters": len(panel.sites)},
        )
    ]


def _silent_finding(
    evidence: Evidence,
    panel: Panel,
    reason: str,
    window: int,
    members: Sequence[int],
    final: int,
) -> Finding:
    names = [evidence.name(i) for i in members]
    deepest = evidence.name(max(members, key=lambda i: evidence.sites[i].depth))
    first, last = int(panel.first[window]), int(panel.last[final])
    who = f"{len(names)} parameters ({some(names)})" if len(names) > 1 else names[0]
    steps = last - first + 1
    told = {
        "zero": (
            "warning",
            f"{who} got a gradient of exactly zero ({steps_words(first, last)}).",
            f"Find what multiplies by zero after {deepest}: a dead activation, a saturated loss, "
            "a mask, or a gate that is initialised at zero and never opens.",
        ),
        "absent": (
            "warning",
            f"{who} got no gradient at all ({steps_words(first, last)}): the loss does not "
            "depend on it.",
            f"If {deepest} should learn, remove the detach() or no_grad() after it, or use its "
            "output; if not, freeze it with requires_grad_(False) and leave it out of the "
            "optimizer.",
        ),
        "gate": (
            "info",
            f"{who} got a gradient of exactly zero: a gate behind it is initialised at zero.",
            "Nothing to do: the gate opens with the first update.",
        ),
        "stopped": (
            "info",
            f"{who} received gradients until step {first - 1} and none since: frozen or cut off.",
            "Nothing to do if it was frozen on purpose; else look for what changed at that step.",
        ),
    }
    severity, sentence, advice = told[reason]
    confidence = 0.8 if evidence.at_rest and reason == "zero" else min(0.99, 1 - 0.5 / steps)
    return Finding(
        kind="no_gradient",
        severity=severity,
        site=deepest,
        first_step=first,
        last_step=last,
        sentence=sentence,
        advice=advice,
        confidence=round(confidence, 3),
        evidence={"parameters": len(names), "names": names[:LISTED], "reason": reason},
    )
