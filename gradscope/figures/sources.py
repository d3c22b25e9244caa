"""Turns runs or tidy frames into members and groups: what a figure draws as one line.

Must never know plotly or files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from gradscope.figures.theme import DASHES, PALETTE, SYMBOLS, run_colours
from gradscope.frame import Run
from gradscope.schema import GradScopeError

Source: TypeAlias = Run | pd.DataFrame | Sequence[Run]
"""One run, several, or a tidy frame like `run.frame(...)`, with a column `run` if several."""


MEASURED = frozenset({"sampled_steps", "tracking_cost", "ablation_seconds"})
"""What a recording adds to its config: measured, not chosen, and different for every seed."""


@dataclass(frozen=True)
class Member:
    """One run as a figure sees it. `read(table, columns)` gives its tidy frame."""

    name: str
    model: str
    family: str
    config: Mapping[str, Any]
    read: Callable[[str, Sequence[str] | None], pd.DataFrame]
    sites: pd.DataFrame | None


@dataclass(frozen=True)
class Group:
    """Runs drawn as one line: a single run, or the seeds of one model with one configuration."""

    label: str
    members: tuple[Member, ...]
    colour: str = PALETTE[0]
    dash: str = "solid"
    symbol: str = "circle"
    folded: bool = field(default=False)

    @property
    def family(self) -> str:
        return self.members[0].family

    @property
    def sites(self) -> pd.DataFrame | None:
        return self.members[0].sites


def members(source: Source) -> list[Member]:
    """The runs of a source, in the order given. GradScopeError when there are none."""
    if isinstance(source, pd.DataFrame):
        return _from_frame(source)
    runs = [source] if isinstance(source, Run) else list(source)
    if not runs:
        raise GradScopeError("no runs were given to draw; name at least one recorded run")
    wrong = next((run for run in runs if not isinstance(run, Run)), None)
    if wrong is not None:
        raise GradScopeError(
            f"a figure draws runs (gradscope.load) or a frame, not {type(wrong).__name__}"
        )
    return [_from_run(run) for run in runs]


def single(source: Source) -> Member:
    """The only run of a source; GradScopeError where there are several."""
    found = members(source)
    if len(found) != 1:
        raise GradScopeError(f"this figure shows one run, but {len(found)} were given")
    return found[0]


def groups(
    source: Source, *, fold: bool = True, colours: Mapping[str, str] | None = None
) -> list[Group]:
    """The lines of a figure: runs that differ by their seed alone share one, if `fold`.

    Runs fold when model and every configured value but the seed agree and their seeds differ.
    `colours` maps run names or group labels to #RRGGBB; the rest is coloured by name.
    """
    found = members(source)
    bundles: dict[object, list[Member]] = defaultdict(list)
    for position, member in enumerate(found):
        bundles[_recipe(member) if fold else position].append(member)
    split: list[list[Member]] = []
    for bundle in bundles.values():
        seeds = {str(member.config.get("seed")) for member in bundle}
        split.extend([bundle] if len(seeds) == len(bundle) else [[member] for member in bundle])
    labels = [_label(bundle) for bundle in split]
    labels = [
        label if labels.count(label) == 1 else bundle[0].name
        for label, bundle in zip(labels, split, strict=True)
    ]
    families = {label: bundle[0].family for label, bundle in zip(labels, split, strict=True)}
    default = run_colours(labels, families)
    place = {label: position for position, label in enumerate(sorted(labels))}
    result = []
    for label, bundle in zip(labels, split, strict=True):
        names = (label, *(member.name for member in bundle))
        colour = next((colours[n] for n in names if colours and n in colours), default[label])
        result.append(
            Group(
                label,
                tuple(bundle),
                colour,
                DASHES[place[label] % len(DASHES)],
                SYMBOLS[place[label] % len(SYMBOLS)],
                len(bundle) > 1,
            )
        )
    return result


def pivot(frame: pd.DataFrame, column: str) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Steps (s,), site names by depth (d,), and the values (s, d); missing is NaN."""
    if frame.empty:
        return np.empty(0, dtype=np.int64), [], np.empty((0, 0))
    steps, row = np.unique(frame["step"].to_numpy(), return_inverse=True)
    codes, names = pd.factorize(frame["site"])
    depth = pd.Series(_depth(frame)).groupby(codes).first().to_numpy()
    order = np.argsort(depth, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    matrix = np.full((len(steps), len(names)), np.nan)
    matrix[row, place[codes]] = frame[column].to_numpy(dtype=np.float64)
    return steps, [str(names[i]) for i in order], matrix


def places(member: Member, kind: str, names: Sequence[str], frame: pd.DataFrame) -> pd.DataFrame:
    """Depth, relative depth, stage, module type and rank of `shape` for those sites, in order.

    Without a table of sites (a bare frame) what the frame itself says is used.
    """
    if member.sites is not None:
        known = member.sites[member.sites["kind"] == kind].drop_duplicates("site")
    else:
        known = frame.drop_duplicates("site").copy()
        known["site"] = known["site"].astype("str")
    known = known.set_index("site").reindex(list(names))
    depth = pd.to_numeric(known["depth"]) if "depth" in known else pd.Series(np.nan, known.index)
    if bool(depth.isna().all()):
        depth = pd.Series(np.arange(len(known), dtype=float), known.index)
    relative = (
        known["relative_depth"] if "relative_depth" in known else depth / max(depth.max(), 1.0)
    )
    stage = (
        known["stage"]
        if "stage" in known
        else pd.Series([name.split(".")[0] for name in names], known.index)
    )
    shape = known["shape"] if "shape" in known else pd.Series([()] * len(known), known.index)
    return pd.DataFrame(
        {
            "site": list(names),
            "depth": depth.to_numpy(dtype=float),
            "relative_depth": relative.to_numpy(dtype=float),
            "stage": stage.astype("str").to_numpy(),
            "module_type": (
                known["module_type"].astype("str").to_numpy() if "module_type" in known else ""
            ),
            "rank": [len(s) if isinstance(s, (tuple, list)) else 0 for s in shape],
        }
    )


def layers_of(where: pd.DataFrame, kind: str, layers: str | Sequence[str]) -> np.ndarray:
    """Which rows of `places` to draw: a boolean mask.

    "all", glob patterns, or "auto": outputs of convolutions and linear layers, and the weights
    among the parameters, for normalisation and activation outputs have a scale of their own and
    would make a saw of the profile.
    """
    everything = np.ones(len(where), dtype=bool)
    if layers == "all":
        return everything
    if layers == "auto":
        weighted = (
            where["rank"].to_numpy() >= 2
            if kind == "parameter"
            else where["module_type"].str.match(r"(?:.*\.)?(Lazy)?(Conv\w*|Linear)$").to_numpy()
        )
        return weighted if weighted.sum() >= 2 else everything
    wanted = [layers] if isinstance(layers, str) else list(layers)
    pattern = re.compile("|".join(_glob(p) for p in wanted))
    mask = np.array([pattern.fullmatch(name) is not None for name in where["site"]], dtype=bool)
    if not mask.any():
        raise GradScopeError(
            f"no layer matches {', '.join(wanted)}; layers are {', '.join(where['site'][:6])}, ..."
        )
    return mask


def latest(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows of the last step that has any, in their order; of equal keys the last one counts."""
    if frame.empty:
        return frame
    frame = frame.loc[frame["step"] == frame["step"].max()]
    return pd.DataFrame(frame.drop_duplicates(list(keys), keep="last")).reset_index(drop=True)


def _glob(pattern: str) -> str:
    return "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)


def _from_run(run: Run) -> Member:
    def read(table: str, columns: Sequence[str] | None) -> pd.DataFrame:
        return run.frame(table, columns=columns)

    return Member(run.name, run.model, run.family, run.config, read, run.sites)


def _from_frame(frame: pd.DataFrame) -> list[Member]:
    if frame.empty:
        raise GradScopeError("the frame to draw has no rows")
    if "run" not in frame.columns:
        return [_bare("run", frame)]
    return [_bare(str(name), part) for name, part in frame.groupby("run", sort=False)]


def _bare(name: str, frame: pd.DataFrame) -> Member:
    family = str(frame["family"].iloc[0]) if "family" in frame.columns else ""

    def read(_table: str, columns: Sequence[str] | None) -> pd.DataFrame:
        missing = [c for c in columns or () if c not in frame.columns]
        return frame.assign(**dict.fromkeys(missing, np.nan)) if missing else frame

    return Member(name, name, family, {}, read, None)


def _recipe(member: Member) -> tuple[str, str]:
    if "seed" not in member.config:
        return (member.name, "")
    rest = {
        key: repr(_seedless(value))
        for key, value in member.config.items()
        if key != "seed" and key not in MEASURED
    }
    return (str(member.config.get("model", member.model)), repr(sorted(rest.items())))


def _seedless(value: Any) -> Any:
    """A configured value without the seed in it, as the recipe of a built network has one."""
    if isinstance(value, Mapping):
        return {key: item for key, item in value.items() if key != "seed"}
    return value


def _label(bundle: Sequence[Member]) -> str:
    if len(bundle) == 1:
        return bundle[0].name
    stems = {re.sub(r"[-_. ]+(seed|s)?[-_. ]*\d+$", "", member.name) for member in bundle}
    return stems.pop() if len(stems) == 1 else str(bundle[0].config.get("model", bundle[0].model))


def _depth(frame: pd.DataFrame) -> np.ndarray:
    if "depth" in frame.columns:
        return frame["depth"].to_numpy(dtype=np.float64)
    return pd.factorize(frame["site"])[0].astype(np.float64)
