"""Every statistic against a float64 reference worked out independently, with numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradscope.measure import (
    BINS,
    RAW,
    STATISTICS,
    dead_fraction,
    difference_square_sum,
    finish,
    host,
    magnitude_histogram,
    products,
    raw_sums,
    raw_sums_into,
    sample_stride,
    square_sum,
)


@pytest.fixture(params=["compiled", "torch"])
def passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host tensors once by the compiled pass, once by torch operations."""
    if request.param == "torch":
        monkeypatch.setattr(host, "compiled", None)
    elif host.compiled is None:
        pytest.skip("built without a C compiler")


def reference(t: torch.Tensor) -> dict[str, float]:
    x = t.detach().to(torch.float64).numpy().ravel()
    finite = x[np.isfinite(x)]
    out = {"nonfinite": float(x.size - finite.size)}
    if finite.size == 0:
        return out | {name: float("nan") for name in STATISTICS if name != "nonfinite"}
    scale = np.abs(finite).max() or 1.0
    y = finite / scale
    return out | {
        "mean": float(np.mean(y, dtype=np.longdouble) * scale),
        "std": float(np.sqrt(np.mean((y - y.mean()) ** 2)) * scale),
        "rms": float(np.sqrt(np.mean(y**2)) * scale),
        "norm": float(np.sqrt(np.sum(y**2)) * scale),
        "absmax": float(np.abs(finite).max()),
        "zero_fraction": float(np.mean(finite == 0)),
    }


def on_host(t: torch.Tensor) -> dict[str, float]:
    return dict(zip(STATISTICS, finish(np.array(raw_sums(t))), strict=True))


def on_device(t: torch.Tensor) -> dict[str, float]:
    row = torch.zeros(len(RAW), dtype=torch.float64)
    raw_sums_into(t, row)
    return dict(zip(STATISTICS, finish(row.numpy()), strict=True))


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    for name in STATISTICS:
        floor = 1e-12 * abs(expected.get("absmax", 0.0) or 0.0) if name in ("mean", "std") else 0.0
        assert found[name] == pytest.approx(expected[name], rel=1e-5, abs=floor, nan_ok=True), name


GENERATOR = torch.Generator().manual_seed(7)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


AWKWARD = {
    "random": random(64, 3, 17),
    "two blocks": random(1 << 20, 2).sub_(0.3),
    "rectified": random(1 << 18).relu_(),
    "mean cancels": (lambda x: x - x.mean())(random(1 << 18)),
    "constant": torch.full((1000, 100), 0.1),
    "nearly constant": 1000.0 + random(100_000),
    "huge": random(5000) * 1e30,
    "largest": torch.full((300,), 3.4e38),
    "tiny": random(5000) * 1e-40,
    "one large among tiny": torch.cat([torch.full((1000,), 1e-20), torch.tensor([1.0])]),
    "zeros": torch.zeros(17, 3),
    "one element": torch.tensor([-2.5]),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
    "some NaN": torch.where(random(4000) > 1, torch.nan, random(4000)),
    "some infinite": torch.cat([random(4000), torch.tensor([torch.inf, -torch.inf, torch.nan])]),
    "all NaN": torch.full((12,), torch.nan),
    "non-contiguous": random(64, 64)[::3, 1::2],
    "transposed": random(64, 32).t(),
    "expanded": random(1, 8).expand(5, 8),
    "one number expanded": torch.tensor(1.5).expand(3, 5),
    "negated when read": torch.complex(random(50), random(50)).conj().imag,
    "every second of a row": random(600)[::2],
    "channels-last": random(4, 8, 6, 6).contiguous(memory_format=torch.channels_last),
    "half": random(4000).half(),
    "half largest": torch.full((4000,), 65504.0).half(),
    "half tiny": (random(4000) * 1e-6).half(),
    "bfloat16": random(4000).bfloat16(),
    "bfloat16 huge": (random(4000) * 1e30).bfloat16(),
    "double": random(4000).double() * 1e-60,
}


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("case", AWKWARD)
def test_host_tensors_agree_with_a_float64_reference(case: str) -> None:
    agree(on_host(AWKWARD[case]), reference(AWKWARD[case]))


