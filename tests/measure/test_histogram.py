"""Magnitude histograms against numpy's logarithm and against what a cast to half really does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.measure import LOWEST, fast_histogram, magnitude_histogram, underflow_share


def exponents(counts: np.ndarray) -> dict[int, int]:
    return {int(i) + LOWEST: int(n) for i, n in enumerate(counts) if n}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32), max_size=50))
def test_counts_per_binary_exponent(values: list[float]) -> None:
    t = torch.tensor(values, dtype=torch.float32)
    x = np.array(values, dtype=np.float64)
    x = x[np.isfinite(x) & (x != 0)]
    exact, number = np.unique(np.frexp(np.abs(x))[1] - 1, return_counts=True)
    expected = dict(zip(exact.tolist(), number.tolist(), strict=True))
    assert exponents(magnitude_histogram(t)) == expected
    assert exponents(fast_histogram(t, 1000)) == expected


def test_the_extremes_of_float32_have_their_bins() -> None:
    t = torch.tensor([2.0**-149, 2.0**-126, 1.0, 3.4e38, 0.0, torch.inf])
    assert exponents(magnitude_histogram(t)) == {-149: 1, -126: 1, 0: 1, 127: 1}


def test_a_sample_is_spread_evenly() -> None:
    t = torch.ones(64, 64)
    t[:, 32:] = 4.0
    found = exponents(fast_histogram(t, 512))
    assert 400 <= sum(found.values()) <= 512
    assert found[0] == pytest.approx(found[2], rel=0.1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_underflow_shares_match_a_real_cast(dtype: str) -> None:
    exponent = torch.arange(-149, 0, dtype=torch.float64)
    t = (2.0**exponent * 1.3).float()
    half = t.to(getattr(torch, dtype)).float()
    smallest_normal = torch.finfo(getattr(torch, dtype)).tiny
    zero, subnormal = underflow_share(magnitude_histogram(t), dtype)
    assert zero == pytest.approx(float((half == 0).float().mean()))
    assert subnormal == pytest.approx(float((half < smallest_normal).float().mean()))
