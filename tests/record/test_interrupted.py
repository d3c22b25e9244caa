"""Exceptions and Ctrl-C, wherever they strike, leave model, hooks and run consistent."""

import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import nn
from traces import Net, attributes, global_hooks, step

import gradscope
from gradscope.store import open_run

HERE = str(Path(gradscope.__file__).parent)
STRIDE = 12
"""Every so manyth call is interrupted, each time from another start; most starts are left to the slow set."""

STARTS = [
    pytest.param(n, marks=[] if n % 4 == 1 else pytest.mark.slow) for n in range(1, STRIDE + 1)
]


class Alarm:
    """Raises KeyboardInterrupt as a function of the package calls the n-th one in this thread."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.rang = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(HERE):
            self.left -= 1
            if self.left == 0:
                self.rang = True
                raise KeyboardInterrupt


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(self.act(self.first(x)))


def measured(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """A training step; the norms of the model's output and of a weight's gradient."""
    optimizer.zero_grad()
    y = model(torch.randn(6, 4))
    y.square().mean().backward()
    norms = float(y.detach().double().norm()), float(model[1].last.weight.grad.double().norm())
    optimizer.step()
    return norms


def interrupted(model: nn.Module, optimizer: torch.optim.Optimizer, calls: int) -> bool:
    """A step that is broken off at the given call; False if there were fewer calls."""
    alarm = Alarm(calls)
    before = sys.getprofile()
    try:
        sys.setprofile(alarm)
        measured(model, optimizer)
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(before)
    return alarm.rang


@pytest.mark.parametrize("start", STARTS)
def test_a_keyboard_interrupt_anywhere(track, rows, start) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Unit())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    hooks, before = global_hooks(), attributes(model)
    scope = track(model)
    expected = {}
    measured(model, optimizer)
    calls, rang = start, True
    while rang:
        rang = interrupted(model, optimizer, calls)
        number = scope.steps
        expected[number] = measured(model, optimizer)
        assert scope.steps == number + 1, calls
        calls += STRIDE
    scope.close()
    assert len(expected) > 10
    found, outputs = rows(scope, "parameters"), rows(scope, "outputs")
    for number, (value, norm) in expected.items():
        row = found[number, "1.last.weight"]
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-5), number
        assert row["update_ratio"] > 0, number
        assert row["clip_factor"] == 1.0, number
        assert outputs[number, "1"]["norm"] == pytest.approx(value, rel=1e-5), number
        assert outputs[number, "1"]["grad_norm"] == pytest.approx(value / 12, rel=1e-5), number
    assert not [name for _, name in outputs if "#" in name]
    assert global_hooks() == hooks
    assert attributes(model) == before
    assert open_run(scope.path).status.state == "finished"


def break_off(
    model: Net, optimizer: torch.optim.Optimizer, where: str, fault: BaseException
) -> None:
    """A training step that ends in `fault`."""

    def broken(*_: object) -> None:
        raise fault

    if where == "forward":
        model.trouble = fault
        model(torch.randn(3, 4))
    elif where == "backward":
        y = model(torch.randn(3, 4))
        y.register_hook(broken)
        y.sum().backward()
    else:
        model(torch.randn(3, 4)).sum().backward()
        handle = optimizer.register_step_pre_hook(broken)
        try:
            optimizer.step()
        finally:
            handle.remove()


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_an_exception_inside_a_step(track, rows, every, where) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooks, before = global_hooks(), attributes(model)
    fault = ValueError("no")
    scope = track(model, every=every)
    step(model, optimizer)
    step(model, optimizer)
    with pytest.raises(ValueError, match="no"):
        break_off(model, optimizer, where, fault)
    model.trouble = None
    optimizer.zero_grad()
    step(model, optimizer)
    expected = float((model.first.weight.grad).double().norm())
    scope.close()
    found = rows(scope, "parameters")
    assert sorted({s for s, _ in found}) == [0, 1, 2]
    assert found[2, "first.weight"]["grad_norm"] == pytest.approx(expected, rel=1e-5)
    outputs = rows(scope, "outputs")
    assert (2, "first") in outputs
    assert not [name for _, name in outputs if "#" in name]
    assert global_hooks() == hooks
    assert attributes(model) == before


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "interrupted"), (ValueError("no"), "failed")]
)
def test_the_run_says_how_it_ended(track, error, state) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hooks, before = global_hooks(), attributes(model)
    scope = track(model)
    step(model, optimizer)

    def training() -> None:
        with scope:
            model.trouble = error
            step(model, optimizer)

    with pytest.raises(type(error)):
        training()
    status = open_run(scope.path).status
    assert status.state == state
    assert status.steps_seen == 1
    assert ("ValueError: no" in status.error) == (state == "failed")
    model.trouble = None
    assert global_hooks() == hooks
    assert {k: v for k, v in attributes(model).items() if k != ""} == {
        k: v for k, v in before.items() if k != ""
    }
    step(model, optimizer)


SCRIPT = """
import sys, torch, gradscope
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scope = gradscope.track(model, run="run", root=sys.argv[1], every=1)
for _ in range(3):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
{end}
"""


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ("", "finished"),
        ("raise RuntimeError('broke')", "failed"),
        ("raise KeyboardInterrupt", "interrupted"),
    ],
)
def test_closed_at_the_end_of_the_process(tmp_path, end, state) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    status = open_run(tmp_path / "run").status
    assert status.state == state, done.stderr
    assert status.steps_seen == 3
    assert "GradScope recorded run: 3 steps" in done.stderr
