"""Training, the model and the process are the same with the tracker as without."""

import copy
import gc
import io
import os
import pickle
import random
import subprocess
import sys
import textwrap
import weakref

import architectures
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

import gradscope
from gradscope import GradScopeError
from gradscope.store import open_run

GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_always_called",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def global_hooks() -> dict[str, int]:
    counts = {name: len(getattr(torch_module, name)) for name in GLOBAL_HOOKS}
    counts["step_pre"] = len(torch_optimizer._global_optimizer_pre_hooks)
    counts["step_post"] = len(torch_optimizer._global_optimizer_post_hooks)
    return counts


def attributes(model: nn.Module) -> dict[str, dict[str, object]]:
    """Every module's attributes, hook dictionaries by their size; parameters' too."""
    found = {
        name: {
            key: len(value) if key.endswith("_hooks") else id(value)
            for key, value in module.__dict__.items()
        }
        for name, module in model.named_modules()
    }
    for name, parameter in model.named_parameters():
        hooks = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
        found[f"parameter {name}"] = {
            "hooks": sum(len(h) for h in hooks if h),
            "attributes": sorted(parameter.__dict__),
        }
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 3)
        self.trouble: BaseException | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(F.relu(self.first(x)))
        if self.trouble is not None:
            raise self.trouble
        return self.last(x)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad()
    loss = model(torch.randn(6, 4)).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def trained(name: str, steps: int, track=None, every: int = 1) -> tuple[dict, torch.Tensor]:
    model, size = architectures.build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    torch.manual_seed(7)
    scope = track(model, every=every) if track else None
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        images, labels = torch.randn(2, 3, size, size), torch.randint(0, 10, (2,))
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    if scope:
        scope.close()
        assert len(open_run(scope.path).read("outputs")["step"]) > 0
    return model.state_dict(), torch.get_rng_state()


def assert_same(bare: tuple[dict, torch.Tensor], tracked: tuple[dict, torch.Tensor]) -> None:
    assert list(bare[0]) == list(tracked[0])
    for key, value in bare[0].items():
        assert value.numpy().tobytes() == tracked[0][key].numpy().tobytes(), key
    assert torch.equal(bare[1], tracked[1])


@pytest.mark.parametrize("name", list(architectures.DEFAULT))
def test_weights_and_random_state_are_bit_identical(track, name) -> None:
    assert_same(trained(name, 3), trained(name, 3, track))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*architectures.DEFAULT, *architectures.MORE])
def test_fifty_steps_are_bit_identical(track, name) -> None:
    assert_same(trained(name, 50), trained(name, 50, track, every=7))


def test_pythons_and_numpys_random_states_are_left_alone(track) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    with track(model) as scope:
        for _ in range(3):
            step(model, optimizer)
        scope.log(loss=1.0)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_tracked_model_is_copied_saved_and_printed_as_ever(track) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    bare = repr(model), list(model.state_dict()), attributes(model)
    with track(model):
        step(model, optimizer)
        for when in ("between steps", "within a step"):
            if when == "within a step":
                loss = model(torch.randn(2, 4)).sum()
            assert (repr(model), list(model.state_dict())) == bare[:2]
            twin = copy.deepcopy(model)
            again = pickle.loads(pickle.dumps(model))
            memory = io.BytesIO()
            torch.save(model, memory)
            memory.seek(0)
            loaded = torch.load(memory, weights_only=False)
            for other in (twin, again, loaded):
                assert {n: sorted(a) for n, a in attributes(other).items()} == {
                    n: sorted(a) for n, a in bare[2].items()
                }
                for key, value in model.state_dict().items():
                    assert torch.equal(value, other.state_dict()[key])
        loss.backward()
        optimizer.step()
    assert attributes(model) == bare[2]


def test_a_copy_is_not_recorded(track, rows) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as scope:
        twin = copy.deepcopy(model)
        step(twin, torch.optim.SGD(twin.parameters(), lr=0.1))
        assert scope.steps == 0
        step(model, optimizer)
    assert {s for s, _ in rows(scope, "parameters")} == {0}


def test_a_tracked_model_exports(track) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    example = (torch.randn(2, 4),)
    bare = torch.export.export(copy.deepcopy(model).eval(), example)
    with track(model):
        step(model, optimizer)
        model.load_state_dict(bare.state_dict)
        exported = torch.export.export(model.eval(), example)
        assert [n.target for n in exported.graph.nodes] == [n.target for n in bare.graph.nodes]
        assert torch.equal(exported.module()(*example), bare.module()(*example))
        model.train()
        step(model, optimizer)


