"""Units and a word such as "blocks" or "random" -> the lesions to measure.

Must never know how they are measured, or files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from gradscope.schema import GradScopeError
from gradscope.units import Bypass, RunAs, Unit, merged

DROPS = (
    "blocks",
    "residual",
    "dense",
    "inception",
    "branches",
    "plain",
    "stages",
    "random",
    "reorder",
)
_KIND = {"branches": "branch"}


@dataclass(frozen=True)
class Lesion:
    """What is done to the network: `label` as the table's unit, `kind` as its lesion.

    `start` is the position (order of execution) from which the network differs.
    """

    label: str
    kind: str
    replacements: Mapping[str, Bypass] = field(repr=False)
    start: int
    k: int = 1
    parameters: int = 0
    macs: int = 0
    detail: str = "{}"


def blocks_of(units: Sequence[Unit]) -> list[Unit]:
    """The units that "blocks" means: the first kind the network has, from residual to plain."""
    for kind in ("residual", "dense", "inception", "plain"):
        chosen = [unit for unit in units if unit.kind == kind]
        if chosen:
            return chosen
    return []


def plan(
    model: nn.Module,
    units: Sequence[Unit],
    drop: str | Iterable[str],
    *,
    k: Iterable[int] | int | None = None,
    draws: int = 20,
    seed: int = 0,
) -> list[Lesion]:
    """The lesions in order of their start. GradScopeError for an unknown word or nothing to do."""
    words = [drop] if isinstance(drop, str) else list(drop)
    lesions: list[Lesion] = []
    for word in words:
        if word not in DROPS:
            raise GradScopeError(f"drop={word!r} is not known: take some of {', '.join(DROPS)}.")
        blocks = blocks_of(units)
        if word == "random":
            lesions += _random(blocks, _counts(k, len(blocks)), draws, seed)
        elif word == "reorder":
            lesions += _reorder(model, blocks, k, draws, seed)
        elif word == "stages":
            lesions += _stages(blocks)
        else:
            kind = _KIND.get(word, word)
            chosen = blocks if word == "blocks" else [u for u in units if u.kind == kind]
            lesions += [together([unit], "drop") for unit in chosen]
    if not lesions:
        have = sorted({unit.kind for unit in units if unit.kind != "head"})
        raise GradScopeError(
            f"drop={', '.join(words)} finds nothing here: this network has {', '.join(have)} units."
        )
    return sorted(lesions, key=lambda lesion: lesion.start)


def together(units: Sequence[Unit], kind: str, **detail: Any) -> Lesion:
    """One lesion that drops all these units."""
    ways = sorted({unit.way for unit in units})
    told = {"way": ways, "exact": all(unit.exact for unit in units), **detail}
    return Lesion(
        ",".join(unit.name for unit in units),
        kind,
        merged(units),
        min(unit.position for unit in units),
        len(units),
        sum(unit.parameters for unit in units),
        sum(unit.macs for unit in units),
        json.dumps(told),
    )


def _counts(k: Iterable[int] | int | None, most: int) -> list[int]:
    wanted = range(1, most + 1) if k is None else [k] if isinstance(k, int) else list(k)
    if any(not 1 <= count <= most for count in wanted):
        raise GradScopeError(f"k must lie between 1 and the {most} units there are: got {wanted}.")
    return list(wanted)


def _random(blocks: Sequence[Unit], counts: list[int], draws: int, seed: int) -> list[Lesion]:
    rng = np.random.default_rng(seed)
    lesions = []
    for count in counts:
        for draw in range(draws):
            picked = sorted(rng.choice(len(blocks), count, replace=False))
            lesions.append(together([blocks[n] for n in picked], "drop-k", draw=draw))
    return lesions


def _stages(blocks: Sequence[Unit]) -> list[Lesion]:
    stages = dict.fromkeys(unit.stage for unit in blocks)
    return [
        together([u for u in blocks if u.stage == stage], "drop-stage", stage=stage)
        for stage in stages
    ]


def _signature(model: nn.Module, unit: Unit) -> tuple[Any, ...]:
    module = model.get_submodule(unit.name)
    shapes = tuple(tuple(p.shape) for p in module.parameters())
    return (type(module), unit.stage, unit.way, unit.macs, shapes)


def _reorder(
    model: nn.Module, blocks: Sequence[Unit], k: Iterable[int] | int | None, draws: int, seed: int
) -> list[Lesion]:
    """k swaps of random pairs of interchangeable units (Veit et al. 2016, section 4.3)."""
    whole = [unit for unit in blocks if unit.modules == (unit.name,) and unit.way != "zero_branch"]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, unit in enumerate(whole):
        groups.setdefault(_signature(model, unit), []).append(index)
    swappable = [group for group in groups.values() if len(group) > 1]
    if not swappable:
        return []
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for group in swappable for a in group for b in group if a < b]
    lesions = []
    for swaps in range(1, len(whole) + 1) if k is None else [k] if isinstance(k, int) else list(k):
        for draw in range(draws):
            order = list(range(len(whole)))
            for pair in rng.integers(0, len(pairs), swaps):
                a, b = pairs[pair]
                order[a], order[b] = order[b], order[a]
            moved = [n for n, other in enumerate(order) if n != other]
            runs: dict[str, Bypass] = {
                whole[n].name: RunAs(model.get_submodule(whole[order[n]].name)) for n in moved
            }
            start = min((whole[n].position for n in moved), default=whole[-1].position)
            told = {"draw": draw, "tau": kendall_tau(order), "order": order}
            lesions.append(Lesion("all", "reorder", runs, start, swaps, detail=json.dumps(told)))
    return lesions


def kendall_tau(order: Sequence[int]) -> float:
    """Kendall's rank correlation of a permutation with the identity: 1 untouched, -1 reversed."""
    n = len(order)
    if n < 2:
        return 1.0
    ranks = np.asarray(order)
    agree = np.sign(ranks[None, :] - ranks[:, None])[np.triu_indices(n, 1)]
    return float(agree.sum() / (n * (n - 1) / 2))
