"""Runs that several tests of the figures share."""

from __future__ import annotations

import pytest

from gradscope.frame import Run
from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run


@pytest.fixture(scope="session")
def empty_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has just begun: no site, no row."""
    writer = RunWriter(tmp_path_factory.mktemp("empty"), "empty", RunInfo("net"))
    writer.close()
    return Run(open_run(writer.path))
