"""The command line in process: what it prints, how it ends, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gradscope.cli import main
from gradscope.cli.main import parser
from gradscope.cli.terminal import duration, table
from gradscope.experiments import DataSet, comparison, train
from gradscope.store import list_runs, open_run

COMMANDS = (
    "demo",
    "train",
    "compare",
    "study",
    "check",
    "ablate",
    "paths",
    "shattering",
    "runs",
    "dashboard",
    "export",
)
QUICK = ("--epochs", "1", "--batch-size", "64", "--every", "1", "--device", "cpu")


@pytest.fixture
def root(tmp_path: Path, tiny: DataSet) -> Path:
    """A folder with one tiny residual run, `a`."""
    train("resnet20", run="a", root=tmp_path / "runs", epochs=1, batch_size=64, every=1)
    return tmp_path / "runs"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of reason a command ends with."""
    capsys.readouterr()
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gradscope: ")
    assert "Traceback" not in lines[0]
    return lines[0]


def test_every_command_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        told = " ".join(capsys.readouterr().out.split())
        example = re.search(rf"example: gradscope {command}( [^\n]*)?$", told)
        assert example, command
        for words in example[0].removeprefix("example: ").split(" or "):
            parser().parse_args(words.split()[1:])


def test_the_top_lists_every_command_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(command in told for command in COMMANDS)


def test_train_prints_a_verdict(
    tmp_path: Path, tiny: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "plain20", "--run", "x", "--runs", str(tmp_path), *QUICK]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "verdict" in shown.out.splitlines()[0]
    assert shown.out.splitlines()[1].startswith("x ")
    assert "step 2/2" in shown.err
    assert open_run(tmp_path / "x").status.state == "finished"
    assert "x" in refused(words, capsys)


def test_compare_reuses_and_refuses(
    tmp_path: Path, tiny: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "plain20", "resnet20", "--runs", str(tmp_path), *QUICK]
    assert main(words) == 0
    assert "step" in capsys.readouterr().err
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "gradscope dashboard" in shown.out
    assert "lr=0.1" in refused([*words, "--lr", "0.2"], capsys)


def test_the_demo_reuses_its_runs(
    tmp_path: Path,
    tiny: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 64, "every": 1}
    monkeypatch.setattr(comparison, "DEMO", settings)
    words = ["demo", "--runs", str(tmp_path), "--no-dashboard"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert [run.name for run in list_runs(tmp_path)] == ["densenet22", "plain20", "resnet20"]
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert first.err
    assert again.err == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "resnt20"], "resnet20"),
        (["train", "plain20", "--epochs", "0"], "epochs"),
        (["train", "plain20", "--device", "toaster"], "--device auto"),
        (["train", "plain20", "--every", "never"], "never"),
        (["train", "plain20", "--data", "mnist"], "--data-root"),
        (["train", "plain20", "--data", "cifar10", "--data-root", "."], "--download"),
        (["check", "no.py:build"], "no.py"),
        (["ablate", "nothing"], "nothing"),
        (["study", "nothing"], "stochastic-depth"),
        (["study", "skips", "--model", "googlenet"], "only heads"),
        (["train", "plain20", "--ablate-every", "0"], "whole number"),
        (["runs", "nowhere"], "nowhere"),
        (["export", "nothing"], "nothing"),
    ],
)
def test_a_users_error_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(words, capsys)


def test_a_failing_disk_or_a_long_reason_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(98, "Address already\nin use")

    monkeypatch.setattr("gradscope.experiments.train", fail)
    assert "Address already in use" in refused(["train", "plain20"], capsys)


