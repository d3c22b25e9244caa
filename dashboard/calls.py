"""Turns what a plot shows into the Python that draws it, to be copied from its panel.

Must never know Dash or figures' insides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradscope.frame import Run


def figure_call(
    function: str,
    runs: Sequence[Run],
    arguments: Mapping[str, Any],
    module: str = "gradscope.figures",
    positional: Sequence[Any] = (),
) -> str:
    """A script of a few lines: load the runs, call the function, show the figure.

    One run is passed as itself, several as a list. Arguments that are None are left out.
    """
    loads = [f"gradscope.load({str(run.path)!r})" for run in runs]
    if len(loads) == 1:
        lines = [f"run = {loads[0]}"]
        first = "run"
    else:
        lines = ["runs = [", *(f"    {load}," for load in loads), "]"]
        first = "runs"
    given = [first, *(repr(value) for value in positional)]
    given += [f"{key}={value!r}" for key, value in arguments.items() if value is not None]
    short = module.rpartition(".")[2]
    imports = ["import gradscope"]
    if module.startswith("gradscope."):
        called = f"{module}.{function}"
    else:
        imports.append(f"from {module.rpartition('.')[0]} import {short}")
        called = f"{short}.{function}"
    return "\n".join([*imports, "", *lines, f"{called}({', '.join(given)}).show()", ""])
