"""GradScope: see how gradients flow through a network, and what each part of it is worth.

The public names, each loaded when it is first used: reading a run never imports torch, and tracking
one never imports pandas or plotly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradscope.schema import GradScopeError

if TYPE_CHECKING:
    from gradscope import figures as figures
    from gradscope.ablation import ablate as ablate
    from gradscope.frame import Run as Run
    from gradscope.frame import load as load
    from gradscope.frame import load_all as load_all
    from gradscope.preflight import check as check
    from gradscope.record import Scope as Scope
    from gradscope.record import track as track
    from gradscope.units import bypass_identity as bypass_identity
    from gradscope.units import dropped as dropped

__version__ = "0.1.0"

_HOME = {
    "track": "gradscope.record",
    "Scope": "gradscope.record",
    "check": "gradscope.preflight",
    "load": "gradscope.frame",
    "load_all": "gradscope.frame",
    "Run": "gradscope.frame",
    "ablate": "gradscope.ablation",
    "dropped": "gradscope.units",
    "bypass_identity": "gradscope.units",
}

__all__ = ["GradScopeError", "__version__", "figures", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "figures":
        return import_module("gradscope.figures")
    if name not in _HOME:
        raise AttributeError(f"module 'gradscope' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
