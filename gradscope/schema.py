"""The vocabulary of GradScope: names, columns, units, sites, findings and the error class.

Everything that two rooms must agree on stands here. Knows nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1
"""Version of the run folder; a reader refuses a newer one with a clear sentence."""


class GradScopeError(Exception):
    """A user's error, told in one sentence: what was wrong, where, and what to do about it."""


@dataclass(frozen=True)
class Column:
    """One column of a stored table.

    `dtype` is a numpy dtype name (`int64`, `int32`, `float32`, `float64`) or `str`.
    `unit` is what an axis says beside the label ("" for dimensionless numbers).
    """

    name: str
    dtype: str
    unit: str
    label: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A stored table: what one row is, and its columns.

    In the run folder a site is kept as its index into the site list (column `site`, int32);
    frames replace it by the site's name and add its depth.
    """

    name: str
    row: str
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def _key(*names: str) -> tuple[Column, ...]:
    known = {
        "step": Column(
            "step", "int64", "", "optimizer step", "optimizer steps done before this one"
        ),
        "site": Column("site", "int32", "", "site", "index into the run's list of sites"),
    }
    return tuple(known[name] for name in names)


def _stat(name: str, label: str, meaning: str, unit: str = "") -> Column:
    return Column(name, "float32", unit, label, meaning)


PARAMETER_STATS = (
    _stat("grad_norm", "gradient norm", "L2 norm of the gradient the optimizer is about to use"),
    _stat("grad_rms", "gradient rms", "root of the mean square of that gradient's elements"),
    _stat("grad_absmax", "gradient max", "largest finite magnitude in that gradient"),
    _stat(
        "grad_nonfinite", "non-finite gradient elements", "how many elements are NaN or infinite"
    ),
    _stat("weight_norm", "weight norm", "L2 norm of the parameter before the update"),
    _stat("update_ratio", "update ratio", "norm of the update really applied / weight norm"),
    _stat("clip_factor", "clip factor", "gradient norm after clipping / before; 1 where unclipped"),
)

TENSOR_STATS = (
    _stat("mean", "mean", "mean over the finite elements"),
    _stat("std", "standard deviation", "population standard deviation over the finite elements"),
    _stat("rms", "rms", "root of the mean square over the finite elements"),
    _stat("norm", "L2 norm", "root of the sum of squares over the finite elements"),
    _stat("absmax", "largest magnitude", "largest finite magnitude"),
    _stat("zero_fraction", "zero fraction", "share of the finite elements that are exactly zero"),
    _stat("nonfinite", "non-finite elements", "how many elements are NaN or infinite"),
)

OUTPUT_STATS = (
    _stat("sampled_fraction", "sampled fraction", "share of the elements read; 1 = all of them"),
    *TENSOR_STATS,
    *(
        _stat(
            f"grad_{c.name}", f"loss gradient {c.label}", f"of the loss gradient there: {c.meaning}"
        )
        for c in TENSOR_STATS
    ),
    _stat("dead_fraction", "dead fraction", "share of channels zero for every sample of the batch"),
)

BLOCK_STATS = (
    _stat("skip_grad_norm", "shortcut gradient norm", "norm of the gradient through the shortcut"),
    _stat("branch_grad_norm", "branch gradient norm", "norm of the gradient through the branch"),
    _stat("skip_share", "skip share", "shortcut norm / (shortcut norm + branch norm)"),
    _stat("cosine", "cosine", "cosine between the two gradients"),
)

PATH_COLUMNS = (
    Column("length", "int32", "", "path length", "residual units crossed through their branch"),
    Column("paths", "float64", "", "share of the paths", "of all 2^n paths, those of this length"),
    Column(
        "gradient", "float64", "", "gradient norm", "at the input by such a path, mean of draws"
    ),
    Column("gradient_low", "float64", "", "lower bound", "of the mean over draws, 95 %"),
    Column("gradient_high", "float64", "", "upper bound", "of the mean over draws, 95 %"),
    Column("contribution", "float64", "", "share of the gradient", "paths x gradient, sum 1"),
    Column("draws", "int64", "", "draws", "random choices of the units crossed"),
    Column("samples", "int64", "", "samples", "inputs in the batch"),
)

HEAD_COLUMNS = (
    Column("depth", "int32", "", "depth", "order of execution among the layers measured"),
    Column("layer", "str", "", "layer", "module path of a convolution or linear layer"),
    Column("head", "str", "", "head", "main, or the auxiliary head's module path"),
    Column("weight", "float64", "", "loss weight", "of the head's loss"),
    Column("norm", "float64", "", "gradient norm", "of the head's own weighted loss at the output"),
    Column("share", "float64", "", "head share", "norm / sum of the heads' norms there"),
    Column("cosine", "float64", "", "cosine", "between the head's gradient and the main one's"),
    Column(
        "relative_depth", "float64", "", "relative depth", "0 at the first layer, 1 at the last"
    ),
    Column("samples", "int64", "", "samples", "inputs in the batch"),
)

REUSE_COLUMNS = (
    Column("source", "int32", "", "source layer", "0: the block's input, s: its s-th layer"),
    Column("target", "int32", "", "target layer", "the listening layer, counted from 1"),
    Column("block", "str", "", "dense block", "module path of the block"),
    Column("weight", "float64", "", "mean |weight|", "of the target on the source's channels"),
    Column("relative", "float64", "", "relative weight", "weight / the largest of the block"),
)

SHATTERING_COLUMNS = (
    Column("depth", "int32", "", "depth", "layers with weights of the network"),
    Column("seed", "int32", "", "seed", "of the network's initialisation"),
    Column("lag", "int32", "", "lag", "distance in grid points"),
    Column("network", "str", "", "network", "name of the network"),
    Column("distance", "float64", "", "distance", "lag in units of the input"),
    Column("autocorrelation", "float64", "", "autocorrelation", "of the gradient along the line"),
    Column(
        "coactivation",
        "float64",
        "",
        "co-activation",
        "share of the last ReLUs open for both of two inputs, mean over pairs",
    ),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table("parameters", "step, parameter", (*_key("step", "site"), *PARAMETER_STATS)),
        Table("outputs", "sampled step, module output", (*_key("step", "site"), *OUTPUT_STATS)),
        Table("blocks", "sampled step, residual unit", (*_key("step", "site"), *BLOCK_STATS)),
        Table(
            "histograms",
            "sampled step, tensor, occupied exponent",
            (
                *_key("step", "site"),
                Column("of", "int32", "", "tensor", "0: the site's tensor, 1: its gradient"),
                Column("exponent", "int32", "", "binary exponent", "floor(log2 |t|)"),
                Column("count", "int64", "", "count", "elements with that exponent"),
                _stat(
                    "sampled_fraction", "sampled fraction", "share of the elements that were read"
                ),
            ),
        ),
        Table(
            "scalars",
            "step, name",
            (
                *_key("step"),
                Column("name", "str", "", "name", "name given to scope.log"),
                Column("value", "float64", "", "value", "the value logged"),
                Column("time", "float64", "s", "time", "seconds since the epoch"),
            ),
        ),
        Table(
            "ablations",
            "lesion",
            (
                *_key("step"),
                Column("unit", "str", "", "unit", "the unit dropped, or a list of them"),
                Column("lesion", "str", "", "lesion", "what was done: drop, drop-k, reorder, ..."),
                Column("metric", "str", "", "metric", "accuracy, loss, or the user's own"),
                Column("value", "float64", "", "value", "the metric with the lesion"),
                Column("baseline", "float64", "", "baseline", "the metric of the intact network"),
                Column("delta", "float64", "", "difference", "value - baseline"),
                Column("ci_low", "float64", "", "lower bound", "of the difference, 95 %"),
                Column("ci_high", "float64", "", "upper bound", "of the difference, 95 %"),
                Column("samples", "int64", "", "samples", "samples the metric was taken over"),
                Column("parameters", "int64", "", "parameters", "parameters the lesion takes away"),
                Column("macs", "int64", "", "multiply-accumulates", "per sample, taken away"),
                Column("k", "int64", "", "k", "units dropped at once, or swaps made"),
                Column("detail", "str", "", "detail", "JSON: the draw, tau, the way of bypass"),
            ),
        ),
        Table("paths", "path length", (*_key("step"), *PATH_COLUMNS)),
        Table("heads", "layer, head", (*_key("step"), *HEAD_COLUMNS)),
        Table("reuse", "dense block, source, target", (*_key("step"), *REUSE_COLUMNS)),
        Table("shattering", "network, seed, lag", (*_key("step"), *SHATTERING_COLUMNS)),
    )
}
"""Every stored table by name."""

STUDIES = ("ablations", "paths", "heads", "reuse", "shattering")
"""Tables of what was measured on the network of one step; their steps are not those recorded."""

SITE_KINDS = ("parameter", "output", "block", "head")
SEVERITIES = ("info", "warning", "critical")
STATES = ("running", "finished", "failed", "interrupted", "killed")


@dataclass(frozen=True)
class Site:
    """One observed place of a network (see docs/metrics.md).

    `depth` is the order of execution in the forward pass (parameters: that of their module);
    `parameters` is the number of trainable elements (0 for outputs), `shape` that of the tensor.
    """

    name: str
    kind: str
    depth: int
    module_type: str = ""
    shape: tuple[int, ...] = ()
    parameters: int = 0
    stage: str = ""


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run when it starts; plain JSON values only."""

    model: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Finding:
    """A verdict on one thing, with the evidence it rests on.

    `first_step`..`last_step` is the range of steps in which it was seen; `confidence` in [0, 1].
    """

    kind: str
    severity: str
    site: str
    first_step: int
    last_step: int
    sentence: str
    advice: str
    confidence: float = 1.0
    evidence: Mapping[str, Any] = field(default_factory=dict)
