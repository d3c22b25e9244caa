"""Rows of a step -> one of several formats, and back: what `formats.py` compares.

Each is written the way its own documentation advises, one commit a batch, which must outlive
kill -9; what outlives a power cut is each format's own default in that mode.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from synthetic import NAMES, SITES, statistics_of

from gradscope.schema import RunInfo
from gradscope.store import RunWriter, open_run
from gradscope.store.backlog import Entry
from gradscope.store.columns import taken_in
from gradscope.store.deposit import Deposit
from gradscope.store.precision import rounded

Rows = dict[str, np.ndarray[Any, Any]]
Read = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Writer(Protocol):
    """An open file of a format."""

    def commit(self, rows: Rows) -> None:
        """Make these rows of whole steps durable."""

    def tidy(self) -> None:
        """Further work on what is committed, for which no reader waits."""

    def close(self) -> None:
        """End the file properly."""


@dataclass(frozen=True)
class Format:
    """A candidate. `needs` is the module it needs.

    `statistic` gives steps and values of one statistic, `newest` the step of every row of the
    newest steps, all statistics read; both open the file anew.
    """

    name: str
    title: str
    needs: str
    writer: Callable[[Path], Writer]
    statistic: Callable[[Path, str], Read]
    newest: Callable[[Path, int], np.ndarray[Any, Any]]


def rows_of(steps: Sequence[int]) -> Rows:
    """Rounded random statistics of all sites at those steps, always the same ones."""
    draw = np.random.default_rng(steps[0])
    rows = statistics_of(np.asarray(steps, dtype=np.int64), draw)
    typed = {"step": rows["step"].astype(np.int64), "site": rows["site"].astype(np.int32)}
    return typed | {name: rounded(rows[name]) for name in NAMES}


class Untidied:
    """A writer that leaves its file as the commits made it."""

    def tidy(self) -> None:
        pass


class Parts:
    """Parquet parts of a run folder, without the thread that usually writes them."""

    def __init__(self, path: Path) -> None:
        self._run = RunWriter(path, "run", RunInfo("net"))
        self._deposit = Deposit(self._run.path, 0)

    def commit(self, rows: Rows) -> None:
        columns, size = taken_in("outputs", rows)
        self._deposit.store([Entry("outputs", 0, int(rows["step"][-1]), size, columns)])

    def tidy(self) -> None:
        while self._deposit.tidy(lambda: None):
            pass

    def close(self) -> None:
        while self._deposit.tidy(lambda: None, final=True):
            pass
        self._run.close()


def parts_statistic(path: Path, name: str) -> Read:
    rows = open_run(path / "run").read("outputs", ["step", "site", name])
    return rows["step"], rows[name]


def parts_newest(path: Path, n: int) -> np.ndarray[Any, Any]:
    return open_run(path / "run").last_steps("outputs", n, ["step", *NAMES])["step"]


SCHEMA = pa.schema(
    [("step", pa.int64()), ("site", pa.int32()), *((n, pa.float32()) for n in NAMES)]
)


class Stream(Untidied):
    """One Arrow IPC stream, a record batch a commit, zstd buffers."""

    def __init__(self, path: Path) -> None:
        self._file: Any = open(path / "rows.arrows", "wb")  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writer = pa.ipc.new_stream(self._file, SCHEMA, options=options)

    def commit(self, rows: Rows) -> None:
        self._writer.write_batch(pa.RecordBatch.from_pydict(rows, schema=SCHEMA))
        self._file.flush()

    def close(self) -> None:
        self._writer.close()
        self._file.close()


def stream_batches(path: Path, names: Sequence[str]) -> list[Any]:
    """The whole batches of a stream; what a killed writer left half is passed over."""
    fields = [SCHEMA.get_field_index(name) for name in names]
    found = []
    with pa.memory_map(str(path / "rows.arrows")) as source:
        reader = pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        while True:
            try:
                found.append(reader.read_next_batch())
            except StopIteration:
                return found
            except (pa.ArrowInvalid, OSError):  # the last one is not whole
                return found


def stream_statistic(path: Path, name: str) -> Read:
    table = pa.Table.from_batches(stream_batches(path, ["step", name]))
    return table["step"].to_numpy(), table[name].to_numpy()


def stream_newest(path: Path, n: int) -> np.ndarray[Any, Any]:
    table = pa.Table.from_batches(stream_batches(path, SCHEMA.names)[-n:])
    steps = table["step"].to_numpy()
    wanted = steps >= np.unique(steps)[-n]
    assert all(len(table[name].to_numpy()[wanted]) for name in NAMES)
    return steps[wanted]


class SqliteRows(Untidied):
    """A SQLite table with one row a site and step, keyed by both."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path / "run.sqlite")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            f"CREATE TABLE rows (step INTEGER, site INTEGER, {' REAL, '.join(NAMES)} REAL, "
            "PRIMARY KEY (step, site)) WITHOUT ROWID"
        )
        self._database.commit()

    def commit(self, rows: Rows) -> None:
        marks = ", ".join("?" * len(rows))
        columns = [values.tolist() for values in rows.values()]
        self._database.executemany(f"INSERT INTO rows VALUES ({marks})", zip(*columns, strict=True))
        self._database.commit()

    def close(self) -> None:
        self._database.close()


