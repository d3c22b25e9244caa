"""The plain values the run folder is made of: status, summary of a run, segment, size limits.

Knows nothing of files, threads or what the recorded numbers mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradscope.schema import Finding, RunInfo

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]
Columns = dict[str, np.ndarray[Any, Any]]
"""Columns by name, all of one length; text columns are numpy object arrays of `str`."""

FAR_STEP = 2**62
"""Larger than any step that can be recorded."""


@dataclass(frozen=True)
class RunStatus:
    """How a run stands. Times are seconds since the epoch; `ended` is None while it runs.

    `state` is one of `schema.STATES`, or `"broken"` in a listing, `error` then being the reason.
    `findings` is None while no diagnosis was stored. `last_step` is -1 before the first row.
    `baseline` is False for archives, which cannot be unmarked.
    """

    state: str
    error: str = ""
    started: float = 0.0
    heartbeat: float = 0.0
    ended: float | None = None
    last_step: int = -1
    steps_seen: int = 0
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] | None = None
    verdict: str = ""
    baseline: bool = False
    user_tags: tuple[str, ...] = ()
    user_note: str = ""


@dataclass(frozen=True)
class Segment:
    """One stretch of writing: from its start to its end or to the next resume.

    Rows of parts numbered below `first_seq` whose step is at least `resume_step` are rewound:
    a later segment did those steps again. `rewound_to` is the last step that had been reached.
    """

    first_seq: int
    resume_step: int
    started: float
    rewound_to: int = -1
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSummary:
    """A run as a listing shows it; `status.state` is `"broken"` where the run cannot be read."""

    path: Path
    name: str
    status: RunStatus
    info: RunInfo


MAX_JSON_BYTES = 32 * 2**20
"""Largest JSON file of a run that a reader takes in."""

MAX_PART_BYTES = 256 * 2**20
"""Largest part file that a reader opens."""

MAX_PART_ROWS = 2**24
"""Most rows a reader accepts in one part."""
