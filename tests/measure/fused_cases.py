"""Run by test_fused.py under Triton's interpreter: the fused kernel against the float64 reference."""

import torch
from test_statistics import AWKWARD, STATISTICS, agree, reference

from gradscope.measure import BINS, RAW, finish, fused, magnitude_histogram
from gradscope.measure.fused import BLOCK, fits, fused_sums_into

# The interpreter takes milliseconds per tile: few programs with several tiles each, the last ragged,
# and large cases cut short.
fused.MAX_PROGRAMS = 8
LONG = 1000.0 + torch.randn(BLOCK * 19 + 7, generator=torch.Generator().manual_seed(3))
CUT = 50_000


def check(t: torch.Tensor) -> None:
    row = torch.full((len(RAW),), 99.0, dtype=torch.float64)
    counts = torch.zeros(BINS, dtype=torch.int32)
    fused_sums_into(t, row, counts)
    agree(dict(zip(STATISTICS, finish(row.numpy()), strict=True)), reference(t))
    assert (counts.numpy() == magnitude_histogram(t)).all(), "counts"
    if t.numel() > CUT:
        return
    alone = torch.zeros_like(row)
    fused_sums_into(t, alone)
    assert torch.equal(alone.nan_to_num(), row.nan_to_num()), "with and without counts"


def main() -> None:
    for case, t in {**AWKWARD, "several tiles each": LONG}.items():
        if fits(t):
            check(t.flatten()[:CUT] if case in ("two blocks", "rectified") else t)
            print("agrees:", case)
        else:
            assert t.numel() == 0, case


if __name__ == "__main__":
    main()
