from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Planted, healthy, tilt

from gradscope.diagnosis import RULES, judge, verdict
from gradscope.schema import SEVERITIES, Finding


def kinds(run: Planted, *, at_rest: bool = False) -> dict[str, Finding]:
    found = judge(run.evidence(at_rest=at_rest))
    by_kind = {finding.kind: finding for finding in found}
    assert len(by_kind) == len(found), "one finding a kind in these runs"
    return by_kind


def only(run: Planted, kind: str, *, at_rest: bool = False) -> Finding:
    found = kinds(run, at_rest=at_rest)
    assert set(found) == {kind}
    finding = found[kind]
    assert finding.severity in SEVERITIES
    assert 0 < finding.confidence <= 1
    assert finding.sentence.endswith(".")
    assert finding.advice.endswith(".")
    assert finding.first_step <= finding.last_step
    assert finding.evidence
    return finding


@pytest.mark.parametrize("seed", range(20))
def test_healthy_runs_are_silent(seed: int) -> None:
    assert judge(healthy(seed=seed).evidence()) == ()
    assert judge(healthy(steps=3, seed=seed).evidence()) == ()
    assert judge(healthy(steps=3, seed=seed).evidence(at_rest=True)) == ()


def test_no_rows_no_findings() -> None:
    run = healthy(steps=1)
    run.outputs, run.parameters, run.loss = {}, {}, run.loss[:0]
    run.steps = run.steps[:0]
    assert judge(run.evidence()) == ()


@pytest.mark.parametrize(
    ("decades", "kind", "severity"),
    [
        (-4.0, "vanishing", "warning"),
        (-9.0, "vanishing", "critical"),
        (4.0, "exploding", "warning"),
        (9.0, "exploding", "critical"),
    ],
)
def test_tilted_profiles(decades: float, kind: str, severity: str) -> None:
    finding = only(tilt(healthy(), decades), kind)
    assert finding.severity == severity
    assert (finding.first_step, finding.last_step) == (0, 119)
    assert finding.evidence["decades"] == pytest.approx(decades, rel=0.15)
    per_site = decades / 35
    assert finding.evidence["slope_low"] < per_site < finding.evidence["slope_high"]
    assert finding.site.startswith("layer")


@pytest.mark.parametrize("decades", [-2.0, -1.0, 1.0, 2.0])
def test_moderate_tilts_are_silent(decades: float) -> None:
    assert judge(tilt(healthy(), decades).evidence()) == ()


def test_the_named_site_is_where_a_thousandth_is_left() -> None:
    finding = only(tilt(healthy(layers=20), -6.0), "vanishing")
    assert finding.site.split(".")[0] in {"layer8", "layer9", "layer10"}


def test_a_single_culprit_is_named_instead_of_depth() -> None:
    run = healthy()
    for name in ("grad_rms", "grad_norm"):
        run.outputs[name][:, :15] *= 1e-5
    finding = only(run, "vanishing")
    assert finding.site == "layer4.relu"
    assert "between layer5.linear and layer4.relu" in finding.sentence
    assert "layer5.linear" in finding.advice


def test_a_transient_is_a_remark_with_its_steps() -> None:
    finding = only(tilt(healthy(), 5.0, slice(0, 10)), "exploding")
    assert finding.severity == "info"
    assert (finding.first_step, finding.last_step) == (0, 9)
    assert "settles" in finding.sentence


def test_pooling_geometry_is_no_attenuation() -> None:
    run = healthy()
    tilt(run, -4.0)
    flat = healthy().outputs["grad_norm"]
    run.outputs["grad_norm"] = flat
    assert judge(run.evidence()) == ()


def test_weights_serve_where_outputs_were_not_recorded() -> None:
    run = tilt(healthy(), -5.0)
    run.outputs = {}
    assert only(run, "vanishing").site.endswith(".weight")


def test_converged_steps_do_not_count() -> None:
    run = healthy()
    rng = np.random.default_rng(1)
    for name in ("grad_rms", "grad_norm"):
        tail = run.outputs[name][100:]
        tail *= 1e-8 * 10.0 ** np.linspace(-6, 0, tail.shape[1])
        tail *= np.exp(rng.standard_normal(tail.shape))
    for name in ("grad_rms", "grad_norm", "update_ratio"):
        run.parameters[name][100:] *= 1e-8
    assert judge(run.evidence()) == ()