@pytest.mark.parametrize("case", AWKWARD)
def test_tensors_on_a_device_agree_with_a_float64_reference(case: str) -> None:
    agree(on_device(AWKWARD[case]), reference(AWKWARD[case]))


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("case", AWKWARD)
def test_magnitude_counts_are_those_of_the_logarithm(case: str) -> None:
    t = AWKWARD[case]
    counts = np.zeros(BINS, dtype=np.int32)
    raw_sums(t, counts)
    assert (counts == magnitude_histogram(t)).all()
    sample = np.zeros(BINS, dtype=np.int32)
    raw_sums(t, sample, 512)
    assert (sample == magnitude_histogram(t, 512)).all()


@pytest.mark.parametrize("case", AWKWARD)
def test_magnitude_counts_on_a_device(case: str) -> None:
    t = AWKWARD[case]
    counts = torch.zeros(BINS, dtype=torch.int32)
    share = raw_sums_into(t, torch.zeros(len(RAW), dtype=torch.float64), counts, 512)
    assert (counts.numpy() == magnitude_histogram(t, 512)).all()
    assert share == 1.0 / sample_stride(t.numel(), 512)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(width=32, allow_nan=True, allow_infinity=True),
            st.sampled_from([0.0, 1e30, -1e30, 1e-40, 1.0]),
        ),
        max_size=60,
    ),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_agrees_on_any_values(values: list[float], dtype: torch.dtype) -> None:
    t = torch.tensor(values, dtype=torch.float32).to(dtype)
    for way in (host.compiled, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host, "compiled", way)
            agree(on_host(t), reference(t))
    agree(on_device(t), reference(t))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5000), st.floats(-35, 35), st.floats(-3, 3))
def test_agrees_at_any_scale_and_offset(seed: int, n: int, decade: float, offset: float) -> None:
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed)) + offset
    t = (x.double() * 10.0**decade).float()
    agree(on_host(t), reference(t))


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_constant_tensor_whatever_the_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(on_host(torch.full((3 << 18,), 0.1)), reference(torch.full((3 << 18,), 0.1)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 4095, 4096, 70_001, 300_000])
def test_any_number_of_threads_reads_each_element_once(threads: int, size: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        t = random(size)
        counts = np.zeros(BINS, dtype=np.int32)
        found = raw_sums(t, counts, 1000)
        x = t.double().numpy()
        assert found[0] == size
        assert found[3] == pytest.approx(x.sum(), rel=1e-5)
        assert (counts == magnitude_histogram(t, 1000)).all()
        other = t.flip(0) + 1.0
        y = other.double().numpy()
        assert products(t, other) == pytest.approx((x @ x, y @ y, x @ y), rel=1e-5)
        assert difference_square_sum(t, other) == pytest.approx(((x - y) ** 2).sum(), rel=1e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize("case", AWKWARD)
def test_square_sum_is_the_squared_norm(case: str) -> None:
    expected = reference(AWKWARD[case])["norm"]
    if not np.isnan(expected):
        assert np.sqrt(square_sum(AWKWARD[case])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("passes")
@pytest.mark.parametrize(("dim", "shape"), [(1, (6, 5, 4, 4)), (1, (6, 5)), (2, (3, 4, 5))])
def test_dead_fraction_counts_channels_silent_for_every_sample(dim: int, shape: tuple) -> None:
    x = torch.rand(shape, generator=GENERATOR) + 0.1
    x.select(dim, 1).zero_()
    x.select(dim, 3).zero_()
    x[0].zero_()
    assert float(dead_fraction(x, dim)) == pytest.approx(2 / 5)
    assert float(dead_fraction(x.double(), dim)) == pytest.approx(2 / 5)
    x.select(dim, 1)[-1] = -0.5
    assert float(dead_fraction(x, dim)) == pytest.approx(1 / 5)
