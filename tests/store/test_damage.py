"""Damaged, foreign and hostile files of a run: one clear error, and other runs stay listed."""

import json
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradscope.schema import Finding, GradScopeError, RunInfo, Site
from gradscope.store import RunWriter, archive_run, list_runs, open_run

JSON_FILES = ("run.json", "sites.json", "status.json", "findings.json", "user.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with every kind of file."""
    writer = RunWriter(tmp_path_factory.mktemp("sound"), "a", RunInfo("m", {"lr": 0.1}))
    writer.set_sites([Site(f"s{i}", "parameter", i) for i in range(5)])
    for step in range(300):
        rows = {"step": np.full(5, step), "site": np.arange(5)}
        writer.append("parameters", rows | {"grad_norm": np.full(5, step + 1, "f4")})
        loss = {"name": np.array(["loss"], object), "value": np.ones(1), "time": np.ones(1)}
        writer.append("scalars", {"step": np.array([step])} | loss)
        if step == 200:
            writer.flush()
    writer.set_findings([Finding("vanishing", "warning", "s0", 0, 9, "It vanishes.", "Do.")])
    writer.close()
    (writer.path / "user.json").write_text('{"format_version": 1, "note": "n", "tags": ["t"]}')
    return writer.path


@pytest.fixture
def runs(tmp_path: Path, sound: Path) -> Path:
    """A root with the runs `a`, to be damaged, and `whole`."""
    shutil.copytree(sound, tmp_path / "a")
    shutil.copytree(sound, tmp_path / "whole")
    return tmp_path


def use(path: Path) -> str:
    """Read everything; the error's sentence, "" if there was none. Other errors fail the test."""
    try:
        run = open_run(path)
        assert run.status.state
        assert isinstance(run.info.config, dict)
        assert run.sites is not None
        assert run.version()
        for table in run.tables():
            column = "grad_norm" if table == "parameters" else "value"
            run.read(table)
            run.last_steps(table, 3)
            run.thinned(table, [column], buckets=5)
    except GradScopeError as trouble:
        return str(trouble)
    return ""


def damage(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    if draw.random() < 0.5 or not changed:
        return bytes(changed[: draw.randrange(0, len(changed) + 1, 64)])
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def fuzz(root: Path, times: int, seed: int) -> None:
    draw = random.Random(seed)
    path = root / "a"
    archive = archive_run(path, root / "a.zip")
    files = [*files_of(path), archive]
    told = 0
    for number in range(times):
        file = draw.choice(files)
        kept = file.read_bytes()
        file.write_bytes(damage(kept, draw))
        sentence = use(archive if file == archive else path)
        told += bool(sentence)
        assert not sentence or file.name in sentence
        if number % 10 == 0:
            listed = {r.name: r.status.state for r in list_runs(root)}
            assert listed["whole"] == "finished"
            assert "a" in listed
        file.write_bytes(kept)
        assert number % 100 or use(path) == ""
    assert told > times // 10


def test_damaged_files_give_one_clear_error(runs: Path) -> None:
    fuzz(runs, 300, seed=0)


@pytest.mark.slow
def test_ten_thousand_damaged_files(runs: Path) -> None:
    fuzz(runs, 10_000, seed=1)


def files_of(run: Path) -> list[Path]:
    """Every file of a run that a reader looks into."""
    return sorted(p for p in run.rglob("*") if p.suffix in (".json", ".parquet"))


def test_every_file_cut_at_every_64th_byte(runs: Path) -> None:
    told = 0
    for file in files_of(runs / "a"):
        kept = file.read_bytes()
        for size in range(0, len(kept), 64):
            file.write_bytes(kept[:size])
            sentence = use(runs / "a")
            told += bool(sentence)
            assert not sentence or file.name in sentence
            assert sentence or file.suffix == ".json"  # no cut part goes unnoticed
        file.write_bytes(kept)
    assert told > 100


@pytest.mark.parametrize("damage", ["emptied", "folder", "sparse"])
def test_every_file_emptied_or_replaced(runs: Path, damage: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file in files_of(runs / "a"):
        kept = file.read_bytes()
        if damage == "folder":
            file.unlink()
            file.mkdir()
        else:
            with open(file, "wb") as made:
                made.truncate(2**30 if damage == "sparse" else 0)
        listed = {r.name: r.status for r in list_runs(runs)}
        told = [use(runs / "a"), listed["a"].error, *listed["a"].notes]
        assert any(file.name in sentence for sentence in told), file
        assert listed["whole"].state == "finished"
        if damage == "folder":
            file.rmdir()
        file.write_bytes(kept)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 200 * 2**20
    assert use(runs / "a") == ""


NESTED = '{"format_version": 1, "config": ' + "[" * 200_000 + "]" * 200_000 + "}"
HOSTILE: list[tuple[str, str]] = [
    (file, text)
    for file in JSON_FILES
    for text in (
        NESTED,
        "",
        "null",
        "[]",
        '{"format_version": NaN}',
        '{"format_version": true}',
        '{"format_version": "1"}',
        '{"format_version": -1}',
        '{"format_version": 1, "state": NaN, "last_step": NaN}',
        '{"format_version": 1, "state": [], "last_step": "x", "notes": {"a": 1}, "ended": {}}',
        '{"format_version": 1, "state": "finished", "last_step": 1e400, "started": 1'
        + "0" * 400
        + "}",
        '{"format_version": 1, "state": "finished", "last_step": ' + "9" * 5000 + "}",
        '{"format_version": 1, "segments": [], "name": 3, "findings": [1, null, {"kind": []}]}',
        '{"format_version": 1, "segments": [{"first_seq": NaN, "resume_step": 0}]}',
        '{"format_version": 1, "segments": [{"first_seq": 0.5, "resume_step": -7}]}',
        '{"format_version": 1, "name": ["a"], "kind": [1, 2]}',
        '{"format_version": 1, "name": [[]], "kind": [{}], "depth": ["x"], "module_type": [1],'
        ' "shape": [[[]]], "parameters": [null], "stage": [0], "note": [], "tags": "t"}',
        '{"format_version": 1, "model": "\\u202eevil\\u0000", "tags": [1, {}], "note": "\\ud800"}',
    )
]


@pytest.mark.parametrize(("file", "text"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_json(runs: Path, file: str, text: str) -> None:
    (runs / "a" / file).write_text(text)
    sentence = use(runs / "a")
    assert not sentence or file in sentence
    listed = {r.name: r for r in list_runs(runs)}
    assert listed["whole"].status.state == "finished"
    assert "\u202e" not in listed["a"].info.model
    told = [listed["a"].status.error, *listed["a"].status.notes]
    if '"format_version": 1,' not in text or "NaN" in text:
        assert file == "sites.json" or any(file in sentence for sentence in told)


@pytest.mark.parametrize("file", ["run.json", "status.json", "sites.json", "findings.json"])
def test_a_format_of_the_future_asks_for_a_newer_gradscope(runs: Path, file: str) -> None:
    value = json.loads((runs / "a" / file).read_text())
    (runs / "a" / file).write_text(json.dumps(value | {"format_version": 2}))
    (summary,) = [r for r in list_runs(runs) if r.name == "a"]
    told = [use(runs / "a"), summary.status.error, *summary.status.notes]
    assert any("install a newer GradScope" in sentence and file in sentence for sentence in told)
    assert (summary.status.state == "broken") == (file == "run.json")


@pytest.mark.parametrize("file", ["status.json", "findings.json", "user.json"])
def test_a_damaged_small_file_costs_only_what_it_told(runs: Path, file: str) -> None:
    (runs / "a" / file).write_text("{")
    (summary,) = [r for r in list_runs(runs) if r.name == "a"]
    assert summary.info.config == {"lr": 0.1}
    assert summary.status.state == ("killed" if file == "status.json" else "finished")
    assert summary.status.verdict == ("" if file == "status.json" else "It vanishes.")
    assert any(file in note for note in summary.status.notes)
    assert len(open_run(runs / "a").read("parameters")["step"]) == 1500


@pytest.mark.parametrize("table", ["parameters", "parameters.thin"])
def test_a_huge_sparse_part_is_refused_in_little_memory(runs: Path, table: str) -> None:
    (part,) = (runs / "a" / table).glob("*.parquet")
    with open(part, "r+b") as file:
        file.truncate(2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert part.name in use(runs / "a")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 200 * 2**20


def test_a_folder_in_place_of_a_part(runs: Path) -> None:
    (part,) = (runs / "a" / "parameters").glob("*.parquet")
    part.unlink()
    part.mkdir()
    assert part.name in use(runs / "a")


def test_the_version_is_the_same_in_every_process(runs: Path) -> None:
    text = (
        "import sys; from gradscope.store import open_run; print(open_run(sys.argv[1]).version())"
    )
    command = [sys.executable, "-c", text, str(runs / "a")]
    told = {subprocess.run(command, capture_output=True, text=True).stdout for _ in range(2)}
    assert told == {open_run(runs / "a").version() + "\n"}
    status: dict[str, Any] = json.loads((runs / "a" / "status.json").read_text())
    (runs / "a" / "status.json").write_text(json.dumps(status | {"last_step": 300}))
    assert told != {open_run(runs / "a").version() + "\n"}
