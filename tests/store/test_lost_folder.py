"""A training outlives its run folder."""

import shutil
import warnings
from pathlib import Path

import numpy as np

from gradscope.schema import RunInfo
from gradscope.store import RunWriter


def test_a_vanished_folder_ends_no_training(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "lost", RunInfo("net"))
    writer.flush()
    shutil.rmtree(tmp_path / "lost")
    (tmp_path / "lost").write_text("in the way")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for step in range(5):
            writer.append(
                "scalars",
                {
                    "step": np.array([step]),
                    "name": np.array(["loss"], dtype=object),
                    "value": np.array([1.0]),
                    "time": np.array([0.0]),
                },
            )
        writer.flush(1.0)
        writer.close()
    assert len([w for w in seen if "cannot write the run" in str(w.message)]) == 1
