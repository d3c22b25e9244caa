"""The walls of the house: what one side imports never reaches the other."""

import ast
import subprocess
import sys

import pytest

READING = [
    "import gradscope; gradscope.load; gradscope.load_all; gradscope.figures.gradient_flow",
    "import gradscope.export",
    "import gradscope_dashboard.app",
    "import gradscope.diagnosis",
]
RECORDING = [
    "import gradscope; gradscope.track; gradscope.check; gradscope.ablate; gradscope.dropped",
    "import gradscope.experiments",
    "import gradscope.models",
]


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    script = f"import sys\n{code}\nprint([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("code", READING)
def test_reading_a_run_loads_no_torch(code: str) -> None:
    assert loaded(code, ("torch", "torchvision")) == []


@pytest.mark.parametrize("code", RECORDING)
def test_recording_a_run_loads_no_pandas_and_no_plotly(code: str) -> None:
    assert loaded(code, ("pandas", "plotly", "dash")) == []


def test_the_door_alone_loads_none_of_them() -> None:
    assert loaded("import gradscope", ("torch", "pandas", "plotly", "dash", "pyarrow")) == []
