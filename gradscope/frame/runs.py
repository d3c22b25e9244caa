"""Turns run folders into `Run` objects that answer with tidy DataFrames.

Must never know torch, plotly, or how a run folder is laid out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradscope.frame.tables import FRAMES, findings_frame, sites_frame, tidy
from gradscope.schema import STUDIES, TABLES, Finding, GradScopeError
from gradscope.store import RunStatus, StoredRun, find_run, list_runs, open_run


class Run:
    """A recorded run, finished or still being written; every access reads its newest state.

    Frames are kept until the run grows, so asking twice is cheap.
    """

    def __init__(self, stored: StoredRun) -> None:
        self.stored = stored
        self._frames: dict[object, pd.DataFrame] = {}
        self._version = ""

    def __repr__(self) -> str:
        return f"Run({self.name!r}, model={self.model!r}, state={self.status.state!r})"

    @property
    def name(self) -> str:
        return self.stored.name

    @property
    def path(self) -> Path:
        return Path(self.stored.path)

    @property
    def model(self) -> str:
        return self.stored.info.model

    @property
    def family(self) -> str:
        """Architecture family ("plain", "residual", ...), "" where unknown."""
        return self.stored.info.family or str(self.config.get("family", "") or "")

    @property
    def config(self) -> Mapping[str, Any]:
        return self.stored.info.config

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(self.stored.info.tags)

    @property
    def status(self) -> RunStatus:
        return self.stored.status

    @property
    def sites(self) -> pd.DataFrame:
        """The same as `frame("sites")`."""
        return self.frame("sites")

    @property
    def steps(self) -> np.ndarray:
        """Every optimizer step with a recorded row, ascending (int64)."""
        return self._steps(tuple(self.stored.tables()))

    def sampled_steps(self, table: str = "outputs") -> np.ndarray:
        """Steps at which that table has rows, ascending (int64)."""
        return self._steps((table,))

    def findings(self) -> tuple[Finding, ...]:
        """The findings kept with the run; empty where it was not diagnosed yet."""
        return tuple(self.status.findings or ())

    def frame(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        first_step: int | None = None,
        last_step: int | None = None,
        sites: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """A tidy frame: "parameters", "outputs", "blocks", "histograms", "scalars",
        "ablations", "paths", "heads", "reuse", "shattering", "sites" or "findings".

        Columns as in docs/metrics.md; missing values are NaN, `site` is a Categorical of names.
        `columns` reads only some statistics, `sites` only names equal to or matching a glob.
        Raises GradScopeError for a name that does not exist.
        """
        if name not in FRAMES:
            raise GradScopeError(f"no frame named {name!r}; there are {', '.join(FRAMES)}")
        if name == "sites":
            return self._kept("sites", lambda: sites_frame(self.stored.sites))
        if name == "findings":
            return findings_frame(self.findings())
        chosen = sites if sites is None or isinstance(sites, str) else tuple(sites)
        key = (name, columns if columns is None else tuple(columns), first_step, last_step, chosen)
        return self._kept(
            key,
            lambda: tidy(
                self.stored,
                name,
                columns=columns,
                first_step=first_step,
                last_step=last_step,
                sites=chosen,
            ),
        )

    def _steps(self, tables: Sequence[str]) -> np.ndarray:
        empty = np.empty(0, dtype=np.int64)
        present = [name for name in tables if name in TABLES and name not in STUDIES]
        read = [self.stored.read(name, ["step"]).get("step", empty) for name in present]
        return np.unique(np.concatenate([empty, *read]).astype(np.int64))

    def _kept(self, key: object, make: Any) -> pd.DataFrame:
        version = self.stored.version()
        if version != self._version:
            self._frames.clear()
            self._version = version
        if key not in self._frames:
            self._frames[key] = make()
        return self._frames[key].copy(deep=False)


def load(path: str | Path) -> Run:
    """The run in that folder, or the run of that name below "runs".

    Raises GradScopeError when there is none; the sentence names near ones.
    """
    return Run(open_run(find_run(path)))


def load_all(root: str | Path = "runs", pattern: str = "*") -> list[Run]:
    """Every readable run below `root` whose name matches the glob, by name.

    Broken folders are left out; `gradscope.store.list_runs` names them with the reason.
    Raises GradScopeError when `root` is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise GradScopeError(
            f"there is no folder {str(folder)!r}; record a run first, or name its parent folder"
        )
    found = [item for item in list_runs(folder) if item.status.state != "broken"]
    runs = [Run(open_run(item.path)) for item in found if fnmatch.fnmatchcase(item.name, pattern)]
    return sorted(runs, key=lambda run: run.name)


def load_named(words: Sequence[str | Path]) -> list[Run]:
    """Runs by path, each word a run's folder or a folder of runs.

    Raises GradScopeError for a word that is neither, or a folder without runs.
    """
    found: list[Run] = []
    for word in words:
        path = Path(word)
        single = (path / "run.json").is_file() or path.suffix == ".zip"
        inside = [load(path)] if single else load_all(path)
        if not inside:
            raise GradScopeError(f"There is no run in {path}; name a run's folder or one of runs.")
        found += inside
    return found