@settings(max_examples=60, deadline=None)
@given(
    factor=st.floats(min_value=1e-12, max_value=1e12),
    decades=st.floats(min_value=-12, max_value=12),
    seed=st.integers(0, 5),
)
def test_a_common_factor_changes_no_flow_verdict(factor: float, decades: float, seed: int) -> None:
    plain = tilt(healthy(steps=12, seed=seed), decades).evidence()
    scaled_run = tilt(healthy(steps=12, seed=seed), decades)
    for name in ("grad_rms", "grad_norm"):
        scaled_run.outputs[name] *= factor
    scaled = scaled_run.evidence()
    for rule in (r for r in RULES if r.__name__ in {"vanishing", "exploding"}):
        told = [(f.kind, f.severity, f.site, f.first_step, f.last_step) for f in rule(plain)]
        assert told == [
            (f.kind, f.severity, f.site, f.first_step, f.last_step) for f in rule(scaled)
        ]


def test_a_dead_layer_is_critical_and_named_after_the_activation() -> None:
    run = healthy()
    run.outputs["zero_fraction"][:, 14] = 1.0
    run.outputs["dead_fraction"][:, 14] = 1.0
    finding = only(run, "dead_units")
    assert (finding.site, finding.severity) == ("layer4.relu", "critical")
    assert "from the start" in finding.advice


def test_units_that_die_in_training_are_dated() -> None:
    run = healthy()
    run.outputs["dead_fraction"][70:, 14] = 0.97
    run.outputs["zero_fraction"][70:, 14] = 0.98
    finding = only(run, "dead_units")
    assert (finding.first_step, finding.severity) == (70, "warning")
    assert "died in training" in finding.advice


def test_zeros_before_the_activation_and_revived_units_are_no_fault() -> None:
    run = healthy()
    run.outputs["dead_fraction"][:, 12:14] = 1.0
    run.outputs["zero_fraction"][:, 12:14] = 1.0
    run.outputs["dead_fraction"][:60, 17] = 1.0
    run.outputs["zero_fraction"][:60, 17] = 1.0
    assert judge(run.evidence()) == ()


def test_chance_explains_silent_channels_of_small_batches() -> None:
    run = healthy()
    run.config["batch_size"] = 2
    run.outputs["zero_fraction"][:, 2::3] = 0.9
    run.outputs["dead_fraction"][:, 2::3] = 0.7
    assert judge(run.evidence()) == ()


def test_a_container_repeats_no_finding_of_its_activation() -> None:
    run = healthy()
    run.sites[14] = replace(run.sites[14], name="layer4.unit", module_type="Unit")
    run.sites[13] = replace(run.sites[13], name="layer4.unit.relu", module_type="ReLU")
    run.outputs["zero_fraction"][:, 13:15] = 1.0
    run.outputs["dead_fraction"][:, 13:15] = 1.0
    assert only(run, "dead_units").site == "layer4.unit.relu"


@pytest.mark.parametrize(("value", "reason"), [(0.0, "zero"), (np.nan, "absent")])
def test_parameters_without_gradient_are_grouped(value: float, reason: str) -> None:
    run = healthy()
    run.parameters["grad_norm"][:, 2:5] = value
    finding = only(run, "no_gradient")
    assert finding.severity == "warning"
    assert finding.site == "layer4.linear.weight"
    assert finding.evidence["parameters"] == 3
    assert finding.evidence["reason"] == reason


def test_a_parameter_frozen_in_training_is_only_remarked() -> None:
    run = healthy()
    run.parameters["grad_norm"][60:, 0] = np.nan
    finding = only(run, "no_gradient")
    assert (finding.severity, finding.first_step) == ("info", 60)


def test_zero_initialised_gates_open_after_the_first_update() -> None:
    run = healthy()
    run.parameters["grad_norm"][0, 3:6] = 0.0
    assert judge(run.evidence()) == ()
    short = healthy(steps=3)
    short.parameters["grad_norm"][:, 3] = 0.0
    assert judge(short.evidence()) == ()


def test_nothing_received_by_anyone_is_critical() -> None:
    run = healthy()
    run.parameters["grad_norm"][:] = 0.0
    assert kinds(run)["no_gradient"].severity == "critical"


def test_a_last_stretch_of_zero_gradients_everywhere_is_convergence() -> None:
    run = healthy()
    run.parameters["grad_norm"][100:] = 0.0
    assert judge(run.evidence()) == ()


