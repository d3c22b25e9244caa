"""Training by name: what the run holds, that it repeats to the bit, and what is refused."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradscope.experiments import DataSet, Progress, evaluate, rebuild, train
from gradscope.experiments import training as module
from gradscope.models import build
from gradscope.schema import GradScopeError
from gradscope.store import list_runs, open_run

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 32, "every": 2, "device": "cpu"}


def scalars(path: Path) -> dict[str, list[float]]:
    rows = open_run(path).read("scalars")
    names = rows["name"].astype(str)
    return {name: rows["value"][names == name].tolist() for name in set(names)}


def test_a_run_holds_scalars_config_and_a_checkpoint(tmp_path: Path, tiny: DataSet) -> None:
    seen: list[Progress] = []
    path = train("plain20", run="a", root=tmp_path, lr=0.05, on_progress=seen.append, **SETTINGS)
    assert path == tmp_path / "a"
    found = scalars(path)
    assert len(found["loss"]) == len(found["accuracy"]) == len(found["lr"]) == 8
    assert all(math.isfinite(v) for v in found["loss"])
    assert found["epoch"] == [1, 2]
    assert max(found["lr"]) <= 0.05
    stored = open_run(path)
    assert stored.status.state == "finished"
    assert stored.status.steps_seen == 8
    for key, value in {"model": "plain20", "family": "plain", "seed": 0, "lr": 0.05}.items():
        assert stored.info.config[key] == value
    assert (seen[-1].step, seen[-1].steps, seen[-1].epoch) == (8, 8, 2)
    assert seen[-1].loss == pytest.approx(found["loss"][-1], rel=1e-5)


def test_the_rebuilt_network_is_the_trained_one(tmp_path: Path, tiny: DataSet) -> None:
    path = train(
        "resnet20", run="a", root=tmp_path, shortcut="B", survival=0.8, **{**SETTINGS, "epochs": 1}
    )
    network, config = rebuild(path)
    assert not network.training
    assert config["data"] == "fashion-mnist-small"
    accuracy, loss = evaluate(network, tiny.test, tiny.normalise())
    found = scalars(path)
    assert found["val_accuracy"] == [accuracy]
    assert found["val_loss"] == pytest.approx([loss], rel=1e-5)
    with np.load(path / "checkpoint.npz", allow_pickle=False) as arrays:
        state = network.state_dict()
        assert set(arrays.files) == set(state)
        assert all(np.array_equal(arrays[name], state[name]) for name in state)
    fresh = build("resnet20", **config["build"])
    assert not torch.equal(fresh.fc.weight, network.fc.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("damage", ["empty", "text", "objects", "missing"])
def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path, tiny: DataSet, damage: str) -> None:
    path = train("plain20", run="a", root=tmp_path, **{**SETTINGS, "epochs": 1})
    file = path / "checkpoint.npz"
    if damage == "missing":
        file.unlink()
    elif damage == "objects":
        names = list(rebuild(path)[0].state_dict())
        np.savez(file, **{name: np.array([{}], dtype=object) for name in names})
    else:
        file.write_bytes(b"" if damage == "empty" else b"no archive")
    with pytest.raises(GradScopeError) as caught:
        rebuild(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_seed_repeats_to_the_bit_and_another_differs(tmp_path: Path, tiny: DataSet) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(name) + seed * 7)
        path = train("resnet20", run=name, seed=seed, survival=0.5, root=tmp_path, **SETTINGS)
        with np.load(path / "checkpoint.npz", allow_pickle=False) as arrays:
            states.append({key: arrays[key] for key in arrays.files})
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(np.array_equal(states[0][key], states[2][key]) for key in states[0])


def test_the_global_random_streams_are_left_alone(tmp_path: Path, tiny: DataSet) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # type: ignore[index, union-attr]
    train("inception_small", run="a", root=tmp_path, **{**SETTINGS, "epochs": 1})
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    assert before[2] == random.getstate()


def test_networks_of_one_seed_see_the_same_batches(
    tmp_path: Path, tiny: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: dict[str, list[Tensor]] = {}

    def watched(name: str, **options: Any) -> nn.Module:
        network = build(name, **options)
        seen = batches.setdefault(f"{name}{options['seed']}", [])

        def keep(m: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if m.training:
                seen.append(inputs[0].clone())

        network.register_forward_pre_hook(keep)
        return network

    monkeypatch.setattr(module, "build", watched)
    for name, seed in (("plain20", 0), ("inception_small", 0), ("plain20", 1)):
        train(name, run=f"{name}{seed}", seed=seed, root=tmp_path, **SETTINGS)
    first, second, other = batches.values()
    assert len(first) == len(second) == 8
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[4])


def test_auxiliary_heads_are_trained(tmp_path: Path, tiny: DataSet) -> None:
    path = train("inception_small", run="a", root=tmp_path, lr=0.02, **SETTINGS)
    network, config = rebuild(path)
    start = build("inception_small", **config["build"])
    heads = [n for n, _ in network.named_parameters() if n.startswith("aux") and "weight" in n]
    assert heads
    old = dict(start.named_parameters())
    new = dict(network.named_parameters())
    assert not any(torch.equal(old[name], new[name]) for name in heads)
    bare = train("inception_small", run="b", root=tmp_path, aux_heads=[], **SETTINGS)
    assert not [n for n, _ in rebuild(bare)[0].named_parameters() if n.startswith("aux")]


def test_training_lowers_the_loss(tmp_path: Path, tiny: DataSet) -> None:
    path = train("resnet20", run="a", root=tmp_path, lr=0.05, **{**SETTINGS, "epochs": 5})
    loss = scalars(path)["loss"]
    assert np.mean(loss[-4:]) < 0.7 * np.mean(loss[:4])


def test_the_loss_adds_weighted_heads() -> None:
    torch.manual_seed(0)
    main, one, two = torch.randn(3, 6, 4)
    y = torch.tensor([0, 1, 2, 3, 0, 1])

    def by_hand(logits: Tensor) -> Tensor:
        return (logits.exp().sum(1).log() - logits[torch.arange(6), y]).mean()

    loss, logits = module.classification_loss(main, y, 0.3)
    assert torch.equal(logits, main)
    assert loss.item() == pytest.approx(by_hand(main).item(), rel=1e-5)
    loss, logits = module.classification_loss((main, one, None, two), y, 0.3)
    wanted = by_hand(main) + 0.3 * by_hand(one) + 0.3 * by_hand(two)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.equal(logits, main)


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    factors = [module.schedule(n / 1000) for n in range(1001)]
    top = int(np.argmax(factors))
    assert top == 100
    assert factors[top] == pytest.approx(1.0)
    assert factors[0] > 0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0.0, abs=1e-6)
    assert factors[550] == pytest.approx(0.5, abs=1e-6)


def test_evaluation_is_the_mean_over_all_images_and_puts_the_mode_back(tiny: DataSet) -> None:
    network = build("plain20", image_size=14).train()
    accuracy, loss = evaluate(network, tiny.test, tiny.normalise())
    assert network.training
    with torch.no_grad():
        logits = network.eval()(tiny.normalise()(tiny.test.images))
    assert accuracy == (logits.argmax(1) == tiny.test.labels).float().mean().item()
    assert loss == pytest.approx(
        functional.cross_entropy(logits, tiny.test.labels).item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": -3}, "batch_size"),
        ({"batch_size": 129}, "128 training images"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"device": "toaster"}, "--device auto"),
        ({"device": "cuda:97"}, "--device auto"),
        ({"device": "meta"}, "--device auto"),
        ({"every": 0}, "every"),
        ({"data": "nothing"}, "data set"),
        ({"data": "mnist"}, "--data-root"),
        ({"shortcut": "C"}, "shortcut"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_bad_settings_are_one_sentence_and_leave_no_run(
    tmp_path: Path, tiny: DataSet, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(GradScopeError, match=told) as caught:
        train("resnet20", run="a", root=tmp_path, **{**SETTINGS, **wrong})
    assert "\n" not in str(caught.value)
    assert list_runs(tmp_path) == []


def test_an_interrupted_training_leaves_a_run_without_checkpoint(
    tmp_path: Path, tiny: DataSet
) -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("plain20", run="a", root=tmp_path, on_progress=stop, **{**SETTINGS, "epochs": 3})
    status = open_run(tmp_path / "a").status
    assert status.state not in ("running", "finished")
    assert status.steps_seen == 10
    assert not (tmp_path / "a" / "checkpoint.npz").exists()
