"""A model, a batch and a loss -> a report before training; the model is left as it was.

Must never know files or the command line.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from torch import nn
from torch.nn.parameter import UninitializedParameter

from gradscope.diagnosis import Evidence, attenuation, judge, panel, verdict
from gradscope.diagnosis.evidence import OUTPUT_COLUMNS, PARAMETER_COLUMNS, Panel
from gradscope.hooks import unwrap
from gradscope.preflight.passes import LossFunction, Passes, run_passes
from gradscope.preflight.precision import half_losses, precision_findings
from gradscope.preflight.report import Reading, Report
from gradscope.preflight.state import preserved
from gradscope.schema import SEVERITIES, GradScopeError


def check(model: nn.Module, batch: object, loss_fn: LossFunction, *, passes: int = 3) -> Report:
    """Run a few forward and backward passes, update nothing, and say what they show.

    `batch` is `(inputs, target)`, then `loss_fn(output, target)` is called; or inputs alone (a
    tensor, or a mapping of keyword arguments), then `loss_fn(output)`. Runs in training mode on
    the model's device. Weights, gradients, normalisation statistics, modes and random streams are
    left bit for bit as they were.

    Raises GradScopeError where the model or the loss fails on the batch.
    """
    if not isinstance(model, nn.Module):
        raise GradScopeError(f"check needs a torch.nn.Module, not {type(model).__name__}.")
    if passes < 1:
        raise GradScopeError(f"passes={passes}: at least one pass is needed.")
    inner = unwrap(model)
    if any(isinstance(p, UninitializedParameter) for p in inner.parameters()):
        raise GradScopeError(
            f"{type(inner).__name__} has lazy modules without weights yet: run one batch first."
        )
    started = time.perf_counter()
    with preserved(inner):
        seen = run_passes(inner, batch, loss_fn, passes)
    return _report(inner, seen, time.perf_counter() - started)


def _report(model: nn.Module, seen: Passes, seconds: float) -> Report:
    sites = tuple(seen.sites)
    evidence = Evidence(
        sites=sites,
        parameters=panel(seen.columns("parameters"), PARAMETER_COLUMNS, sites),
        outputs=panel(seen.columns("outputs"), (*OUTPUT_COLUMNS, "rms"), sites),
        config={"batch_size": seen.samples},
        at_rest=True,
        closed=closed_gates(model),
    )
    losses = half_losses(seen.sites, seen.histograms)
    last = len(seen.losses) - 1
    precise = precision_findings(seen.sites, seen.histograms, losses, last)
    findings = sorted([*judge(evidence), *precise], key=lambda f: -SEVERITIES.index(f.severity))
    outputs = evidence.outputs
    depth = np.array([sites[i].depth for i in outputs.sites], np.float64)
    return Report(
        model=type(model).__name__,
        verdict=verdict(findings),
        findings=tuple(findings),
        profile=_readings(evidence, outputs),
        attenuation=attenuation(outputs.mean["grad_rms"], depth),
        skips=tuple(seen.skips),
        precision=losses,
        losses=tuple(seen.losses),
        samples=seen.samples,
        seconds=seconds,
    )


def _readings(evidence: Evidence, outputs: Panel) -> tuple[Reading, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = {name: np.nanmedian(grid, axis=0) for name, grid in outputs.mean.items()}
    return tuple(
        Reading(
            evidence.sites[index].name,
            evidence.sites[index].module_type,
            float(middle["grad_rms"][i]),
            float(middle["grad_norm"][i]),
            float(middle["rms"][i]),
            float(middle["dead_fraction"][i]),
        )
        for i, index in enumerate(outputs.sites)
    )


def closed_gates(model: nn.Module) -> tuple[str, ...]:
    """Paths of the modules around a weight that is all zero, hence lets no gradient pass yet."""
    gates = []
    for name, module in model.named_modules():
        for local, parameter in module.named_parameters(recurse=False):
            if not local.endswith("bias") and parameter.numel() and not parameter.any():
                gates.append(name.rpartition(".")[0])
    return tuple(dict.fromkeys(gates))
