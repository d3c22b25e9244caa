"""Runs are renamed, deleted, annotated and archived; their surroundings hold no secrets."""

import json
import os
import resource
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gradscope.schema import GradScopeError, RunInfo
from gradscope.store import (
    RunWriter,
    annotate_run,
    archive_run,
    delete_run,
    environment,
    find_run,
    list_runs,
    open_run,
    rename_run,
)


def begun(root: Path, name: str = "a") -> RunWriter:
    writer = RunWriter(root, name, RunInfo("m", environment=environment()))
    values = {"step": np.arange(3), "site": np.zeros(3), "grad_norm": np.arange(3.0)}
    writer.append("parameters", values)
    writer.flush()
    return writer


def done(root: Path, name: str = "a") -> Path:
    writer = begun(root, name)
    writer.close()
    return writer.path


def test_rename(tmp_path: Path) -> None:
    path = done(tmp_path)
    done(tmp_path, "taken")
    for name, why in (("taken", "exists"), ("Taken", "case"), ("../b", "separator"), ("", "empty")):
        with pytest.raises(GradScopeError, match=why):
            rename_run(path, name)
    assert rename_run(path, "b") == tmp_path / "b"
    assert rename_run(tmp_path / "b", "B") == tmp_path / "B"  # only the case changes
    assert [r.name for r in list_runs(tmp_path)] == ["B", "taken"]
    assert len(open_run(tmp_path / "B").read("parameters")["step"]) == 3


def test_a_run_being_written_is_neither_renamed_nor_deleted_nor_archived(tmp_path: Path) -> None:
    writer = begun(tmp_path)
    with pytest.raises(GradScopeError, match="being written"):
        rename_run(writer.path, "b")
    with pytest.raises(GradScopeError, match="being written"):
        delete_run(writer.path)
    with pytest.raises(GradScopeError, match="being written"):
        archive_run(writer.path, tmp_path / "a.zip")
    annotate_run(writer.path, note="while it runs", add_tags=["x"])
    assert open_run(writer.path).status.user_note == "while it runs"
    writer.close()
    assert open_run(writer.path).status.user_tags == ("x",)
    assert os.listdir(tmp_path) == ["a"]


def test_delete_follows_no_link_and_takes_only_runs(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    with pytest.raises(GradScopeError, match="no run"):
        delete_run(outside)
    path = done(tmp_path / "runs")
    (path / "link").symlink_to(outside)
    archive = archive_run(path, tmp_path / "a.zip")
    delete_run(path)
    assert (outside / "precious").read_text() == "kept"
    assert os.listdir(tmp_path / "runs") == []
    assert open_run(archive).status.state == "finished"
    delete_run(archive)
    with pytest.raises(GradScopeError, match="no run"):
        delete_run(archive)


def test_annotations_are_kept_apart_and_changed_one_by_one(tmp_path: Path) -> None:
    path = done(tmp_path)
    annotate_run(path, note="first", add_tags=["x", "y", "x"], baseline=True)
    annotate_run(path, remove_tags=["x"], add_tags=["z"])
    status = open_run(path).status
    assert (status.user_note, status.user_tags, status.baseline) == ("first", ("y", "z"), True)
    annotate_run(path, note="", baseline=False)
    status = open_run(path).status
    assert (status.user_note, status.user_tags, status.baseline) == ("", ("y", "z"), False)


def test_an_archive_is_never_overwritten_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    path = done(tmp_path / "runs")
    (path / ".hidden").write_text("")
    (path / "checkpoint.npz").write_bytes(b"123")
    archive_run(path, tmp_path / "a.zip")
    with pytest.raises(GradScopeError, match="exists already"):
        archive_run(path, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = set(file.namelist())
    assert {"run.json", "status.json", "checkpoint.npz"} <= names
    assert not names & {".hidden", "writer.lock"}


def test_archives_in_the_folder_of_runs_are_listed(tmp_path: Path) -> None:
    path = done(tmp_path, "both.zip")  # a folder may be called so
    archive_run(path, tmp_path / "packed.zip")
    archive_run(path, tmp_path / "both.zip.zip")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("a.txt", "no run")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "packed.zip").read_bytes()[:-30])
    for _ in range(2):  # the second listing is from memory
        listed = {r.name: r for r in list_runs(tmp_path)}
        assert list(listed) == ["both.zip", "cut", "packed"]
        assert listed["both.zip"].path == path
        assert listed["packed"].status.state == "finished"
        assert listed["cut"].status.state == "broken"
        assert "cut.zip is damaged" in listed["cut"].status.error
    assert [open_run(r.path).name for r in listed.values() if r.name != "cut"] == [
        "both.zip",
        "packed",
    ]
    annotate_run(path, baseline=True)
    assert open_run(path).status.baseline
    assert not open_run(archive_run(path, tmp_path / "marked.zip")).status.baseline
    delete_run(tmp_path / "marked.zip")
    assert find_run("packed", tmp_path) == tmp_path / "packed.zip"
    assert find_run("both.zip", tmp_path) == path
    delete_run(tmp_path / "packed.zip")
    archive_run(path, tmp_path / "packed")  # the ending is added
    assert [r.name for r in list_runs(tmp_path)] == ["both.zip", "cut", "packed"]


def test_an_archive_that_claims_a_huge_directory_costs_no_memory(tmp_path: Path) -> None:
    archive = archive_run(done(tmp_path / "runs"), tmp_path / "a.zip")
    end = bytearray(archive.read_bytes()[-22:])
    end[12:16] = (2**30).to_bytes(4, "little")
    with open(archive, "r+b") as file:
        file.truncate(2**30 + 2**20)
        file.seek(0, os.SEEK_END)
        file.write(end)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GradScopeError, match=r"a\.zip is damaged"):
        open_run(archive)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 200 * 2**20


SECRET = "hunter2hunter2hunter2"


@pytest.mark.parametrize(
    "words",
    [
        ["--password", SECRET],
        [f"--api-key={SECRET}"],
        [f"--api_key={SECRET}"],
        [f"WANDB_API_KEY={SECRET}"],
        ["--hf-token", SECRET],
        ["-token", SECRET],
        [f"https://user:{SECRET}@host/x"],
        [f"--data=https://user:{SECRET}@host/x"],
        [f"sk-{SECRET}"],
        [f"hf_{SECRET}"],
        [f"--header=ghp_{SECRET}"],
        [f"model.optimizer.auth={SECRET}"],
        [f"https://host/x?token={SECRET}&n=1"],
    ],
)
def test_secrets_of_the_command_line_are_blotted_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", *words, "--epochs=3"])
    monkeypatch.setenv("GRADSCOPE_TEST_VARIABLE", "environment-secret")
    path = done(tmp_path)
    for file in path.rglob("*.*"):
        kept = file.read_bytes() if file.is_file() else b""
        assert SECRET.encode() not in kept
        assert b"environment-secret" not in kept
    written = (path / "run.json").read_text()
    line = json.loads(written)["environment"]["command_line"]
    assert line[:3] == ["train.py", "--lr", "0.1"]
    assert line[-1] == "--epochs=3"
    assert any("***" in word for word in line)
