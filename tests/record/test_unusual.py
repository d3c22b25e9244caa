"""Kinds of tensors, modes and tools that a recorder easily trips over: training goes on, numbers are right."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from traces import Net, attributes, global_hooks

import gradscope.models
from gradscope.store import open_run


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def norm(t: torch.Tensor) -> float:
    return float(t.detach().double().norm())


def train(model: nn.Module, x: torch.Tensor) -> float:
    """One step; the norm of the first layer's gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    model(x).square().sum().backward()
    value = norm(next(p.grad for p in model.parameters() if p.grad is not None))
    optimizer.step()
    return value


def test_a_default_device_that_is_not_the_models(track, rows, scalars) -> None:
    """As after torch.set_default_device("cuda") with a model on the CPU."""
    model, x = net(), torch.randn(3, 4)
    dead = float((torch.relu(model[0](x)) == 0).all(0).double().mean())
    with track(model) as scope, torch.device("meta"):
        expected = train(model, x)
        scope.log(loss=1.5)
    row = rows(scope, "parameters")[0, "0.weight"]
    assert row["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert row["clip_factor"] == 1.0
    assert rows(scope, "outputs")[0, "1"]["dead_fraction"] == pytest.approx(dead, rel=1e-5)
    assert scalars(scope, "loss") == [(0, 1.5)]


def test_a_default_type_that_is_not_the_models(track, rows) -> None:
    model, x = net(), torch.randn(3, 4)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with track(model) as scope:
            expected = train(model, x)
    finally:
        torch.set_default_dtype(before)
    row = rows(scope, "parameters")[0, "0.weight"]
    assert row["grad_norm"] == pytest.approx(expected, rel=1e-5)


class Side(nn.Module):
    """A linear layer with a module beside it whose output is of an unusual kind."""

    def __init__(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.side = Made(make)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        self.side(y)
        return y


class Made(nn.Module):
    def __init__(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.make(y)


UNUSUAL = {
    "nested": (lambda y: torch.nested.as_nested_tensor([y[:1], y[1:]]), "it is nested"),
    "complex": (lambda y: torch.complex(y, y), "its type is torch.complex64"),
    "sparse": (lambda y: y.to_sparse(), "its layout is torch.sparse_coo"),
    "masked": (
        lambda y: torch.masked.masked_tensor(y.detach(), y.detach() > 0),
        "reading it failed with RuntimeError",
    ),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.filterwarnings("ignore:The PyTorch API of")
def test_outputs_of_unusual_kinds_are_skipped_with_a_note(track, rows, kind) -> None:
    make, reason = UNUSUAL[kind]
    model = Side(make)
    x = torch.randn(3, 4)
    value = norm(model(x))
    with track(model) as scope:
        expected = train(model, x)
    notes = open_run(scope.path).status.notes
    assert any(f"output side is not recorded: {reason}" in note for note in notes), notes
    found = rows(scope, "outputs")
    assert {name for _, name in found} == {"linear", "Side"}
    assert found[0, "linear"]["grad_norm"] == pytest.approx(2 * value, rel=1e-5)
    weight = rows(scope, "parameters")[0, "linear.weight"]["grad_norm"]
    assert weight == pytest.approx(expected, rel=1e-5)


def test_a_parameter_of_a_type_without_arithmetic_is_recorded(track, rows) -> None:
    model = net()
    model.register_parameter("table", nn.Parameter(torch.ones(4, dtype=torch.float8_e4m3fn)))
    with track(model) as scope:
        expected = train(model, torch.randn(3, 4))
    found = rows(scope, "parameters")
    assert found[0, "0.weight"]["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert found[0, "table"]["weight_norm"] == pytest.approx(2.0)


def test_a_record_that_fails_does_not_end_the_training(track, rows, monkeypatch) -> None:
    def broken(*_: torch.Tensor) -> float:
        raise NotImplementedError("no such arithmetic")

    monkeypatch.setattr("gradscope.record.parameters.difference_square_sum", broken)
    model = net()
    before = model[0].weight.detach().clone()
    with track(model, every=2) as scope:
        train(model, torch.randn(3, 4))
        expected = train(model, torch.randn(3, 4))
    assert not torch.equal(before, model[0].weight)
    assert any(
        "a step with NotImplementedError" in note for note in open_run(scope.path).status.notes
    )
    value = rows(scope, "parameters")[1, "0.weight"]["grad_norm"]
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_tracing_a_tracked_model_sees_nothing_of_the_tracker(track, rows) -> None:
    model, x = net(), torch.randn(3, 4)
    bare = [n.kind() for n in torch.jit.trace(model, x).inlined_graph.nodes()]
    with track(model) as scope:
        tracked = [n.kind() for n in torch.jit.trace(model, x).inlined_graph.nodes()]
        value = norm(model(x))
        train(model, x)
    assert tracked == bare
    found = rows(scope, "outputs")
    assert {name for _, name in found} == {"0", "1", "2", "Sequential"}
    assert found[0, "2"]["norm"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("how", ["fake", "fx", "inference", "anomaly"])
def test_passes_in_other_modes_are_not_the_steps_own(track, rows, how) -> None:
    model, x = net(), torch.randn(3, 4)
    with track(model) as scope:
        if how == "fake":
            with FakeTensorMode(allow_non_fake_inputs=True):
                model(torch.empty(3, 4))
        elif how == "fx":
            torch.fx.symbolic_trace(model)
        elif how == "inference":
            with torch.inference_mode():
                model(torch.randn(3, 4))
        value = norm(model(x))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.autograd.set_detect_anomaly(how == "anomaly"):
                expected = train(model, x)
    found = rows(scope, "outputs")
    assert {name for _, name in found} == {"0", "1", "2", "Sequential"}
    assert found[0, "2"]["norm"] == pytest.approx(value, rel=1e-5)
    assert found[0, "2"]["grad_norm"] == pytest.approx(2 * value, rel=1e-5)
    weight = rows(scope, "parameters")[0, "0.weight"]["grad_norm"]
    assert weight == pytest.approx(expected, rel=1e-5)


def test_one_optimizer_for_two_tracked_models(track, rows) -> None:
    front, back = net(), nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*front.parameters(), *back.parameters()], lr=0.1)
    expected = []
    with track(front, run="front") as scope_f, track(back, run="back") as scope_b:
        for _ in range(2):
            optimizer.zero_grad()
            back(front(torch.randn(3, 4))).square().sum().backward()
            expected.append((norm(front[0].weight.grad), norm(back.weight.grad)))
            optimizer.step()
    for scope, place, name in ((scope_f, 0, "0.weight"), (scope_b, 1, "weight")):
        found = rows(scope, "parameters")
        assert scope.steps == 2
        for step, values in enumerate(expected):
            assert found[step, name]["grad_norm"] == pytest.approx(values[place], rel=1e-5)
            assert found[step, name]["update_ratio"] > 0


def test_a_part_tracked_beside_the_whole(track, rows) -> None:
    model = Net()
    before, hooks = attributes(model), global_hooks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model, run="whole") as whole, track(model.first, run="part") as part:
        model(torch.randn(6, 4)).square().sum().backward()
        optimizer.step()
    outer, inner = rows(whole, "outputs")[0, "first"], rows(part, "outputs")[0, "Linear"]
    assert outer == pytest.approx(inner, nan_ok=True)
    assert outer["grad_norm"] > 0
    assert {name for _, name in rows(part, "parameters")} == {"weight", "bias"}
    assert attributes(model) == before
    assert global_hooks() == hooks


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_model_moved_to_another_type(track, rows, how) -> None:
    model, x = net(), torch.randn(3, 4)
    with track(model) as scope:
        train(model, x)
        torch.__future__.set_overwrite_module_params_on_conversion(how == "replaced")
        try:
            model.double()
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
        value = norm(model(x.double()))
        expected = train(model, x.double())
        train(model, x.double())
    assert scope.steps == 3
    found, outputs = rows(scope, "parameters"), rows(scope, "outputs")
    assert found[1, "0.weight"]["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert found[1, "0.weight"]["update_ratio"] > 0
    assert found[2, "0.weight"]["clip_factor"] == 1.0
    assert outputs[1, "2"]["norm"] == pytest.approx(value, rel=1e-5)
    assert {name for _, name in found} == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_moved_between_devices(track, rows) -> None:
    model, x = net(), torch.randn(3, 4)
    with track(model) as scope:
        for step, device in enumerate(("cpu", "cuda", "cpu")):
            model.to(device)
            value = norm(model(x.to(device)))
            expected = train(model, x.to(device))
            scope.flush()
            assert rows(scope, "parameters")[step, "0.weight"]["grad_norm"] == pytest.approx(
                expected, rel=1e-5
            )
            assert rows(scope, "outputs")[step, "2"]["norm"] == pytest.approx(value, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("every", [1, 3])
def test_no_synchronisation_inside_a_step(tmp_path, every) -> None:
    model = gradscope.models.build("resnet20").cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(8, 1, 32, 32, device="cuda"), torch.zeros(8, dtype=torch.long, device="cuda")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    with gradscope.track(model, run="r", root=tmp_path, every=every, quiet=True) as scope:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(6):
                scope.log(loss=step())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert scope.steps == 9
