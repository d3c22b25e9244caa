"""Named studies: what is compared, how a verdict falls, and that the variants share what they say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradscope.experiments import DataSet, Split, ablate_run, datasets, rebuild, study, train
from gradscope.experiments.outcomes import Spread, difference, outcome, spread
from gradscope.experiments.studies import STUDIES, describe, verdict
from gradscope.experiments.training import switch_step
from gradscope.figures.sources import groups
from gradscope.frame import load, load_all
from gradscope.models import ResidualUnit, build
from gradscope.schema import GradScopeError
from gradscope.store import open_run
from gradscope.units import auxiliary_heads

TINY: dict[str, Any] = {"epochs": 1, "batch_size": 32, "every": 1, "device": "cpu"}


def test_spread_is_students_interval_over_seeds() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.high - 2.0 == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert math.isnan(spread([1.0]).low)
    paired = difference([10.0, 20.0, 30.0], [9.0, 19.0, 29.0])
    assert (paired.low, paired.mean, paired.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "expected", "margin", "told"),
    [
        (0.1, 0.5, "higher", 0.0, "confirmed"),
        (-0.1, 0.5, "higher", 0.0, "not seen"),
        (-0.5, -0.1, "higher", 0.0, "contradicted"),
        (-0.5, -0.1, "lower", 0.0, "confirmed"),
        (0.1, 0.5, "lower", 0.0, "contradicted"),
        (-0.9, 0.5, "higher", -1.0, "confirmed"),
        (-3.0, -1.5, "higher", -1.0, "contradicted"),
        (-0.2, 0.4, "same", 0.5, "confirmed"),
        (-0.2, 0.9, "same", 0.5, "not seen"),
        (0.6, 0.9, "same", 0.5, "contradicted"),
        (math.nan, math.nan, "higher", 0.0, "not seen"),
        (math.nan, math.nan, "same", 0.5, "not seen"),
    ],
)
def test_a_verdict_needs_the_whole_interval(
    low: float, high: float, expected: str, margin: float, told: str
) -> None:
    assert verdict(Spread((low + high) / 2, low, high, 3), expected, margin) == told


def test_equality_to_the_bit_needs_no_second_seed() -> None:
    assert verdict(Spread(0.0, math.nan, math.nan, 1), "same") == "confirmed"
    assert verdict(Spread(1e-7, math.nan, math.nan, 1), "same") == "not seen"


@pytest.mark.parametrize("name", STUDIES)
def test_variants_differ_in_one_thing_and_claims_name_them(name: str) -> None:
    plan = describe(name)
    labels = [variant.label for variant in plan.variants]
    assert len(set(labels)) == len(labels)
    for claim in plan.claims:
        assert claim.variant in labels
        assert claim.reference in ("", *labels)
        assert claim.source
    options = {"lr", "aux_weight", "survival_until"}
    nets: dict[str, list[dict[str, torch.Tensor]]] = {}
    for v in plan.variants:
        net = build(v.model, **{k: o for k, o in v.options.items() if k not in options})
        nets.setdefault(re.sub(r"\D", "", v.model), []).append(net.state_dict())
    for first, *others in nets.values():  # by depth
        assert others
        for other in others:
            shared = first.keys() & other.keys()
            assert len(shared) > 20
            assert all(torch.equal(first[key], other[key]) for key in shared)


def test_a_study_records_ordinary_runs_and_judges_them(tmp_path: Path, tiny: DataSet) -> None:
    result = study("stochastic-depth", seeds=2, root=tmp_path, **TINY)
    assert [path.name for path in result.paths] == [
        f"{label}-seed{seed}"
        for label in ("drop-never", "drop-always", "drop-first-half")
        for seed in (0, 1)
    ]
    for label, found in result.values.items():
        for seed, accuracy in enumerate(found["accuracy"]):
            run = load(tmp_path / "stochastic-depth" / f"{label}-seed{seed}")
            scalars = run.frame("scalars")
            tested = scalars.loc[scalars["name"] == "val_accuracy", "value"]
            assert accuracy == pytest.approx(100 * tested.iloc[-1])
    first = result.values["drop-first-half"]
    assert np.isfinite([*first["growth_before"], *first["growth_after"]]).all()
    assert all(np.isnan(result.values["drop-never"]["growth_before"]))
    assert {judged.verdict for judged in result.judged} <= {"confirmed", "not seen", "contradicted"}
    folded = groups(load_all(tmp_path / "stochastic-depth"))
    assert {(group.label, len(group.members)) for group in folded} == {
        (label, 2) for label in result.values
    }
    before = [path.stat().st_mtime_ns for path in result.paths]
    again = study("stochastic-depth", seeds=2, root=tmp_path, **TINY)
    assert [path.stat().st_mtime_ns for path in again.paths] == before
    assert again.judged == result.judged


def test_growth_is_of_the_first_convolution_over_the_last(tmp_path: Path, tiny: DataSet) -> None:
    path = train("plain20", run="a", root=tmp_path, **TINY)
    found = outcome(path, tiny)
    frame = load(path).frame("outputs")
    at_start = frame[frame["step"] == 0].set_index("site")["grad_rms"]
    ratio = at_start["conv1"] / at_start["stage3.2.conv2"]
    assert found["growth_start"] == pytest.approx(math.log10(ratio), rel=1e-5)
    assert math.isnan(found["aux_share"])


def test_heads_are_weighed_and_removed(tmp_path: Path, tiny: DataSet) -> None:
    path = train("inception_small", run="a", root=tmp_path, aux_weight=0.5, **TINY)
    found = outcome(path, tiny)
    assert found["removal"] == 0.0
    assert 0 < found["aux_share"] < 100


def test_blocks_are_dropped_until_the_switch(tmp_path: Path, tiny: DataSet) -> None:
    path = train("resnet20", run="a", root=tmp_path, survival=0.01, survival_until=0.5, **TINY)
    switch = switch_step(0.5, open_run(path).status.steps_seen)
    assert switch == 2
    frame = load(path).frame("outputs")
    deep = frame[frame["site"] == "stage3.2.conv2"]
    assert set(deep["step"]) == {2, 3}  # dropped with probability 0.99 before
    network, _ = rebuild(path)
    assert {m.survival for m in network.modules() if isinstance(m, ResidualUnit)} == {1.0}
    with pytest.raises(GradScopeError, match="survival_until"):
        train("resnet20", root=tmp_path, survival_until=2.0, **TINY)


def test_lesions_during_training_and_after_go_into_one_table(tmp_path: Path, tiny: DataSet) -> None:
    bare = train("resnet20", run="bare", root=tmp_path, **TINY)
    path = train("resnet20", run="a", root=tmp_path, ablate_every=2, **TINY)
    left, right = rebuild(bare)[0].state_dict(), rebuild(path)[0].state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    ablate_run(path, limit=40)
    first = load(path).frame("ablations")
    assert set(first["step"]) == {0, 2, 3}
    ablate_run(path, limit=50)
    second = load(path).frame("ablations")
    assert len(second) == len(first)
    assert set(second.loc[second["step"] == 3, "samples"]) == {50}
    assert set(second.loc[second["step"] < 3, "samples"]) == {64}


def test_an_ablation_broken_off_goes_on(
    tmp_path: Path, tiny: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = train("resnet20", run="a", root=tmp_path, **TINY)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate_run(path, progress=stop)
    (partial,) = path.glob(".ablation-*.npz")
    seen: list[int] = []
    found = ablate_run(path, progress=lambda done, _: seen.append(done))
    assert seen == [6, 7, 8, 9]
    assert not partial.exists()
    assert [r.value for r in found.rows] == [r.value for r in ablate_run(path).rows]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), [("googlenet", 28), ("inception_v3", 299)])
def test_heads_of_torchvisions_nets(
    tmp_path: Path, tiny: DataSet, monkeypatch: pytest.MonkeyPatch, model: str, size: int
) -> None:
    few = replace(tiny, train=cut(tiny.train, 8), test=cut(tiny.test, 4))
    monkeypatch.setattr(datasets, "_small", lambda: few)
    settings = {**TINY, "batch_size": 4, "image_size": size}
    result = study("heads", model=model, seeds=1, root=tmp_path, **settings)
    assert list(result.values) == ["heads-both", "heads-none", "heads-weight-1"]
    assert result.values["heads-both"]["removal"] == (0.0,)
    assert 0 < result.values["heads-both"]["aux_share"][0] < 100
    assert math.isnan(result.values["heads-none"]["aux_share"][0])
    network, _ = rebuild(result.paths[0])
    assert len(auxiliary_heads(network)) == {"googlenet": 2, "inception_v3": 1}[model]


def cut(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])
