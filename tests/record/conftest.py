"""A small training, with and without the tracker, for all tests of the recorder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradscope
from gradscope.store import open_run

torch.set_num_threads(1)


@pytest.fixture
def track(tmp_path: Path) -> Callable[..., Any]:
    """`gradscope.track` into a temporary folder, every step, without the closing summary."""

    def start(model: nn.Module, **options: Any) -> Any:
        defaults = {"run": "run", "root": tmp_path, "every": 1, "quiet": True}
        return gradscope.track(model, **(defaults | options))

    return start


@pytest.fixture
def rows() -> Callable[..., dict[tuple[int, str], dict[str, float]]]:
    """A closed run's table as {(step, site name): row}."""

    def read(scope: Any, table: str) -> dict[tuple[int, str], dict[str, float]]:
        run = open_run(scope.path)
        columns = run.read(table)
        keys = zip(columns["step"].tolist(), columns["site"].tolist(), strict=True)
        return {
            (step, run.sites[site].name): {
                name: values[i].item()
                for name, values in columns.items()
                if name not in ("step", "site")
            }
            for i, (step, site) in enumerate(keys)
        }

    return read


@pytest.fixture
def scalars() -> Callable[[Any, str], list[tuple[int, float]]]:
    """The values of one scalar of a closed run, with their steps."""

    def read(scope: Any, name: str) -> list[tuple[int, float]]:
        columns = open_run(scope.path).read("scalars")
        found = zip(columns["step"], columns["name"], columns["value"], strict=True)
        return [(int(step), float(value)) for step, key, value in found if key == name]

    return read
