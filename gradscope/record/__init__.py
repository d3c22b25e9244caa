"""`track(model)` -> `Scope`: when to sample, the step clock, one transfer off the device, rows out.

Must never know pandas or plotly.
"""

from gradscope.record.scope import Scope
from gradscope.record.track import track

__all__ = ["Scope", "track"]
