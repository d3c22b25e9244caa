"""The account that decides which steps are sampled, on made-up times."""

import threading
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from gradscope.record.agree import AHEAD, AgreedSampling
from gradscope.record.beside import Beside
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
    once_paid_off = max(budget, sample / sampling.elapsed)
    assert sampling.cost() <= once_paid_off + 1e-12
    assert sampling.cost() >= 0.9 * budget - sample / sampling.elapsed
    assert len(sampled) >= min(2, int(budget * sampling.elapsed / sample))


def test_a_sample_costs_what_its_step_took_longer_within_reason() -> None:
    sampling = Sampling("auto", 0.02)
    for _ in range(50):
        sampling.done(False, False, 0.0, 0.1)
    spent = sampling.spent
    sampling.done(True, True, 0.01, 0.1 + 0.01 + 0.005)
    assert sampling.spent - spent == pytest.approx(0.015, rel=0.05)
    spent = sampling.spent
    sampling.done(True, True, 0.01, 0.1 + 0.01 + 30.0)
    assert sampling.spent - spent == pytest.approx(0.03)


def test_a_pause_for_validation_is_not_taken_for_training_time() -> None:
    sampling = Sampling("auto", 0.02)
    train(sampling, 100, 0.1, 0.05, 1e-4)
    before = sampling.elapsed
    sampling.done(False, False, 0.0, 60.0)
    assert sampling.elapsed - before < 1.0


def test_what_background_threads_take_is_within_the_budget() -> None:
    sampling = Sampling("auto", 0.02)
    for step in range(5000):
        full = sampling.sample(step)
        own = 0.05 if full else 0.0
        sampling.done(full, not full, own, 0.1 + own, beside=1e-3)
    assert sampling.cost() <= 0.02 + 1e-12
    assert sampling.sampled_steps == pytest.approx(0.01 * 500 / 0.05, rel=0.05)


def test_only_threads_that_compete_for_the_cores_are_counted(monkeypatch) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr("gradscope.record.beside.cores", lambda: 2)
        on_cpu, on_gpu = Beside([thread], "cpu"), Beside([thread], "cuda")
        monkeypatch.setattr("gradscope.record.beside.cores", lambda: 8)
        spare = Beside([thread], "cpu")
        found = 0.0
        while found == 0.0:
            found = on_cpu.taken()
        assert on_gpu.taken() == spare.taken() == 0.0
    finally:
        stop.set()
        thread.join()
    assert on_cpu.taken() == 0.0


def test_every_nth_step() -> None:
    assert train(Sampling(7, 0.02), 30, 0.1, 0.5, 0.1) == [0, 7, 14, 21, 28]


@pytest.fixture
def processes(monkeypatch) -> Iterator[list[AgreedSampling]]:
    """The samplings of three processes with one store; they look there when told to."""
    store = dist.HashStore()
    monkeypatch.setattr("gradscope.record.agree._count", iter([0, 0, 0]))
    monkeypatch.setattr("gradscope.record.agree.POLL", 1e9)
    made = [AgreedSampling(0.02, rank, store) for rank in range(3)]
    yield made
    for sampling in made:
        sampling.close()


@pytest.mark.parametrize("bare", [0.01, 0.3, 5.0])
def test_all_processes_sample_what_the_first_announced(processes, bare) -> None:
    """The others are slower or faster, and come to other results about their own cost."""
    first, *others = processes
    sampled: list[list[int]] = [[], [], []]
    announced: dict[int, int] = {}
    for step in range(2000):
        for rank, sampling in enumerate(processes):
            full = sampling.sample(step)
            assert sampling.norms()
            own = (0.05 if full else 1e-5) * (1 + 10 * rank)
            sampling.done(full, not full, own, bare * (1 + rank) + own)
            if full:
                sampled[rank].append(step)
        announced.setdefault(max(first._agreed), step)
        for sampling in others:
            sampling.hear()
    assert len(sampled[0]) >= 3
    assert sampled[1] == sampled[2] == sampled[0]
    assert first.cost() <= 0.02 + 0.06 / first.elapsed
    for step in sampled[0][1:]:
        assert (step - announced[step]) * bare >= min(AHEAD, bare) * 0.99


def test_a_process_that_hears_too_late_is_in_step_again_afterwards(processes) -> None:
    first, second, _ = processes
    sampled: tuple[list[int], list[int]] = ([], [])
    for step in range(600):
        for steps, sampling in zip(sampled, (first, second), strict=True):
            full = sampling.sample(step)
            sampling.done(full, not full, 1e-6, 0.1)
            if full:
                steps.append(step)
        if step >= 200:
            second.hear()
    missed = {step for step in sampled[0] if 0 < step <= 200}
    assert len(missed) > 5
    assert set(sampled[0]) - set(sampled[1]) == missed
    assert set(sampled[1]) <= set(sampled[0])
