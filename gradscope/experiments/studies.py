"""A study's name -> recorded trainings that differ in one thing, what came of them, and verdicts.

Each run is an ordinary one, so every figure and page compares them. A verdict rests on differences
between runs of one seed: the same weights where the networks share them, the same batches.
Must never know figures or the dashboard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradscope.experiments.comparison import Variant, train_variants
from gradscope.experiments.datasets import SMALL, load
from gradscope.experiments.outcomes import OUTCOMES, Spread, difference, outcome, spread
from gradscope.experiments.training import OnProgress
from gradscope.schema import GradScopeError


@dataclass(frozen=True)
class Claim:
    """A published statement as a comparison: `measure` of one variant against another's.

    `expected`: "higher" or "lower", or "same" within `margin` (in the measure's unit). Without
    `reference` the value itself is compared with 0.
    """

    text: str
    source: str
    measure: str
    variant: str
    reference: str
    expected: str
    margin: float = 0.0


@dataclass(frozen=True)
class Study:
    """Variants that differ in one thing, the measures to show, and the claims put to the test."""

    question: str
    variants: tuple[Variant, ...]
    measures: tuple[str, ...]
    claims: tuple[Claim, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A claim with what was measured: `confirmed`, `not seen` or `contradicted` (at this scale)."""

    claim: Claim
    found: Spread
    verdict: str


@dataclass(frozen=True)
class StudyResult:
    """`values`: variant -> measure -> one value per seed, in order of the seeds."""

    name: str
    question: str
    measures: tuple[str, ...]
    paths: tuple[Path, ...]
    values: Mapping[str, Mapping[str, tuple[float, ...]]]
    judged: tuple[Judged, ...]

    def spreads(self, measure: str) -> dict[str, Spread]:
        """Variant -> mean over seeds with its interval."""
        return {variant: spread(found[measure]) for variant, found in self.values.items()}


_HE = "He et al. 2015, arXiv 1512.03385"
_GOOGLENET = "Szegedy et al. 2014, arXiv 1409.4842"
_RETHINKING = "Szegedy et al. 2015, arXiv 1512.00567"
_MEAN_FIELD = "Yang et al. 2019, arXiv 1902.08129"
_DEPTH = "Huang et al. 2016, arXiv 1603.09382"


def _heads(model: str) -> Study:
    none: tuple[str, ...] = ()
    heads = [
        Variant("heads-both", model),
        Variant("heads-none", model, {"aux_heads": none}),
        Variant("heads-weight-1", model, {"aux_weight": 1.0}),
    ]
    claims = [
        Claim("auxiliary heads feed the early layers", _GOOGLENET,
              "first", "heads-both", "heads-none", "higher"),
        Claim("auxiliary heads raise the accuracy (by about 0.5 points)", _GOOGLENET,
              "accuracy", "heads-both", "heads-none", "higher"),
        Claim("they do not help early in training (same within 1 point)", _RETHINKING,
              "early_accuracy", "heads-both", "heads-none", "same", 1.0),
        Claim("heads can be thrown away for inference: the main output does not change", _GOOGLENET,
              "removal", "heads-both", "", "same"),
    ]  # fmt: skip
    if model == "inception_small":
        heads.insert(1, Variant("heads-upper", model, {"aux_heads": ("aux2",)}))
        claims.append(
            Claim("the lower head can go (same accuracy within 0.5 points)", _RETHINKING,
                  "accuracy", "heads-upper", "heads-both", "same", 0.5)
        )  # fmt: skip
    return Study(
        "Do auxiliary heads feed the early layers, and does the network gain by them?",
        tuple(heads),
        ("accuracy", "early_accuracy", "late_accuracy", "first", "growth", "aux_share", "removal"),
        tuple(claims),
    )


_SKIPS = Study(
    "What do shortcuts do at the same depth, weights and batches?",
    (
        Variant("skips-on-20", "resnet20"),
        Variant("skips-half-20", "resnet20", {"skip_scale": 0.5}),
        Variant("skips-off-20", "plain20"),
        Variant("skips-on-32", "resnet32"),
        Variant("skips-off-32", "plain32"),
    ),
    ("accuracy", "train_loss", "growth_start", "growth"),
    (
        Claim("a deeper plain net trains worse", _HE,
              "train_loss", "skips-off-32", "skips-off-20", "higher"),
        Claim("a deeper residual net trains better", _HE,
              "train_loss", "skips-on-32", "skips-on-20", "lower"),
        Claim("with batch normalisation the plain net's gradient does not vanish (more than -1 decade)",
              _HE, "growth", "skips-off-32", "", "higher", -1.0),
    ),
)  # fmt: skip

_NORMALISATION = Study(
    "What does batch normalisation do to the gradient at the same depth, weights and batches?",
    (
        Variant("plain20-bn", "plain20"),
        Variant("plain20-no-bn", "plain20", {"batch_norm": False}),
        Variant("resnet20-bn", "resnet20"),
        Variant("resnet20-no-bn", "resnet20", {"batch_norm": False}),
    ),
    ("accuracy", "train_loss", "growth_start", "growth", "first"),
    (
        Claim("with batch normalisation the plain net's gradient does not vanish (more than -1 decade)",
              _HE, "growth", "plain20-bn", "", "higher", -1.0),
        Claim("at initialisation a plain net with it explodes toward the input, more than without",
              _MEAN_FIELD, "growth_start", "plain20-bn", "plain20-no-bn", "higher"),
    ),
    {"lr": 0.02},
)  # fmt: skip

_STOCHASTIC = Study(
    "What does dropping blocks during training do, and what when it stops?",
    (
        Variant("drop-never", "resnet20"),
        Variant("drop-always", "resnet20", {"survival": 0.5}),
        Variant("drop-first-half", "resnet20", {"survival": 0.5, "survival_until": 0.5}),
    ),
    ("accuracy", "train_loss", "first", "growth_before", "growth_after"),
    (
        Claim("dropping blocks lowers the test error", _DEPTH,
              "accuracy", "drop-always", "drop-never", "higher"),
        Claim("dropping blocks strengthens the gradient of the early layers", _DEPTH,
              "first", "drop-always", "drop-never", "higher"),
    ),
)  # fmt: skip

STUDIES = ("heads", "skips", "normalisation", "stochastic-depth")
SCALE: Mapping[str, Any] = {"data": SMALL, "epochs": 1, "batch_size": 64, "lr": 0.1, "every": 8}


def describe(name: str, model: str | None = None) -> Study:
    """The study of that name. `model`: the inception net of `heads` (ours, googlenet, ...)."""
    if name == "heads":
        return _heads(model or "inception_small")
    if model is not None:
        raise GradScopeError(f"The study {name!r} takes no model: only heads does.")
    known = {"skips": _SKIPS, "normalisation": _NORMALISATION, "stochastic-depth": _STOCHASTIC}
    if name not in known:
        raise GradScopeError(f"There is no study {name!r}: take one of {', '.join(STUDIES)}.")
    return known[name]


def study(
    name: str,
    *,
    seeds: int = 3,
    root: str | Path = "runs/studies",
    model: str | None = None,
    retrain: bool = False,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> StudyResult:
    """Train every variant under the seeds 0 .. seeds - 1 into `root/name` and compare them.

    Finished runs of the same settings are not trained again. `settings` go to `train` before the
    study's own. GradScopeError for an unknown name, and as `compare`.
    """
    plan = describe(name, model)
    wanted = {**SCALE, **plan.settings, **settings}
    paths = train_variants(
        plan.variants, seeds=seeds, root=Path(root) / name, retrain=retrain,
        on_progress=on_progress, **wanted,
    )  # fmt: skip
    data = load(str(wanted["data"]), wanted.get("data_root"), side=wanted.get("image_size"))
    outcomes = [outcome(path, data) for path in paths]
    values = {
        variant.label: {
            measure: tuple(found[measure] for found in outcomes[n * seeds : (n + 1) * seeds])
            for measure in OUTCOMES
        }
        for n, variant in enumerate(plan.variants)
    }
    judged = tuple(_judge(claim, values) for claim in plan.claims)
    return StudyResult(name, plan.question, plan.measures, tuple(paths), values, judged)


def _judge(claim: Claim, values: Mapping[str, Mapping[str, tuple[float, ...]]]) -> Judged:
    mine = values[claim.variant][claim.measure]
    other = values[claim.reference][claim.measure] if claim.reference else (0.0,) * len(mine)
    found = difference(mine, other)
    return Judged(claim, found, verdict(found, claim.expected, claim.margin))


def verdict(found: Spread, expected: str, margin: float = 0.0) -> str:
    """`confirmed` or `contradicted` where the whole interval says so, else `not seen`.

    One seed has no interval and settles nothing, but for an equality that holds to the bit.
    """
    low, high = found.low, found.high
    if expected == "same":
        if found.mean == 0.0 and (math.isnan(low) or low == high):
            return "confirmed"
        if -margin <= low and high <= margin:
            return "confirmed"
        return "contradicted" if low > margin or high < -margin else "not seen"
    sign = 1.0 if expected == "higher" else -1.0
    worst, best = sorted((sign * (low - margin), sign * (high - margin)))
    if worst > 0:
        return "confirmed"
    return "contradicted" if best < 0 else "not seen"
