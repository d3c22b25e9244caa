"""The run folder: a crash-safe writer, a reader that works meanwhile, a catalogue of runs.

Rows go in, columns come out; see docs/run-format.md. Never imports torch or pandas, never knows
what the numbers mean.
"""

from gradscope.store.catalog import find_run, list_runs
from gradscope.store.manage import annotate_run, archive_run, delete_run, rename_run
from gradscope.store.reader import StoredRun, open_run
from gradscope.store.surroundings import environment
from gradscope.store.values import Columns, RunStatus, RunSummary, Segment
from gradscope.store.writer import RunWriter

__all__ = [
    "Columns",
    "RunStatus",
    "RunSummary",
    "RunWriter",
    "Segment",
    "StoredRun",
    "annotate_run",
    "archive_run",
    "delete_run",
    "environment",
    "find_run",
    "list_runs",
    "open_run",
    "rename_run",
]
