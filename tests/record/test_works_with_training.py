"""Ways to train, each with a number that was worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradscope.store import open_run


def norm(t: torch.Tensor) -> float:
    return float(t.detach().double().norm())


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def test_frozen_unfrozen_replaced_and_added_parameters(track, rows) -> None:
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    norms = []

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().sum().backward()
        norms.append({n: norm(p.grad) for n, p in model.named_parameters() if p.grad is not None})
        optimizer.step()

    with track(model) as scope:
        step()
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": list(model[0].parameters())})
        step()
        model[2].requires_grad_(False)
        model[2].zero_grad()
        step()
        model[2] = nn.Linear(6, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scope_step = scope.steps
        step()
    found = rows(scope, "parameters")
    assert scope_step == 3
    present = {s: {n for t, n in found if t == s} for s in range(4)}
    assert present[0] == {"2.weight", "2.bias"}
    assert present[1] == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert present[2] == {"0.weight", "0.bias"}
    assert present[3] == present[1]
    for (at, name), row in found.items():
        assert row["grad_norm"] == pytest.approx(norms[at][name], rel=1e-5)


@pytest.mark.parametrize("every", [1, 100])
def test_several_optimizers_share_a_step(track, rows, every) -> None:
    model = net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.01)
    norms = []
    with track(model, every=every) as scope:
        for _ in range(3):
            first.zero_grad()
            second.zero_grad()
            model(torch.randn(5, 4)).square().sum().backward()
            norms.append((norm(model[0].weight.grad), norm(model[2].weight.grad)))
            first.step()
            second.step()
    found = rows(scope, "parameters")
    assert scope.steps == 3
    for step, values in enumerate(norms):
        for name, value in zip(("0.weight", "2.weight"), values, strict=True):
            assert found[step, name]["grad_norm"] == pytest.approx(value, rel=1e-5)
    ratios = found[0, "0.weight"]["update_ratio"], found[0, "2.weight"]["update_ratio"]
    assert all(ratio > 0 for ratio in ratios)


def test_accumulated_gradients_are_one_step(track, rows) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(3):
                (model(torch.randn(5, 4)).square().sum() / 3).backward()
            whole = norm(model[0].weight.grad)
            optimizer.step()
    found = rows(scope, "parameters")
    assert found[1, "0.weight"]["grad_norm"] == pytest.approx(whole, rel=1e-5)
    assert found[1, "0.weight"]["clip_factor"] == 1.0
    assert {name for _, name in rows(scope, "outputs")} == {"0", "1", "2", "Sequential"}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_grad_scaler_statistics_are_those_of_the_loss(track, rows, scalars, fused, clip) -> None:
    model = net()
    reference = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    x = torch.randn(5, 4)
    y = reference[1](reference[0](x))
    y.retain_grad()
    reference[2](y).square().mean().backward()
    total = norm(torch.cat([p.grad.flatten() for p in reference.parameters()]))
    with track(model) as scope:
        scaler.scale(model(x).square().mean()).backward()
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), total / 2)
        scaler.step(optimizer)
        scaler.update()
    shrunk = 0.5 if clip else 1.0
    for name, parameter in reference.named_parameters():
        row = rows(scope, "parameters")[0, name]
        assert row["grad_norm"] == pytest.approx(shrunk * norm(parameter.grad), rel=1e-4)
        assert row["clip_factor"] == pytest.approx(shrunk, rel=1e-4)
    row = rows(scope, "outputs")[0, "1"]
    assert row["grad_norm"] == pytest.approx(norm(y.grad), rel=1e-5)
    assert row["grad_absmax"] == pytest.approx(float(y.grad.abs().max()), rel=1e-5)
    run = open_run(scope.path)
    table = run.read("histograms")
    site = [s.name for s in run.sites if s.kind == "output"].index("1")
    index = [i for i, s in enumerate(run.sites) if s.kind == "output"][site]
    top = table["exponent"][(table["site"] == index) & (table["of"] == 1)].max()
    assert top == math.floor(math.log2(float(y.grad.abs().max())))
    assert scalars(scope, "skipped_step") == [] if "scalars" in run.tables() else True


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_left_out_by_the_grad_scaler(track, rows, scalars, fused) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with track(model) as scope:
        for turn in range(3):
            optimizer.zero_grad()
            loss = model(torch.randn(5, 4)).square().mean() * (math.inf if turn == 1 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert [step for step, _ in scalars(scope, "skipped_step")] == [1]
    found = rows(scope, "parameters")
    if (
        fused
    ):  # it sees by itself, on its device, that it has to leave a step out: counted, not made
        assert scope.steps == 3
        assert found[1, "0.weight"]["update_ratio"] == 0.0
        assert found[1, "0.weight"]["grad_nonfinite"] == model[0].weight.numel()
    else:
        assert scope.steps == 2
    assert found[0, "0.weight"]["update_ratio"] > 0
    assert found[scope.steps - 1, "0.weight"]["update_ratio"] > 0


def test_float16_autocast_with_a_grad_scaler(track, rows) -> None:
    """Statistics are those of the unscaled loss, to the rounding of half precision."""
    model, reference, x = net(), net(), torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    y = reference(x)
    y.square().mean().backward()
    with track(model) as scope:
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(x)
        assert out.dtype == torch.float16
        scaler.scale(out.float().square().mean()).backward()
        scaled = norm(model[0].weight.grad)
        scaler.step(optimizer)
        scaler.update()
    row = rows(scope, "parameters")[0, "0.weight"]
    assert row["grad_norm"] == pytest.approx(scaled / 4096.0, rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm(reference[0].weight.grad), rel=1e-2)
    assert row["clip_factor"] == 1.0
    found = rows(scope, "outputs")[0, "2"]
    assert found["norm"] == pytest.approx(norm(out), rel=1e-5)
    assert found["grad_norm"] == pytest.approx(norm(y) / 5, rel=1e-2)


def test_bfloat16_autocast(track, rows) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(torch.randn(5, 4))
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
        gradient, value = norm(model[2].weight.grad), norm(y)
        optimizer.step()
    assert rows(scope, "parameters")[0, "2.weight"]["grad_norm"] == pytest.approx(
        gradient, rel=1e-5
    )
    assert rows(scope, "outputs")[0, "2"]["norm"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("how", [{"foreach": True}, {"fused": True}, {"foreach": False}])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_and_foreach_optimizers(track, rows, how, kind) -> None:
    model = net()
    optimizer = kind(model.parameters(), lr=1e-2, weight_decay=0.1, **how)
    with track(model) as scope:
        model(torch.randn(5, 4)).square().sum().backward()
        before = model[0].weight.detach().clone()
        optimizer.step()
    ratio = norm(model[0].weight.detach() - before) / norm(before)
    assert rows(scope, "parameters")[0, "0.weight"]["update_ratio"] == pytest.approx(
        ratio, rel=2e-5
    )


@pytest.mark.parametrize("kind", ["lbfgs", "sgd"])
def test_closures(track, rows, kind) -> None:
    model = net()
    if kind == "lbfgs":
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, calls = torch.randn(5, 4), []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        calls.append(norm(model[0].weight.grad))
        return loss

    with track(model) as scope:
        ends = []
        for _ in range(2):
            before = model[0].weight.detach().clone()
            optimizer.step(closure)
            change = norm(model[0].weight.detach() - before) / norm(before)
            ends.append((calls[-1], change))
    assert (len(calls) > 4) == (kind == "lbfgs")
    found = rows(scope, "parameters")
    for step, (value, ratio) in enumerate(ends):
        assert found[step, "0.weight"]["grad_norm"] == pytest.approx(value, rel=1e-5)
        assert found[step, "0.weight"]["update_ratio"] == pytest.approx(ratio, rel=2e-5)
    assert {name for _, name in rows(scope, "outputs")} == {"0", "1", "2", "Sequential"}


@pytest.mark.parametrize("mode", ["no_grad", "eval with gradients", "after the training pass"])
def test_validation_passes_leave_no_trace(track, rows, mode) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training, validation = torch.randn(5, 4), 100 * torch.randn(9, 4)

    def validate() -> None:
        if mode == "no_grad":
            with torch.no_grad():
                model(validation)
            return
        model.eval()
        model(validation)
        model.train()

    with track(model) as scope:
        for _ in range(2):
            optimizer.zero_grad()
            if mode != "after the training pass":
                validate()
            y = model(training)
            if mode == "after the training pass":
                validate()
            y.square().sum().backward()
            expected = norm(y), norm(2 * y)
            optimizer.step()
            validate()
    found = rows(scope, "outputs")
    assert {name for _, name in found} == {"0", "1", "2", "Sequential"}
    assert found[1, "2"]["norm"] == pytest.approx(expected[0], rel=1e-5)
    assert found[1, "2"]["grad_norm"] == pytest.approx(expected[1], rel=1e-5)


def test_double_backward(track, rows) -> None:
    """A gradient penalty: the gradients used are those of the whole loss, second order included."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 4, requires_grad=True)
    at_tanh = model[1](model[0](x))
    y = model[2](at_tanh).sum()
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    (both,) = torch.autograd.grad(y + slope.square().sum(), at_tanh)
    with track(model) as scope:
        y = model(x).sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        (y + slope.square().sum()).backward()
        gradient = norm(model[0].weight.grad)
        optimizer.step()
    assert rows(scope, "parameters")[0, "0.weight"]["grad_norm"] == pytest.approx(
        gradient, rel=1e-5
    )
    found = rows(scope, "outputs")
    assert found[0, "2"]["grad_norm"] == pytest.approx(10**0.5, rel=1e-5)
    assert found[0, "1"]["grad_norm"] == pytest.approx(norm(both), rel=1e-5)


