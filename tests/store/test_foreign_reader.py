"""docs/run-format.md is enough to read a run: `Foreign` follows it with pyarrow and json alone."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

FOREIGN = "--foreign"
NAME = re.compile(r"(\d{10})-(\d{10})\.(\d+)-(\d+)\.parquet")


def document(run: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run, {} if absent."""
    if not (run / name).exists():
        return {}
    value: dict[str, Any] = json.loads((run / name).read_text("utf-8"))
    if value["format_version"] != 1:
        raise ValueError(f"{name} has format {value['format_version']}")
    return value


def live(folder: Path) -> list[tuple[Path, int]]:
    """Live parts with the number of their last flush, by the rule of containment."""
    found = []
    for file in folder.iterdir():
        match = NAME.fullmatch(file.name)
        if match:
            found.append((int(match[1]), -int(match[2]), file))
    kept: list[tuple[Path, int]] = []
    for _, negative, file in sorted(found):
        if not kept or -negative > kept[-1][1]:
            kept.append((file, -negative))
    return kept


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    """Rows that count, sorted by step, then by the key columns."""
    segments = document(run, "run.json")["segments"]
    whole = []
    for file, last_flush in live(run / table):
        limit = min(
            (s["resume_step"] for s in segments if s["first_seq"] > last_flush), default=math.inf
        )
        whole += [row for row in pq.read_table(str(file)).to_pylist() if row["step"] < limit]
    keys = ["step", *(k for k in ("site", "of", "exponent", "name") if whole and k in whole[0])]
    return sorted(whole, key=lambda row: [row[key] for key in keys])


def thinned(run: Path, table: str, column: str, width: int) -> dict[tuple[int, int], list[float]]:
    """(bucket, site) -> [least, mean, largest] from thinned parts, all of which must be there."""
    found: dict[tuple[int, int], list[float]] = {}
    for file, _ in live(run / table):
        level = round(math.log(width / 32, 4))
        block = pq.ParquetFile(str(run / f"{table}.thin" / file.name)).read_row_group(level)
        for row in block.to_pylist():
            assert row["width"] == width
            low, mean, high, n = (row[f"{column}_{kind}"] for kind in ("min", "mean", "max", "n"))
            old = found.setdefault((row["step"], row["site"]), [math.inf, 0.0, -math.inf, 0])
            total = old[3] + n
            mean = (old[1] * old[3] + mean * n) / total
            found[row["step"], row["site"]] = [min(old[0], low), mean, max(old[2], high), total]
    return {key: value[:3] for key, value in found.items()}


def report(run: Path) -> dict[str, Any]:
    """Everything the test compares, as JSON values."""
    sites = document(run, "sites.json")
    return {
        "gradscope": "gradscope" in sys.modules,
        "state": document(run, "status.json")["state"],
        "last_step": document(run, "status.json")["last_step"],
        "config": document(run, "run.json")["config"],
        "sites": [list(pair) for pair in zip(sites["name"], sites["shape"], strict=True)],
        "parameters": rows(run, "parameters"),
        "histograms": rows(run, "histograms"),
        "scalars": rows(run, "scalars"),
        "thin": [
            [*key, *v] for key, v in sorted(thinned(run, "parameters", "grad_norm", 128).items())
        ],
    }


if __name__ == "__main__" and FOREIGN in sys.argv:
    print(json.dumps(report(Path(sys.argv[2]))))
    sys.exit()


VALUES = np.exp(np.random.default_rng(5).normal(0, 8, (600, 3))).astype("f4")


def write_steps(writer: Any, first: int, last: int, sign: float) -> None:
    for step in range(first, last):
        own = {"step": np.full(3, step), "site": np.arange(3)}
        norms = {"grad_norm": sign * VALUES[step], "grad_nonfinite": np.full(3, 999_999, "f4")}
        writer.append("parameters", own | norms)
        loss = {"name": np.array(["loss"], object), "value": np.array([sign / (step + 1)])}
        writer.append("scalars", {"step": np.array([step])} | loss | {"time": np.zeros(1)})
        if step % 100 == 0:
            bins = {"of": np.zeros(2), "exponent": np.array([-3, 4]), "count": np.array([5, 2**40])}
            writer.append("histograms", {"step": np.full(2, step), "site": np.ones(2)} | bins)
            writer.flush()


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the foreign reader says of a run resumed at step 350 after 500 steps."""
    from gradscope.schema import RunInfo, Site
    from gradscope.store import RunWriter

    root = tmp_path_factory.mktemp("runs")
    writer = RunWriter(root, "r", RunInfo("net", {"lr": 0.1, "bad": float("nan")}))
    writer.set_sites([Site(f"conv{i}.weight", "parameter", i, shape=(i, 3)) for i in range(3)])
    write_steps(writer, 0, 500, 1.0)
    writer.close("interrupted")
    writer = RunWriter(root, "r", RunInfo("net"), resume=True, resume_step=350)
    write_steps(writer, 350, 600, -1.0)
    writer.close()
    # what a writer killed while merging leaves: parts inside the range of a live one
    (part, _), *_ = live(root / "r" / "parameters")
    inner = part.with_name(f"{part.name[:10]}-{part.name[:10]}.0-99.parquet")
    inner.write_bytes(part.read_bytes())
    command = [sys.executable, "-I", __file__, FOREIGN, str(root / "r")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_it_reads_without_gradscope(answer: dict[str, Any]) -> None:
    assert answer["gradscope"] is False
    assert answer["state"] == "finished"
    assert answer["last_step"] == 599
    assert answer["config"] == {"lr": 0.1, "bad": "nan"}
    assert answer["sites"] == [[f"conv{i}.weight", [i, 3]] for i in range(3)]


def test_its_numbers_are_those_appended(answer: dict[str, Any]) -> None:
    found = answer["parameters"]
    assert [(r["step"], r["site"]) for r in found] == [(s, i) for s in range(600) for i in range(3)]
    sign = np.where(np.arange(600) < 350, 1.0, -1.0)
    norms = np.array([r["grad_norm"] for r in found]).reshape(600, 3)
    np.testing.assert_allclose(norms, sign[:, None] * VALUES.astype("f8"), rtol=2.0**-17)
    assert all(r["grad_nonfinite"] == 999_999 and math.isnan(r["clip_factor"]) for r in found)
    assert [r["value"] for r in answer["scalars"]] == [sign[s] / (s + 1) for s in range(600)]
    counted = [(r["step"], r["site"], r["exponent"], r["count"]) for r in answer["histograms"]]
    assert counted == [(s, 1, *b) for s in range(0, 600, 100) for b in ((-3, 5), (4, 2**40))]


def test_its_thinned_levels_hold_every_peak(answer: dict[str, Any]) -> None:
    """The last segment's buckets, which were never rewound, against the appended values."""
    buckets = {(b, s): stats for b, s, *stats in answer["thin"]}
    for start in (384, 512):
        block = -VALUES[start : start + 128].astype("f8")
        for site in range(3):
            low, mean, high = buckets[start, site]
            if start >= 512:  # not shared with the rewound segment
                assert low == pytest.approx(block[:, site].min(), rel=1e-5)
                assert high == pytest.approx(block[:, site].max(), rel=1e-5)
                assert mean == pytest.approx(block[:, site].mean(), rel=1e-5)
            assert low <= block[:, site].min() * (1 - 1e-5)
