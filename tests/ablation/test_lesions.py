"""Lesions measured with reuse equal the naive ones; intervals cover; the model is restored."""

import json

import numpy as np
import pytest
import torch

from gradscope import models
from gradscope.ablation import PeriodicAblation, ablate, kendall_tau
from gradscope.ablation.intervals import paired_mean, paired_share
from gradscope.schema import GradScopeError

torch.set_num_threads(1)


def _loader(
    count: int = 2, size: int = 6, side: int = 16
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 1, side, side, generator=generator),
            torch.randint(0, 10, (size,), generator=generator),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("resnet20", ("blocks", "stages", "random", "reorder")),
        ("plain20", ("blocks",)),
        ("densenet22", ("dense",)),
        ("inception_small", ("inception", "branches")),
    ],
)
def test_reuse_equals_naive(name: str, drop: tuple[str, ...]) -> None:
    model, loader = models.build(name), _loader()
    options = {"loader": loader, "drop": drop, "k": [2], "draws": 3}
    fast, slow = ablate(model, **options), ablate(model, reuse=False, **options)
    assert fast.reused
    assert fast.kept_bytes > 0
    for left, right in zip(fast.rows, slow.rows, strict=True):
        assert left == right
    assert all(row.ci_low <= row.delta <= row.ci_high for row in fast.rows)
    assert any(row.delta != 0 for row in fast.rows if row.metric == "loss")


def test_memory_bound_cuts_batches() -> None:
    model, loader = models.build("resnet20"), _loader(1, 8)
    whole = ablate(model, loader=loader)
    bounded = ablate(model, loader=loader, memory=whole.kept_bytes // 3)
    assert bounded.kept_bytes <= whole.kept_bytes // 3
    for left, right in zip(whole.rows, bounded.rows, strict=True):
        assert left.value == pytest.approx(right.value, rel=1e-5)


def test_in_place_layers_do_not_spoil_what_is_reused() -> None:
    import torchvision

    model = torchvision.models.vgg11_bn(num_classes=10)
    loader = [(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]))]
    fast = ablate(model, loader=loader)
    assert fast.reused
    assert fast.rows == ablate(model, loader=loader, reuse=False).rows


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_restored(error: type[BaseException] | None) -> None:
    model = models.build("resnet20").train()
    model.stage2.eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keys = [module.__dict__.keys() for module in model.modules()]
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    calls = 0

    def evaluate(net: torch.nn.Module) -> float:
        nonlocal calls
        calls += 1
        net.train()
        with torch.no_grad():
            value = float(net(torch.randn(4, 1, 16, 16)).sum())
            net.fc.weight += 1
            np.random.rand()
        if calls == 3 and error is not None:
            raise error
        return value

    if error is None:
        result = ablate(model, evaluate)
        assert len(result.rows) == 9
        assert np.isnan(result.rows[0].ci_low)
    else:
        with pytest.raises(error):
            ablate(model, evaluate)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert [module.__dict__.keys() for module in model.modules()] == keys
    assert torch.equal(torch.get_rng_state(), random[0])
    assert np.array_equal(np.random.get_state()[1], random[1])


def test_resumes_from_a_file_and_refuses_another_model(tmp_path) -> None:
    model, loader = models.build("resnet20"), _loader(3)
    path = tmp_path / "scores.npz"

    def stop(done: int, total: int) -> None:
        assert total == 3 * 9
        if done == 21:  # in the middle of the last batch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(model, loader=loader, save_to=path, progress=stop)
    assert path.exists()
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    handle = model.fc.register_forward_hook(count)
    resumed = ablate(model, loader=loader, save_to=path)
    partly = runs
    runs = 0
    assert resumed.rows == ablate(model, loader=loader).rows
    assert partly < runs / 2  # two samples to look at the model, then one intact pass and the rest
    handle.remove()
    with pytest.raises(GradScopeError, match="another model"):
        ablate(models.build("resnet20", seed=1), loader=loader, save_to=path)


def test_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    hits = hits_mean = 0
    for seed in range(300):
        base = (rng.random(200) < 0.8).astype(float)
        lesioned = np.where(rng.random(200) < 0.15, 1 - base, base)
        _, low, high = paired_share(base, lesioned)
        hits += low <= 0.15 * (0.2 - 0.8) <= high
        _, lows, highs = paired_mean(np.zeros(200), rng.exponential(1, 200), draws=200, seed=seed)
        hits_mean += bool(lows[0] <= 1 <= highs[0])
    assert 0.92 <= hits / 300 <= 0.99
    assert 0.90 <= hits_mean / 300 <= 0.99


def test_kendall_tau_by_hand() -> None:
    assert kendall_tau([0, 1, 2, 3]) == 1
    assert kendall_tau([3, 2, 1, 0]) == -1
    assert kendall_tau([1, 0, 2]) == pytest.approx(1 / 3)


def test_pareto_front_and_costs() -> None:
    table = ablate(models.build("resnet20"), loader=_loader()).pareto("loss")
    assert len(table["unit"]) == 9
    assert table["front"][0]
    assert (np.diff(table["saved"]) <= 0).all()
    assert table["saved"].min() > 0


def test_periodic_rows_carry_the_step() -> None:
    written = []

    class Writer:
        def append(self, table, columns):
            written.append((table, columns))

    model = models.build("resnet20").train()
    callback = PeriodicAblation(model, _loader(1)[0], every=5, writer=Writer())
    assert callback(3) is None
    callback(10)
    ((table, columns),) = written
    assert table == "ablations"
    assert set(columns["step"]) == {10}
    assert len({len(values) for values in columns.values()}) == 1
    assert all(json.loads(text)["exact"] for text in columns["detail"])
    assert model.training


def test_clear_errors() -> None:
    model = models.build("resnet20")
    with pytest.raises(GradScopeError, match="evaluate"):
        ablate(model)
    with pytest.raises(GradScopeError, match="not known"):
        ablate(model, loader=_loader(), drop="everything")
    with pytest.raises(GradScopeError, match="residual units"):
        ablate(model, loader=_loader(), drop="dense")
