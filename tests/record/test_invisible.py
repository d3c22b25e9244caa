"""Training, the model and the process are the same with the tracker as without."""

import copy
import gc
import io
import os
import pickle
import random
import sys
import textwrap
import weakref

import architectures
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traces import Net, attributes, global_hooks, step

import gradscope
from gradscope import GradScopeError
from gradscope.store import open_run


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


def test_the_sentence_at_the_end(tmp_path, capsys) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradscope.track(model, run="r", root=tmp_path, every=1):
        for _ in range(2):
            step(model, optimizer)
    said = capsys.readouterr().err
    assert "GradScope recorded r: 2 steps, 2 sampled in full; 4 outputs, 4 parameters" in said
    assert textwrap.dedent(said) == said
