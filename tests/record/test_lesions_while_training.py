"""Lesions measured during training: stored by step, counted apart, and training is the same."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope import GradScopeError, models
from gradscope.store import open_run
from gradscope.units import find_units


def held_out(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(count, 1, 16, 16, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )


def trained(track, steps: int = 5, **options):
    """State, momentum, gradients and random state after some steps, and the run.

    The network leaves out blocks at random, so that one number drawn too many shows.
    """
    model = models.build("resnet20", survival=0.8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(3)
    scope = track(model, every=2, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(torch.randn(8, 1, 16, 16)), torch.arange(8))
        loss.backward()
        optimizer.step()
        scope.log(loss=loss)
    scope.close()
    momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
    gradients = [torch.zeros(0) if p.grad is None else p.grad for p in model.parameters()]
    tensors = [*model.state_dict().values(), *momentum, *gradients, torch.get_rng_state()]
    return tensors, open_run(scope.path), model


@pytest.mark.parametrize("shuffled", [False, True])
def test_training_is_bit_identical_and_rows_carry_the_step(track, shuffled: bool) -> None:
    batch = held_out()
    data = torch.utils.data.TensorDataset(*batch)
    loader = torch.utils.data.DataLoader(data, batch_size=6, shuffle=shuffled)
    bare, without, _ = trained(track, run="bare")
    tracked, run, model = trained(track, run="lesioned", ablate_every=2, ablate_on=loader)
    assert all(torch.equal(a, b) for a, b in zip(bare, tracked, strict=True))
    assert all(module.training for module in model.modules())
    assert "ablations" not in without.tables()
    rows = run.read("ablations")
    assert set(rows["step"].tolist()) == {0, 2, 4}
    names = [u.name for u in find_units(model) if u.kind == "residual"]
    assert sorted(set(rows["unit"].astype(str))) == sorted(names)
    assert len(rows["step"]) == 3 * 2 * len(names)
    assert set(rows["samples"].tolist()) == {12}
    assert len(np.unique(rows["baseline"][rows["metric"] == "loss"])) == 3
    config = run.info.config
    assert config["ablations"] == 3
    assert config["ablation_seconds"] > 0


def test_its_time_is_no_part_of_the_budget(track, monkeypatch) -> None:
    """A measurement a thousand steps long leaves the tracker's own account alone."""
    from gradscope.record import lesions

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()

    def slow(self, step: int) -> None:
        assert self.every == 1
        clock.now += 1000.0

    monkeypatch.setattr(lesions.PeriodicAblation, "__call__", slow)
    for module in ("lesions", "scope"):
        monkeypatch.setattr(f"gradscope.record.{module}.time.perf_counter", clock.perf_counter)
    model = models.build("resnet20")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scope = track(model, every=4, ablate_every=1, ablate_on=held_out())
    for _ in range(3):
        optimizer.zero_grad()
        model(held_out()[0]).sum().backward()
        clock.now += 1.0
        optimizer.step()
    scope.close()
    assert "lesions at 3 steps took 3000.0 s beside that cost" in str(scope)
    assert scope._sampling.elapsed == pytest.approx(3.0, abs=0.1)
    assert open_run(scope.path).info.config["ablation_seconds"] == 3000.0


def test_trouble_ends_the_lesions_and_not_the_training(track) -> None:
    class Failing:
        rounds = 0

        def __iter__(self):
            self.rounds += 1
            if self.rounds > 4:
                raise OSError("the disk is gone")
            yield held_out()

    with pytest.warns(RuntimeWarning, match="the disk is gone"):
        _, run, model = trained(track, ablate_every=1, ablate_on=Failing())
    assert run.status.steps_seen == 5
    assert 0 < len(set(run.read("ablations")["step"].tolist())) < 5
    assert any("Lesions ended" in note for note in run.status.notes)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ablate_every": 2}, "belong together"),
        ({"ablate_on": held_out()}, "belong together"),
        ({"ablate_every": 0, "ablate_on": held_out()}, "whole number"),
        ({"ablate_every": 2, "ablate_on": []}, "empty"),
    ],
)
def test_impossible_wishes_are_refused_before_training(track, options, told) -> None:
    with pytest.raises(GradScopeError, match=told):
        track(models.build("resnet20"), **options)


def test_a_model_without_units_is_refused(track) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    with pytest.raises(GradScopeError, match="no unit that can be bypassed"):
        track(model, ablate_every=1, ablate_on=held_out())


def test_a_compiled_model_is_measured_eagerly_and_not_compiled_again(track) -> None:
    compilations = 0

    def backend(graph, inputs):
        nonlocal compilations
        compilations += 1
        return graph.forward

    def run(**options) -> tuple[list[torch.Tensor], int]:
        nonlocal compilations
        torch._dynamo.reset()
        compilations = 0
        model = models.build("resnet20")
        model.compile(backend=backend)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        torch.manual_seed(0)
        scope = track(model, **options)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(8, 1, 16, 16)), torch.arange(8)).backward()
            optimizer.step()
        scope.close()
        return list(model.state_dict().values()), compilations

    bare, once = run(run="bare")
    lesioned, again = run(run="lesioned", ablate_every=1, ablate_on=held_out())
    assert once == again > 0
    assert all(torch.equal(a, b) for a, b in zip(bare, lesioned, strict=True))
