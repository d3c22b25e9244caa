"""The tracker keeps no tensor alive longer than the training does."""

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook


def test_activations_live_no_longer_than_the_training_keeps_them(track) -> None:
    """Outputs that autograd does not keep are gone when the forward pass ends."""
    seen = []
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[0].register_forward_hook(lambda _m, _a, out: seen.append(weakref.ref(out)))
    model[2].register_forward_hook(lambda _m, _a, out: seen.append(weakref.ref(out)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gc.disable()
    try:
        with track(model):
            loss = model(torch.randn(6, 4)).sum()
            assert seen[0]() is None
            assert seen[1]() is None
            loss.backward()
            optimizer.step()
    finally:
        gc.enable()


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 3, padding=1)
        self.conv2 = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + x)


@pytest.fixture
def outputs() -> Iterator[list[weakref.ref[torch.Tensor]]]:
    """References to all that modules return, while nothing is collected that is held by a cycle."""
    seen: list[weakref.ref[torch.Tensor]] = []

    def note(_module: nn.Module, _args: object, out: torch.Tensor) -> None:
        seen.append(weakref.ref(out))

    handle = register_module_forward_hook(note)
    gc.collect()
    gc.disable()
    yield seen
    gc.enable()
    handle.remove()


def test_nothing_of_a_step_is_alive_after_its_backward(track, outputs) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Unit(), Unit(), nn.Flatten(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model):
        for _ in range(2):
            model(torch.randn(3, 1, 6, 6)).sum().backward()
            assert [ref() for ref in outputs] == [None] * len(outputs)
            optimizer.step()
        assert len(outputs) > 16


def test_a_pass_thrown_away_is_freed_and_not_taken_for_the_steps_own(track, rows, outputs) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Unit(), nn.Flatten(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        for _ in range(2):
            model(torch.randn(9, 1, 6, 6))
            assert [ref() for ref in outputs] == [None] * len(outputs)
            y = model(torch.randn(3, 1, 6, 6))
            y.square().sum().backward()
            norm = float(y.detach().double().norm())
            optimizer.step()
            del y
    found = rows(scope, "outputs")
    assert not [name for _, name in found if "#" in name]
    assert found[1, "Sequential"]["norm"] == pytest.approx(norm, rel=1e-5)
    assert found[1, "Sequential"]["grad_norm"] == pytest.approx(2 * norm, rel=1e-5)


def test_a_sampled_step_adds_a_copy_of_the_weights_and_little_else() -> None:
    """Bytes alive at the worst moment, counted by torch's profiler in benchmarks/memory.py."""
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    done = subprocess.run(
        [sys.executable, str(script), "resnet20", "--batch=8", "--size=16", "--json"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (peak,) = json.loads(done.stdout)
    assert peak["weights"] == 1_078_888
    assert peak["bare"] > 2 * peak["weights"]
    assert peak["between"] - peak["bare"] < 2**16
    assert 0 <= peak["sampled"] - peak["bare"] < peak["weights"] + 2**19