def test_sparse_gradients_of_an_embedding(track, rows) -> None:
    model = nn.Sequential(nn.Embedding(50, 3, sparse=True), nn.Linear(3, 1))
    sparse = torch.optim.SparseAdam(model[0].parameters(), lr=0.01)
    dense = torch.optim.SGD(model[1].parameters(), lr=0.01)
    with track(model, optimizer=[dense, sparse]) as scope:
        model(torch.tensor([[1, 1, 7]])).sum().backward()
        gradient = model[0].weight.grad.to_dense()
        before = model[0].weight.detach().clone()
        dense.step()
        sparse.step()
    row = rows(scope, "parameters")[0, "0.weight"]
    assert row["grad_norm"] == pytest.approx(norm(gradient), rel=1e-5)
    assert row["grad_rms"] == pytest.approx(norm(gradient) / math.sqrt(150), rel=1e-5)
    change = norm(model[0].weight.detach() - before) / norm(before)
    assert row["update_ratio"] == pytest.approx(change, rel=2e-5)


class Poison(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "forward":
            return x * torch.tensor([math.nan, 1.0, 1.0, 1.0, 1.0, 1.0])
        return x + 0.0 * (x - x).abs().sqrt() if self.where == "backward" else x


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_non_finite_values_are_recorded_and_their_source_is_named(track, rows, where) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Poison(where), nn.Linear(6, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        model(torch.randn(5, 4)).square().sum().backward()
        bad = int((~torch.isfinite(model[0].weight.grad)).sum())
        optimizer.step()
    assert bad > 0
    assert rows(scope, "parameters")[0, "0.weight"]["grad_nonfinite"] == bad
    found = rows(scope, "outputs")
    assert found[0, "0"]["nonfinite"] == 0
    assert found[0, "1"]["nonfinite"] == (5 if where == "forward" else 0)
    assert found[0, "0"]["grad_nonfinite"] > 0
    findings = [f for f in open_run(scope.path).status.findings if f.kind == "non_finite"]
    assert next(f.site for f in findings) == ("1" if where == "forward" else "0")


def test_training_without_an_optimizer(track, rows) -> None:
    model = net()
    norms = []
    with track(model) as scope:
        for _ in range(3):
            model.zero_grad()
            F.mse_loss(model(torch.randn(5, 4)), torch.zeros(5, 2)).backward()
            norms.append(norm(model[0].weight.grad))
            scope.step()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
    found = rows(scope, "parameters")
    assert [found[s, "0.weight"]["grad_norm"] for s in range(3)] == pytest.approx(norms, rel=1e-5)


def test_double_precision_model_moved_between_types(track, rows) -> None:
    model = net()
    with track(model) as scope:
        for kind in (torch.float32, torch.float64):
            model.to(kind)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            model.zero_grad()
            model(torch.randn(5, 4, dtype=kind)).square().sum().backward()
            value = norm(model[0].weight.grad)
            optimizer.step()
    assert rows(scope, "parameters")[1, "0.weight"]["grad_norm"] == pytest.approx(value, rel=1e-5)