def asked(path: Path, query: str) -> list[Any]:
    database = sqlite3.connect(f"file:{path / 'run.sqlite'}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def rows_statistic(path: Path, name: str) -> Read:
    found = np.array(asked(path, f"SELECT step, {name} FROM rows")).reshape(-1, 2)
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.float32)


def rows_newest(path: Path, n: int) -> np.ndarray[Any, Any]:
    newest = f"SELECT DISTINCT step FROM rows ORDER BY step DESC LIMIT {n}"
    found = asked(path, f"SELECT * FROM rows WHERE step IN ({newest})")
    return np.array([row[0] for row in found])


class SqliteBlobs(Untidied):
    """A SQLite table with one row a step, each statistic a blob of all sites."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path / "run.sqlite")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        columns = " BLOB, ".join(NAMES)
        self._database.execute(f"CREATE TABLE rows (step INTEGER PRIMARY KEY, {columns} BLOB)")
        self._database.commit()

    def commit(self, rows: Rows) -> None:
        steps = rows["step"][::SITES].tolist()
        tables = [rows[name].reshape(-1, SITES) for name in NAMES]
        values = [(s, *(t[i].tobytes() for t in tables)) for i, s in enumerate(steps)]
        marks = ", ".join("?" * (1 + len(NAMES)))
        self._database.executemany(f"INSERT INTO rows VALUES ({marks})", values)
        self._database.commit()

    def close(self) -> None:
        self._database.close()


def blobs_statistic(path: Path, name: str) -> Read:
    found = asked(path, f"SELECT step, {name} FROM rows ORDER BY step")
    values = np.frombuffer(b"".join(blob for _, blob in found), np.float32)
    return np.repeat(np.array([step for step, _ in found]), SITES), values


def blobs_newest(path: Path, n: int) -> np.ndarray[Any, Any]:
    found = asked(path, f"SELECT * FROM rows ORDER BY step DESC LIMIT {n}")
    read = [np.frombuffer(b"".join(row[1:]), np.float32) for row in found]
    return np.repeat([row[0] for row in found], [len(r) // len(NAMES) for r in read])


class Duck(Untidied):
    """A DuckDB table, one transaction a commit."""

    def __init__(self, path: Path) -> None:
        self._database: Any = importlib.import_module("duckdb").connect(str(path / "run.duckdb"))
        columns = ", ".join(f"{name} FLOAT" for name in NAMES)
        self._database.execute(f"CREATE TABLE rows (step BIGINT, site INTEGER, {columns})")

    def commit(self, rows: Rows) -> None:
        self._database.register("fresh", pa.Table.from_pydict(rows, schema=SCHEMA))
        self._database.execute("INSERT INTO rows SELECT * FROM fresh")
        self._database.unregister("fresh")

    def close(self) -> None:
        self._database.close()


def duck_asked(path: Path, query: str) -> dict[str, Any]:
    duckdb = importlib.import_module("duckdb")
    with duckdb.connect(str(path / "run.duckdb"), read_only=True) as database:
        found: dict[str, Any] = database.execute(query).fetchnumpy()
        return found


def duck_statistic(path: Path, name: str) -> Read:
    found = duck_asked(path, f"SELECT step, {name} FROM rows")
    return np.asarray(found["step"]), np.asarray(found[name])


def duck_newest(path: Path, n: int) -> np.ndarray[Any, Any]:
    newest = f"SELECT DISTINCT step FROM rows ORDER BY step DESC LIMIT {n}"
    found = duck_asked(path, f"SELECT * FROM rows WHERE step IN ({newest})")
    return np.asarray(found["step"])


FORMATS = (
    Format("parts", "Parquet parts", "pyarrow", Parts, parts_statistic, parts_newest),
    Format("stream", "Arrow IPC stream", "pyarrow", Stream, stream_statistic, stream_newest),
    Format("rows", "SQLite WAL, rows", "sqlite3", SqliteRows, rows_statistic, rows_newest),
    Format("blobs", "SQLite WAL, blobs", "sqlite3", SqliteBlobs, blobs_statistic, blobs_newest),
    Format("duckdb", "DuckDB", "duckdb", Duck, duck_statistic, duck_newest),
)
