"""Two processes under torchrun against one process that sees the whole batch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradscope.record.ranks import joined, spread
from gradscope.store import list_runs, open_run

SCRIPT = Path(__file__).with_name("distributed_script.py")


def launched(how: str, root: Path, every: str = "2") -> str:
    """What the processes print."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", str(SCRIPT), how, str(root), every),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def expectations(said: str) -> list[dict[str, list[float]]]:
    """What each step should be recorded as, from a single process that sees the whole batch."""
    told = said.partition("EXPECTED ")[2]
    return json.JSONDecoder().raw_decode(told)[0]


def weights(said: str) -> list[str]:
    """A digest of the bytes of each process's weights at the end."""
    return sorted(re.findall(r"WEIGHTS \d [0-9a-f]{64}", said))  # lines of two processes may join


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_one_run_with_the_whole_gradient(tmp_path, how) -> None:
    said = launched(how, tmp_path)
    assert weights(said) == weights(launched(how, tmp_path / "none", "untracked"))
    assert len(weights(said)) == 2
    expected = expectations(said)
    assert [r.name for r in list_runs(tmp_path)] == ["run"]
    run = open_run(tmp_path / "run")
    assert run.status.state == "finished"
    assert run.info.config["processes"] == 2
    table = run.read("parameters")
    assert len(table["step"]) == 12
    for i, (step, site) in enumerate(zip(table["step"], table["site"], strict=True)):
        norm, largest, weight, update = expected[step][run.sites[site].name]
        assert table["grad_norm"][i] == pytest.approx(norm, rel=1e-4)
        if step != 1:
            size = np.prod(run.sites[site].shape)
            assert table["grad_rms"][i] == pytest.approx(norm / size**0.5, rel=1e-4)
            assert table["grad_absmax"][i] == pytest.approx(largest, rel=1e-4)
            assert table["weight_norm"][i] == pytest.approx(weight, rel=1e-4)
            assert table["update_ratio"][i] == pytest.approx(update / weight, rel=1e-4)
            clipped = 0.5 if step == 2 else 1.0
            assert table["clip_factor"][i] == pytest.approx(clipped, rel=1e-4)
    scalars = run.read("scalars")
    for step in (0, 2):
        here = scalars["step"] == step
        found = dict(zip(scalars["name"][here], scalars["value"][here], strict=True))
        own = [found["grad_norm_rank0"], found["grad_norm_rank1"]]
        assert own == pytest.approx(expected[step]["own"], rel=1e-4)
        whole = sum(v[0] ** 2 for k, v in expected[step].items() if k != "own")
        whole *= 4 if step == 2 else 1  # clipped to half
        small = sum(v**2 for v in expected[step]["own"]) / 2
        noise = (small - whole) / (1 / 5 - 1 / 10) / (2 * whole - small)
        assert found["gradient_noise_scale"] == pytest.approx(noise, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_all_processes_sample_the_same_steps_by_themselves(tmp_path, how) -> None:
    expected = expectations(launched(how, tmp_path, "auto"))
    run = open_run(tmp_path / "run")
    table, outputs = run.read("parameters"), run.read("outputs")
    assert len(table["step"]) == 4 * len(expected)
    sampled = set(outputs["step"].tolist())
    assert len(sampled) >= 2
    for i, (step, site) in enumerate(zip(table["step"], table["site"], strict=True)):
        norm, _, weight, update = expected[step][run.sites[site].name]
        assert table["grad_norm"][i] == pytest.approx(norm, rel=1e-3)
        if step in sampled:
            assert table["update_ratio"][i] == pytest.approx(update / weight, rel=1e-3)


def test_the_noise_scale_of_gradients_with_known_noise() -> None:
    """Per-sample gradients of mean mu and variance 1 in each of n dimensions: n / |mu|^2."""
    generator = np.random.default_rng(0)
    mean, batch, size = np.full(2000, 0.1), 50, 4
    signals, noises = [], []
    for _ in range(100):
        own = mean + generator.normal(size=(size, 2000)) / batch**0.5
        local = np.linalg.norm(own, axis=1, keepdims=True)
        whole = np.array([np.linalg.norm(own.mean(0))])
        found = spread(local, whole, batch)
        signal = (size * whole[0] ** 2 - (local**2).mean()) / (size - 1)
        signals.append(signal)
        noises.append(found["gradient_noise_scale"] * signal)
    assert np.mean(noises) / np.mean(signals) == pytest.approx(2000 / 20, rel=0.03)


def test_shards_make_up_the_whole() -> None:
    generator = np.random.default_rng(1)
    g, w, u = generator.normal(size=(3, 10))
    cut = [slice(0, 6), slice(6, 10)]

    def each(function) -> np.ndarray:
        return np.array([[function(part)] for part in cut])

    columns = {
        "grad_norm": each(lambda s: np.linalg.norm(g[s])),
        "grad_absmax": each(lambda s: np.abs(g[s]).max()),
        "grad_nonfinite": each(lambda s: 1.0),
        "weight_norm": each(lambda s: np.linalg.norm(w[s])),
        "update_ratio": each(lambda s: np.linalg.norm(u[s]) / np.linalg.norm(w[s])),
    }
    whole = joined(columns, np.array([10.0]))
    assert whole["grad_norm"] == pytest.approx(np.linalg.norm(g))
    assert whole["grad_rms"] == pytest.approx(np.sqrt((g**2).mean()))
    assert whole["grad_absmax"] == pytest.approx(np.abs(g).max())
    assert whole["grad_nonfinite"] == 2
    assert whole["update_ratio"] == pytest.approx(np.linalg.norm(u) / np.linalg.norm(w))
