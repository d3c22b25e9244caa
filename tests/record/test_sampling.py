"""The account that decides which steps are sampled, on made-up times."""

import pytest

from gradscope.record.sampling import Sampling


def train(sampling: Sampling, steps: int, bare: float, sample: float, norms: float) -> list[int]:
    sampled = []
    for step in range(steps):
        full = sampling.sample(step)
        cheap = not full and sampling.norms()
        own = sample if full else norms if cheap else 0.0
        sampling.done(full, cheap, own, bare + own)
        if full:
            sampled.append(step)
    return sampled


@pytest.mark.parametrize("budget", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(
    ("bare", "sample", "norms"), [(0.2, 0.05, 5e-4), (3e-4, 3e-3, 6e-5), (0.01, 0.5, 1e-5)]
)
def test_the_budget_holds_on_light_and_heavy_models(budget, bare, sample, norms) -> None:
    sampling = Sampling("auto", budget)
    sampled = train(sampling, 20_000, bare, sample, norms)
    assert sampling.cost() <= budget + sample / sampling.elapsed + 1e-12
    assert sampling.cost() >= 0.9 * budget
    assert len(sampled) >= 2


def test_a_pause_for_validation_is_not_taken_for_training_time() -> None:
    sampling = Sampling("auto", 0.02)
    train(sampling, 100, 0.1, 0.05, 1e-4)
    before = sampling.elapsed
    sampling.done(False, False, 0.0, 60.0)
    assert sampling.elapsed - before < 1.0


def test_every_nth_step() -> None:
    assert train(Sampling(7, 0.02), 30, 0.1, 0.5, 0.1) == [0, 7, 14, 21, 28]
