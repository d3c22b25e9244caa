"""A tensor -> numbers: pure functions, their formulas in the docstrings.

Must never know names, steps or files.
"""

from gradscope.measure.channels import channel_dim, dead_channels, dead_fraction
from gradscope.measure.device import raw_sums_into
from gradscope.measure.histogram import (
    BINS,
    LOWEST,
    fast_histogram,
    magnitude_histogram,
    sample_stride,
    underflow_share,
)
from gradscope.measure.host import (
    difference_square_sum,
    products,
    raw_sums,
    square_sum,
    square_sums,
)
from gradscope.measure.raw import RAW, STATISTICS, finish

__all__ = [
    "BINS",
    "LOWEST",
    "RAW",
    "STATISTICS",
    "channel_dim",
    "dead_channels",
    "dead_fraction",
    "difference_square_sum",
    "fast_histogram",
    "finish",
    "magnitude_histogram",
    "products",
    "raw_sums",
    "raw_sums_into",
    "sample_stride",
    "square_sum",
    "square_sums",
    "underflow_share",
]
