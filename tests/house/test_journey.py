"""From a model to an exported figure, as a user would go."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradscope


def net(depth: int, activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(8, 16), activation()]
    for _ in range(depth):
        layers += [nn.Linear(16, 16), activation()]
    return nn.Sequential(*layers, nn.Linear(16, 4))


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recorded trainings: a deep sigmoid net and a shallow rectified one."""
    root = tmp_path_factory.mktemp("journey")
    for name, model in (("deep", net(18, nn.Sigmoid)), ("shallow", net(2, nn.ReLU))):
        torch.manual_seed(0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with gradscope.track(model, run=name, root=root, every=4, quiet=True) as scope:
            for _ in range(40):
                x = torch.randn(32, 8)
                y = x[:, :4].argmax(1)
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scope.log(loss=loss)
    return root


def test_frames_are_tidy_and_complete(runs_folder: Path) -> None:
    run = gradscope.load(runs_folder / "deep")
    parameters, outputs = run.frame("parameters"), run.frame("outputs")
    assert list(run.steps) == list(range(40))
    assert set(parameters["step"]) == set(range(40))
    assert set(outputs["step"]) == set(range(0, 40, 4))
    assert parameters["grad_norm"].notna().all()
    assert parameters.loc[parameters["step"] % 4 != 0, "update_ratio"].isna().all()
    assert set(run.frame("scalars")["name"]) == {"loss"}
    assert run.status.state == "finished"


def test_the_diagnosis_names_the_sick_net_and_spares_the_healthy_one(runs_folder: Path) -> None:
    deep, shallow = (gradscope.load(runs_folder / name) for name in ("deep", "shallow"))
    kinds = set(deep.frame("findings")["kind"])
    assert "vanishing" in kinds
    assert "vanishing" not in set(shallow.frame("findings")["kind"])


def test_the_depth_profile_falls_as_measured_by_hand(runs_folder: Path) -> None:
    outputs = gradscope.load(runs_folder / "deep").frame("outputs")
    first = outputs[outputs["step"] == 0].set_index("site")["grad_rms"]
    torch.manual_seed(0)
    assert np.log10(first["1"] / first["37"]) < -5


def test_the_comparison_is_exported(runs_folder: Path, tmp_path: Path) -> None:
    from gradscope.export import export_figures

    written = export_figures(
        gradscope.load_all(runs_folder),
        figure="gradient-flow",
        formats=("html", "csv"),
        out=tmp_path,
    )
    assert {path.suffix for path in written} == {".html", ".csv"}
    assert all(path.stat().st_size > 500 for path in written)
