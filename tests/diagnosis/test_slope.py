from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.diagnosis import attenuation


def test_an_exact_geometric_fall() -> None:
    depth = np.arange(20)
    profile = 10.0 ** (-0.3 * depth[::-1])
    result = attenuation(profile, depth)
    assert result.slope == pytest.approx(-0.3)
    assert result.decades == pytest.approx(-5.7)
    assert result.ratio == pytest.approx(10**-5.7)
    assert result.low == pytest.approx(-0.3)
    assert result.high == pytest.approx(-0.3)
    assert result.steps == 1


@settings(max_examples=50, deadline=None)
@given(
    slope=st.floats(-1, 1),
    factor=st.floats(1e-6, 1e6),
    seed=st.integers(0, 1000),
)
def test_order_and_scale_do_not_matter(slope: float, factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    depth = np.sort(rng.uniform(0, 30, 15))
    profile = 10.0 ** (-slope * depth + 0.1 * rng.standard_normal((7, 15)))
    plain = attenuation(profile, depth)
    shuffle = rng.permutation(15)
    other = attenuation(factor * profile[:, shuffle], depth[shuffle])
    assert other.slope == pytest.approx(plain.slope, rel=1e-9, abs=1e-12)
    assert other.low == pytest.approx(plain.low, rel=1e-9, abs=1e-12)
    assert other.ratio == pytest.approx(plain.ratio, rel=1e-9)
    reference = [-np.polyfit(depth, row, 1)[0] for row in np.log10(profile)]
    assert plain.slope == pytest.approx(np.mean(reference), rel=1e-6, abs=1e-9)


def test_the_interval_covers_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    depth = np.arange(10)
    covered = 0
    for _ in range(400):
        steps = -0.2 + 0.05 * rng.standard_normal(25)
        result = attenuation(10.0 ** (-steps[:, None] * depth), depth)
        covered += result.low <= -0.2 <= result.high
    assert 0.90 <= covered / 400 <= 0.99


def test_neighbouring_steps_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    depth = np.arange(10)
    white = rng.standard_normal(200)
    walk = np.convolve(rng.standard_normal(220), np.ones(20) / math.sqrt(20), "valid")[:200]
    widths = []
    for noise in (white, walk):
        result = attenuation(10.0 ** (0.05 * noise[:, None] * depth), depth)
        widths.append(result.high - result.low)
    assert widths[1] > 2 * widths[0]


def test_zeros_and_gaps_are_missing() -> None:
    depth = np.arange(6)
    profile = np.tile(10.0**depth, (3, 1)).astype(float)
    profile[0, 2], profile[1, 3], profile[2] = 0.0, np.nan, np.nan
    result = attenuation(profile, depth)
    assert result.slope == pytest.approx(-1.0)
    assert result.steps == 2
    nothing = attenuation(np.full((2, 6), np.nan), depth)
    assert nothing.steps == 0
    assert math.isnan(nothing.slope)
