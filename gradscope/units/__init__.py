"""A model -> the parts of it that can be bypassed, how, and what each costs."""

from gradscope.units.bypass import (
    PadIdentity,
    RunAs,
    ZeroFeatures,
    bypass_identity,
    bypass_zeros,
)
from gradscope.units.calls import Profile, at_rest, example_for, profile
from gradscope.units.find import Chosen, dropped, find_units, pick
from gradscope.units.gradients import (
    Gated,
    ResidualParts,
    SkipGradients,
    residual_parts,
    skip_gradients,
)
from gradscope.units.heads import auxiliary_heads, remove_head, without_heads
from gradscope.units.swap import merged, replaced
from gradscope.units.unit import KINDS, WAYS, Bypass, Unit, unwrapped

__all__ = [
    "KINDS",
    "WAYS",
    "Bypass",
    "Chosen",
    "Gated",
    "PadIdentity",
    "Profile",
    "ResidualParts",
    "RunAs",
    "SkipGradients",
    "Unit",
    "ZeroFeatures",
    "at_rest",
    "auxiliary_heads",
    "bypass_identity",
    "bypass_zeros",
    "dropped",
    "example_for",
    "find_units",
    "merged",
    "pick",
    "profile",
    "remove_head",
    "replaced",
    "residual_parts",
    "skip_gradients",
    "unwrapped",
    "without_heads",
]
