"""Compiled models: same weights, same compiled code, parameters recorded."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from gradscope.store import open_run


class Net(nn.Sequential):
    """With a forward of its own: older torch leaves its own containers uncompiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = layer(x)
        return x


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return Net(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


class Counting:
    """A compiler backend that counts what it is given to compile."""

    def __init__(self, backend: str) -> None:
        self.compiled = 0
        self._backend = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        self.compiled += 1
        return self._backend(graph, inputs)


def train(model: nn.Module, plain: nn.Module, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05)
    torch.manual_seed(1)
    norms = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        norms.append(float(plain[0].weight.grad.double().norm()))
        optimizer.step()
    return norms


BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["compiled, then tracked", "tracked, then compiled", "in place"])
def test_no_recompilation_and_the_same_weights(track, rows, backend, order) -> None:
    torch._dynamo.reset()
    bare = net()
    expected = train(torch.compile(bare, backend=backend), bare, 9)
    torch._dynamo.reset()
    counters.clear()
    plain, compiler = net(), Counting(backend)
    if order == "compiled, then tracked":
        model: nn.Module = torch.compile(plain, backend=compiler)
        scope = track(model, every=3)
    elif order == "in place":
        plain.compile(backend=compiler)
        model, scope = plain, track(plain, every=3)
    else:
        scope = track(plain, every=3)
        model = torch.compile(plain, backend=compiler)
    norms = train(model, plain, 9)
    scope.close()
    # a model compiled behind the tracker's back is compiled once more, for steps with hooks
    assert compiler.compiled == (2 if order == "tracked, then compiled" else 1)
    assert counters["stats"]["unique_graphs"] == compiler.compiled
    for a, b in zip(bare.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    assert norms == expected
    found = rows(scope, "parameters")
    assert {name for _, name in found} == {"0.weight", "0.bias", "3.weight", "3.bias"}
    for step, value in enumerate(norms):
        assert found[step, "0.weight"]["grad_norm"] == pytest.approx(value, rel=1e-5)
        assert (found[step, "0.weight"]["update_ratio"] > 0) == (step % 3 == 0)
    once = compiler.compiled
    with track(model, run="again", every=2):
        train(model, plain, 6)
    train(model, plain, 1)
    assert compiler.compiled == once


def test_eager_samples_show_the_outputs_of_a_compiled_model(track, rows) -> None:
    torch._dynamo.reset()
    plain, compiler = net(), Counting("eager")
    model = torch.compile(plain, backend=compiler)
    with track(model, every=3, eager_samples=True) as scope:
        train(model, plain, 7)
    assert compiler.compiled == 1
    found = rows(scope, "outputs")
    assert {step for step, _ in found} == {0, 3, 6}
    assert {name for _, name in found} >= {"0", "1", "2", "3"}
    assert found[6, "3"]["grad_norm"] == pytest.approx(2 * found[6, "3"]["norm"], rel=1e-5)


def test_a_compiled_part_is_told(track, rows) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = net()
    model = nn.Sequential(torch.compile(plain, backend="eager"), nn.Linear(2, 1))
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    names = {n for _, n in rows(scope, "parameters")}
    assert "0.0.weight" in names
    assert "1.weight" in names
    assert rows(scope, "outputs")[0, "1"]["grad_norm"] == pytest.approx(3**0.5, rel=1e-5)
    assert open_run(scope.path).status.state == "finished"
