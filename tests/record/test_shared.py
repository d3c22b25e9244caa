"""What backward leaves in a process: its own gradient as it arrives, and what stands there at the end."""

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.record.ranks import LOCAL, REDUCED, clip_factor
from gradscope.record.shared import Shared


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def norms(gradients: list[torch.Tensor]) -> list[float]:
    return [float(g.double().norm()) for g in gradients]


def test_own_and_reduced_norms_of_one_backward() -> None:
    """A callback queued by another during backward, as DDP's averaging is, comes before ours."""
    model = net()
    parameters = list(model.parameters())
    shared = Shared(lambda g: g.double().norm())
    removers = list(shared.watch(parameters))

    def average() -> None:
        for p in parameters:
            p.grad /= 4.0

    def queue(_: torch.Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(average)

    parameters[0].register_post_accumulate_grad_hook(queue)
    x = torch.randn(5, 4)
    own = norms(list(torch.autograd.grad(model(x).square().sum(), parameters)))
    model(x).square().sum().backward()
    nn.utils.clip_grad_norm_(parameters, 1e-3)
    after = np.array(norms([p.grad for p in parameters]))
    halves = [shared.columns(part)(2.0) for part in (parameters[:1], parameters[1:])]
    found = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    assert found[LOCAL] * 2.0 == pytest.approx(own, rel=1e-5)
    assert found[REDUCED] * 2.0 == pytest.approx(np.array(own) / 4.0, rel=1e-5)
    factors = clip_factor(after, found[REDUCED] * 2.0)
    assert factors == pytest.approx([4e-3 / np.linalg.norm(own)] * 4, rel=1e-3)
    for remove in removers:
        remove()
    assert not any(p._post_accumulate_grad_hooks for p in parameters[1:])


def test_after_two_backwards_the_own_part_is_not_known() -> None:
    model = net()
    parameters = list(model.parameters())
    shared = Shared(lambda g: g.double().norm())
    removers = list(shared.watch(parameters))
    for _ in range(2):
        model(torch.randn(5, 4)).square().sum().backward()
    found = shared.columns(parameters)(1.0)
    assert np.isnan(found[LOCAL]).all()
    assert found[REDUCED] == pytest.approx(norms([p.grad for p in parameters]), rel=1e-5)
    assert np.isnan(shared.columns(parameters)(1.0)[REDUCED]).all()
    for remove in removers:
        remove()


def test_rounding_is_no_clipping() -> None:
    before = np.array([1.0, 1.0, 0.0, 2.0])
    factors = clip_factor(np.array([1.0 + 1e-6, 0.5, 0.0, 2.0]), before)
    assert factors == pytest.approx([1.0, 0.5, np.nan, 1.0], abs=0.0, nan_ok=True)
