"""A tensor -> numbers: pure functions, their formulas in the docstrings.

Must never know names, steps or files.
"""

from gradscope.measure.blocks import raw_sums, square_sum
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
from gradscope.measure.raw import RAW, STATISTICS, finish

__all__ = [
    "BINS",
    "LOWEST",
    "RAW",
    "STATISTICS",
    "channel_dim",
    "dead_channels",
    "dead_fraction",
    "fast_histogram",
    "finish",
    "magnitude_histogram",
    "raw_sums",
    "raw_sums_into",
    "sample_stride",
    "square_sum",
    "underflow_share",
]