def test_ctrl_c_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gradscope.experiments.train", stop)
    assert main(["train", "plain20"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_runs_are_listed_and_changed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(root)
    assert main(["runs", folder, "--tag", "a", "good"]) == 0
    assert main(["runs", folder, "--note", "a", "first try"]) == 0
    assert main(["runs", folder, "--baseline", str((root / "a").resolve())]) == 0
    status = open_run(root / "a").status
    assert (status.user_tags, status.user_note, status.baseline) == (("good",), "first try", True)
    capsys.readouterr()
    assert main(["runs", folder]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "model", "steps", "written", "tags", "note", "status", "verdict"]
    assert row.split()[:3] == ["a*", "resnet20", "2"]
    assert "good  first try  " in row
    assert main(["runs", folder, "--no-baseline"]) == 0
    assert "baseline no more" in capsys.readouterr().out
    assert not open_run(root / "a").status.baseline
    assert main(["runs", folder, "--untag", "a", "good"]) == 0
    assert "no tags" in capsys.readouterr().out
    assert main(["runs", folder, "--rename", "a", "b"]) == 0
    assert main(["runs", folder, "--archive", "b", str(tmp_path / "b.zip")]) == 0
    assert open_run(tmp_path / "b.zip").status.user_tags == ()
    assert "b" in refused(["runs", folder, "--delete", "a", "--yes"], capsys)
    assert main(["runs", folder, "--delete", "b", "--yes"]) == 0
    assert list_runs(root) == []
    shutil.copy(tmp_path / "b.zip", root)
    assert main(["runs", folder, "--no-baseline"]) == 0
    assert "No run" in capsys.readouterr().out
    assert main(["runs", folder]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["b.zip", "resnet20"]
    assert main(["runs", folder, "--delete", "b", "--yes"]) == 0
    capsys.readouterr()
    assert main(["runs", folder]) == 0
    assert "gradscope demo" in capsys.readouterr().out


def test_deleting_asks_first(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["runs", str(root), "--delete", "a"]
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    assert main(words) == 0
    assert (root / "a").is_dir()
    assert "(finished, 2 steps, " in asked[0]

    def nobody(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    assert "--yes" in refused(words, capsys)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(words) == 0
    assert not (root / "a").exists()


def test_a_run_is_exported_and_ablated(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures"
    assert main(["export", str(root / "a"), "--format", "csv, html", "--out", str(out)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(path.suffix for path in written) == [".csv", ".html"]
    assert all(path.stat().st_size > 500 for path in written)
    assert main(["ablate", "a", "--runs", str(root), "--limit", "40"]) == 0
    told = capsys.readouterr().out
    assert "stage2.1" in told
    assert len(open_run(root / "a").read("ablations")["unit"]) > 0
    refused(["ablate", "a", "--runs", str(root), "--drop", "everything"], capsys)


@pytest.mark.parametrize(
    ("model", "drop", "lesions"),
    [
        ("resnet20", "stages,random,reorder", {"drop-stage": 3, "drop-k": 4, "reorder": 4}),
        ("plain20", "plain", {"drop": 7}),
        ("densenet22", "dense", {"drop": 18}),
        ("inception_small", "inception,branches", {"drop": 7 + 28}),
    ],
)
def test_every_word_of_drop_is_stored(
    tmp_path: Path,
    tiny: DataSet,
    capsys: pytest.CaptureFixture[str],
    model: str,
    drop: str,
    lesions: dict[str, int],
) -> None:
    train(model, run="a", root=tmp_path, epochs=1, batch_size=64, every=1)
    words = ["ablate", "a", "--runs", str(tmp_path), "--drop", drop, "--limit", "16"]
    assert main([*words, "--k", "1,2", "--draws", "2"]) == 0
    shown = capsys.readouterr()
    assert "ablating [##" in shown.err
    assert "Stored in" in shown.out
    rows = open_run(tmp_path / "a").read("ablations")
    kinds = rows["lesion"][rows["metric"] == "loss"].astype(str).tolist()
    assert {kind: kinds.count(kind) for kind in kinds} == lesions
    if "reorder" in lesions:
        taus = [json.loads(d)["tau"] for d in rows["detail"] if "tau" in d]
        assert all(-1 <= tau <= 1 for tau in taus)
        assert min(taus) < 1
    assert "whole numbers" in refused([*words, "--k", "two"], capsys)


def test_a_study_prints_means_and_verdicts(
    tmp_path: Path, tiny: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "normalisation", "--seeds", "2", "--runs", str(tmp_path), "--device", "cpu"]
    assert main(words) == 0
    told = capsys.readouterr().out
    head = next(line for line in told.splitlines() if line.startswith("mean and 95 % interval"))
    assert head.split()[-4:] == ["plain20-bn", "plain20-no-bn", "resnet20-bn", "resnet20-no-bn"]
    assert re.search(r"^test accuracy, % +\S+ ± \S+", told, re.MULTILINE)
    assert len(re.findall(r"^(confirmed|not seen|contradicted), at this scale: ", told, re.M)) == 2
    assert len(list_runs(tmp_path / "normalisation")) == 8
    assert "heads" in refused(["study", "widths"], capsys)


def test_check_names_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "plain20"]) == 0
    assert "stage" in capsys.readouterr().out


def test_durations_and_tables_are_readable() -> None:
    assert [duration(s) for s in (0.2, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 5 min"]
    assert table(("a", "b"), [("long", "x")]) == "a     b\nlong  x"