def test_nothing_is_left_after_close(track) -> None:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    scaler_step = torch.amp.GradScaler.step
    hooks, before = global_hooks(), attributes(model)
    threads = set(sys._current_frames())
    scope = track(model)
    for _ in range(2):
        step(model, optimizer)
    model(torch.randn(2, 4)).sum().backward()
    scope.close()
    assert global_hooks() == hooks
    assert attributes(model) == before
    assert torch.amp.GradScaler.step is scaler_step
    assert (
        len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 0
    )
    assert set(sys._current_frames()) <= threads
    scope.close()
    scope.log(loss=1.0)
    assert open_run(scope.path).status.state == "finished"
    step(model, optimizer)
    assert open_run(scope.path).status.steps_seen == 2


def test_a_closed_scope_does_not_keep_the_model(track) -> None:
    model = Net()
    reference = weakref.ref(model)
    with track(model) as scope:
        step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    del model
    gc.collect()
    assert reference() is None
    assert "1 steps" in str(scope)


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


def test_tracking_twice_is_told_and_tracking_again_works(track) -> None:
    model = Net()
    scope = track(model, run="a")
    with pytest.raises(GradScopeError, match=r"tracked already, into .*a; close that"):
        track(model, run="b")
    with pytest.raises(GradScopeError, match="tracked already"):
        track(torch.nn.DataParallel(model), run="b")
    scope.close()
    track(model, run="b").close()


def test_two_models_do_not_mix(track, rows) -> None:
    torch.manual_seed(0)
    generator, critic = nn.Sequential(nn.Linear(3, 5), nn.Tanh()), nn.Sequential(nn.Linear(5, 1))
    opt_g = torch.optim.Adam(generator.parameters(), lr=1e-2)
    opt_c = torch.optim.SGD(critic.parameters(), lr=1e-2)
    expected: dict[str, list[float]] = {"g": [], "c": []}
    with track(generator, run="g") as scope_g, track(critic, run="c") as scope_c:
        for turn in range(4):
            opt_c.zero_grad()
            fake = generator(torch.randn(8, 3))
            (critic(fake.detach()).mean() - critic(torch.randn(8, 5)).mean()).backward()
            expected["c"].append(float(critic[0].weight.grad.double().norm()))
            opt_c.step()
            if turn % 2:
                opt_g.zero_grad()
                (-critic(generator(torch.randn(8, 3))).mean()).backward()
                expected["g"].append(float(generator[0].weight.grad.double().norm()))
                opt_g.step()
    assert (scope_g.steps, scope_c.steps) == (2, 4)
    for scope, key in ((scope_g, "g"), (scope_c, "c")):
        found = rows(scope, "parameters")
        names = {"0.weight", "0.bias"}
        assert {name for _, name in found} == names
        for number, value in enumerate(expected[key]):
            assert found[number, "0.weight"]["grad_norm"] == pytest.approx(value, rel=1e-5)
        shapes = {s.shape[1:] for s in open_run(scope.path).sites if s.kind == "output"}
        assert shapes == {(5,)} if key == "g" else {(1,)}


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


def test_a_forked_child_records_nothing(track, rows) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scope = track(model)
    step(model, optimizer)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            hooks = sum(global_hooks().values())
            with torch.no_grad():
                model(torch.randn(1, 4))
            scope.log(loss=9.0)
            scope.close()
            os.write(writing, str(hooks).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"0"
    step(model, optimizer)
    scope.close()
    assert open_run(scope.path).status.state == "finished"
    assert {s for s, _ in rows(scope, "outputs")} == {0, 1}
    assert "scalars" not in open_run(scope.path).tables()


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(index))


def test_data_loader_workers(track, rows) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(Noise(), batch_size=4, num_workers=1)
    with track(model) as scope:
        for _ in range(2):
            for x in loader:
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
    assert {s for s, _ in rows(scope, "parameters")} == set(range(6))


def test_one_cannot_track_what_has_no_hooks(track) -> None:
    with pytest.raises(GradScopeError, match="scripted model"):
        track(torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(GradScopeError, match=r"torch\.func"):
        track(torch.func.grad(lambda x: x.sum()))


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


def test_the_sentence_at_the_end(tmp_path, capsys) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradscope.track(model, run="r", root=tmp_path, every=1):
        for _ in range(2):
            step(model, optimizer)
    said = capsys.readouterr().err
    assert "GradScope recorded r: 2 steps, 2 sampled in full; 4 outputs, 4 parameters" in said
    assert textwrap.dedent(said) == said