def test_the_first_place_that_was_not_finite() -> None:
    run = healthy()
    run.outputs["nonfinite"][50:, 10:] = 7
    run.outputs["grad_nonfinite"][50:] = 7
    run.parameters["grad_nonfinite"][50:] = 7
    run.loss[50:] = np.nan
    finding = only(run, "non_finite")
    assert (finding.severity, finding.site) == ("critical", "layer3.batchnorm1d")
    assert (finding.first_step, finding.last_step) == (50, 119)
    assert "output" in finding.sentence


def test_the_backward_pass_is_searched_from_the_loss() -> None:
    run = healthy()
    run.outputs["grad_nonfinite"][50:, :20] = 1
    run.parameters["grad_nonfinite"][50:, :6] = 1
    finding = only(run, "non_finite")
    assert finding.site == run.sites[19].name
    assert finding.evidence["where"] == "backward"


def test_a_skipped_step_is_a_remark() -> None:
    run = healthy()
    run.parameters["grad_nonfinite"][0] = 3
    finding = only(run, "non_finite")
    assert finding.severity == "info"
    assert "GradScaler" in finding.advice


def test_masks_of_minus_infinity_are_a_remark() -> None:
    run = healthy()
    run.outputs["nonfinite"][:, 5] = 40
    finding = only(run, "non_finite")
    assert finding.severity == "info"


def test_a_spike_is_dated() -> None:
    run = healthy()
    run.parameters["grad_norm"][80] *= 300
    finding = only(run, "gradient_spike")
    assert (finding.first_step, finding.last_step) == (80, 80)
    assert finding.evidence["factor"] > 100


def test_ups_and_downs_are_no_spike() -> None:
    run = healthy()
    run.parameters["grad_norm"][60] *= 4
    run.parameters["grad_norm"][3] *= 100
    assert judge(run.evidence()) == ()


def test_large_updates_name_the_layer() -> None:
    run = healthy()
    run.parameters["update_ratio"][:, 7] = 0.4
    assert only(run, "update_ratio").site == "layer7.linear.weight"


def test_weights_that_hardly_move() -> None:
    run = healthy()
    run.parameters["update_ratio"] *= 1e-5
    assert "hardly move" in only(run, "update_ratio").sentence


def test_a_decayed_learning_rate_is_no_fault() -> None:
    run = healthy()
    run.parameters["update_ratio"][30:] *= 1e-6
    assert judge(run.evidence()) == ()


@pytest.mark.parametrize(("factor", "severity"), [(0.3, "info"), (0.001, "warning")])
def test_clipping_at_every_step(factor: float, severity: str) -> None:
    run = healthy()
    run.parameters["clip_factor"][:] = factor
    assert only(run, "clipping").severity == severity


def test_rare_clipping_is_silent() -> None:
    run = healthy()
    run.parameters["clip_factor"][::5] = 0.2
    assert judge(run.evidence()) == ()


def test_a_loss_that_ends_above_its_start() -> None:
    run = healthy(steps=300)
    run.loss[150:] += np.linspace(0, 30, 150)
    finding = only(run, "divergence")
    assert 90 <= finding.first_step <= 200


def test_a_loss_that_never_moves() -> None:
    run = healthy(steps=300)
    run.loss = 2.303 + 0.01 * np.random.default_rng(0).standard_normal(300)
    assert only(run, "plateau").severity == "warning"


def test_a_noisy_loss_that_falls_late_is_silent() -> None:
    run = healthy(steps=300)
    run.loss = np.where(np.arange(300) < 200, 2.3, 1.5)
    run.loss += 0.2 * np.random.default_rng(0).standard_normal(300)
    assert judge(run.evidence()) == ()


def test_verdict_puts_the_gravest_first() -> None:
    assert verdict(()) == "No fault found"
    run = tilt(healthy(), -9.0)
    run.parameters["clip_factor"][:] = 0.3
    found = judge(run.evidence())
    assert verdict(found).startswith("Gradient vanishes towards the input, from layer")
    assert "more" not in verdict(found)
    assert verdict(found[1:]) == "No fault found; 1 remark"
    both = [replace(f, severity="warning") for f in found]
    assert verdict(both).endswith("; 1 more finding")


def test_rules_are_pure_and_ordered() -> None:
    evidence = tilt(healthy(), -9.0).evidence()
    before = {k: v.copy() for k, v in evidence.outputs.mean.items()}
    assert judge(evidence) == judge(evidence)
    for name, values in before.items():
        np.testing.assert_array_equal(values, evidence.outputs.mean[name])
    assert RULES[0].__name__ == "non_finite"
