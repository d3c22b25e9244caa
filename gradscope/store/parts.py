"""Turns columns into one immutable Parquet part and back, checking all that it reads.

Never knows runs, threads or resumes; a part is a table's rows of one stretch of writing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradscope.schema import TABLES
from gradscope.store.disk import make_durable, replace
from gradscope.store.documents import damaged
from gradscope.store.precision import rounded
from gradscope.store.values import MAX_PART_ROWS, Columns

GROUP_ROWS = 65_536
"""Rows of a row group, unless one step alone has more."""

BOUNDS_KEY = "gradscope.steps"
"""Key of a part's metadata: the first and last step of each row group."""

_NAME = re.compile(r"(\d{10})-(\d{10})\.(\d{1,19})-(\d{1,19})\.parquet")
_TYPES = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "str": pa.string(),
}
_LIMITS = {"thrift_string_size_limit": 2**22, "thrift_container_size_limit": 2**18}


@dataclass(frozen=True, order=True)
class Part:
    """What a part's file name says: the flushes it holds and the steps they span."""

    first_seq: int
    last_seq: int
    first_step: int
    last_step: int

    @property
    def file(self) -> str:
        return (
            f"{self.first_seq:010d}-{self.last_seq:010d}.{self.first_step}-{self.last_step}.parquet"
        )


def part_of(name: str) -> Part | None:
    """The part a file name stands for, or None if it is no part's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    part = Part(*(int(number) for number in match.groups()))
    sound = part.first_seq <= part.last_seq and part.first_step <= part.last_step < 2**63
    return part if sound else None


def live_parts(names: Iterable[str]) -> tuple[list[Part], list[Part]]:
    """The parts to read, in order of writing, and those that a larger one has replaced."""
    found = sorted(
        (part for part in map(part_of, names) if part is not None),
        key=lambda part: (part.first_seq, -part.last_seq, part.first_step, part.last_step),
    )
    live: list[Part] = []
    replaced: list[Part] = []
    for part in found:
        inside = bool(live) and part.last_seq <= live[-1].last_seq
        (replaced if inside else live).append(part)
    return live, replaced


def key_columns(table: str) -> list[str]:
    """The columns of `table` that tell apart the rows of one step, outermost first."""
    return [
        column.name
        for column in TABLES[table].columns
        if column.name != "step" and (column.dtype == "int32" or column.name == "name")
    ]


def rows_of(columns: Columns) -> int:
    """How many rows `columns` has."""
    return len(columns["step"]) if "step" in columns else 0


def taken(columns: Columns, index: Any) -> Columns:
    """The rows of `columns` that `index` (a slice, mask or index array) selects."""
    return {name: values[index] for name, values in columns.items()}


def joined(pieces: Sequence[Columns]) -> Columns:
    """The rows of `pieces`, which have the same columns, one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def step_order(steps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A stable order that sorts `steps`; quick where they span fewer than 65,536."""
    low = int(steps.min())
    span = int(steps.max()) - low
    small = (steps - low).astype(np.uint16) if span < 2**16 else steps
    order: np.ndarray[Any, Any] = np.argsort(small, kind="stable")
    return order


def grouped(columns: Columns) -> Iterator[Columns]:
    """Rows cut into row groups of about GROUP_ROWS at the borders of steps, in step order."""
    steps = columns["step"]
    if np.any(steps[1:] < steps[:-1]):
        columns = taken(columns, step_order(steps))
        steps = columns["step"]
    start = 0
    while start < len(steps):
        end = start + GROUP_ROWS
        if end < len(steps):
            border = int(np.searchsorted(steps, steps[end], side="left"))
            if border <= start:
                border = int(np.searchsorted(steps, steps[start], side="right"))
            end = border
        yield taken(columns, slice(start, end))
        start = end


def codes_of(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integers that tell apart the values of a key column."""
    if values.dtype.kind != "O":
        return values
    seen: dict[str, int] = {}
    return np.fromiter((seen.setdefault(v, len(seen)) for v in values), np.int64, len(values))


def _arrow(values: np.ndarray[Any, Any], dtype: str) -> Any:
    """An Arrow array made of plain buffers, as `pyarrow.array` would import pandas."""
    rows = len(values)
    if dtype != "str":
        plain = np.ascontiguousarray(values, dtype=dtype)
        return pa.Array.from_buffers(_TYPES[dtype], rows, [None, pa.py_buffer(plain)])
    words = [word.encode("utf-8", "replace") for word in values]
    ends = np.cumsum([0, *map(len, words)], dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(words))]
    return pa.Array.from_buffers(pa.string(), rows, buffers)


def key_order(table: str, columns: Columns) -> np.ndarray[Any, Any]:
    """The order in which a row group is stored: by key columns, then by step."""
    keys = [codes_of(columns[name]) for name in key_columns(table)]
    order: np.ndarray[Any, Any] = np.lexsort([columns["step"], *reversed(keys)])
    return order


class PartWriter:
    """Writes one part, row group by row group, under a hidden name until `finish`.

    The file appears whole under its own name or not at all.
    """

    def __init__(self, folder: Path, part: Part, fields: dict[str, str]) -> None:
        self._target = folder / part.file
        self._hidden = folder / f".{part.file}.{os.getpid()}.tmp"
        self._fields = fields
        self._sink: Any = open(self._hidden, "wb")  # noqa: SIM115
        self._writer: Any = None
        self._bounds: list[tuple[int, int]] = []
        try:
            self._writer = self._open()
        except BaseException:
            self.abandon()
            raise

    def _open(self) -> Any:
        names = self._fields
        schema = pa.schema([pa.field(n, _TYPES[t], nullable=False) for n, t in names.items()])
        floats = [n for n, t in names.items() if t.startswith("float")]
        packed = [n for n, t in names.items() if t == "int64" and n != "step"]
        encodings = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
        encodings |= dict.fromkeys(packed, "DELTA_BINARY_PACKED")
        return pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            compression_level=3,
            # the default, 20,000, lets two byte streams share one zstd block: 4 % more bytes
            max_rows_per_page=GROUP_ROWS,
            use_dictionary=[n for n in names if n not in encodings],
            column_encoding=encodings,
            write_statistics=["step"],
            store_schema=False,
            write_page_checksum=True,
        )

    def add(self, columns: Columns) -> None:
        """Write `columns` as one row group."""
        steps = columns["step"]
        self._bounds.append((int(steps.min()), int(steps.max())) if len(steps) else (0, 0))
        arrays = [_arrow(columns[n], t) for n, t in self._fields.items()]
        block = pa.Table.from_arrays(arrays, schema=self._writer.schema)
        self._writer.write_table(block, row_group_size=max(block.num_rows, 1))

    def finish(self, meanwhile: Callable[[], None] | None = None) -> int:
        """Close the part and give it its name; returns its size in bytes.

        With `meanwhile` it is made to outlive a power cut first, which can take long: `meanwhile`
        is called until then. Without, it outlives the end of this process.
        """
        self._writer.add_key_value_metadata({BOUNDS_KEY: _bounds_to_text(self._bounds)})
        self._writer.close()
        self._sink.flush()
        if meanwhile is not None:
            make_durable(self._sink.fileno(), meanwhile)
        size = int(self._sink.tell())
        self._sink.close()
        replace(self._hidden, self._target)
        return size

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.is_open = False  # else it complains on stderr when it is collected
        with contextlib.suppress(OSError):
            self._sink.close()
        with contextlib.suppress(OSError):
            self._hidden.unlink(missing_ok=True)


def fields_of(table: str) -> dict[str, str]:
    """Column names and dtypes of a stored table."""
    return {column.name: column.dtype for column in TABLES[table].columns}


def prepared(table: str, columns: Columns) -> Columns:
    """One row group as it is stored: sorted by keys then step, float32 rounded."""
    return kept(taken(columns, key_order(table, columns)))


def kept(columns: Columns) -> Columns:
    """Columns at the precision that is stored: float32 rounded, but for counts."""
    return {
        name: rounded(values) if values.dtype == np.float32 and "nonfinite" not in name else values
        for name, values in columns.items()
    }


def write_part(folder: Path, part: Part, table: str, columns: Columns) -> int:
    """Write rows in any order as one part; returns its size in bytes. Raises OSError."""
    writer = PartWriter(folder, part, fields_of(table))
    try:
        for group in grouped(columns):
            writer.add(prepared(table, group))
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


class PartReader:
    """One opened part. Every trouble with its bytes becomes a GradScopeError naming `where`.

    Raises FileNotFoundError if it is not there.
    """

    def __init__(self, source: Any, where: Path | str, fields: dict[str, str]) -> None:
        self._where = where
        self._fields = fields
        try:
            self._file: Any = pq.ParquetFile(
                source,
                page_checksum_verification=True,
                read_dictionary=[n for n, t in fields.items() if t == "str"],
                **_LIMITS,
            )
            self._check()
        except FileNotFoundError:  # merged away a moment ago: the caller lists the folder again
            raise
        except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError) as trouble:
            raise damaged(where, _short(trouble)) from None

    def _check(self) -> None:
        facts = self._file.metadata
        if facts.num_rows > MAX_PART_ROWS or facts.num_row_groups > 2**16:
            raise ValueError(f"it claims {facts.num_rows:,} rows")
        claimed = 0
        schema = self._file.schema_arrow
        for name, dtype in self._fields.items():
            kind = schema.field(name).type
            value = kind.value_type if pa.types.is_dictionary(kind) else kind
            if value != _TYPES[dtype]:
                raise ValueError(f"column {name} has type {value}, not {dtype}")
        for group in range(facts.num_row_groups):
            rows = facts.row_group(group).num_rows
            if rows < 0:
                raise ValueError("a row group has a negative length")
            claimed += rows
        if claimed != facts.num_rows:
            raise ValueError("its row groups do not add up")
        said = (facts.metadata or {}).get(BOUNDS_KEY.encode())
        every = [(0, 2**63 - 1)] * facts.num_row_groups
        self._bounds = every if said is None else _bounds_from_text(said, len(every))

    def groups(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """(row group, its first step, its last step) for groups with steps in [first, last]."""
        return [
            (group, low, high)
            for group, (low, high) in enumerate(self._bounds)
            if low <= last and high >= first
        ]

    def read(self, groups: Sequence[int], names: Sequence[str]) -> list[Columns]:
        """The named columns of those row groups, one Columns each, rows as stored."""
        if not groups:
            return []
        try:
            block = self._file.read_row_groups(list(groups), columns=list(names))
            whole = {name: _plain(block.column(name), self._fields[name]) for name in names}
            sizes = [self._file.metadata.row_group(group).num_rows for group in groups]
        except (pa.ArrowException, OSError, ValueError, MemoryError, LookupError) as trouble:
            raise damaged(self._where, _short(trouble)) from None
        ends = np.cumsum([0, *sizes])
        if any(len(values) != ends[-1] for values in whole.values()):
            raise damaged(self._where, "its columns differ in length")
        return [taken(whole, slice(int(a), int(b))) for a, b in itertools.pairwise(ends)]


def _plain(column: Any, dtype: str) -> np.ndarray[Any, Any]:
    if column.null_count:
        raise ValueError("a column holds nulls")
    pieces = []
    for chunk in column.chunks:  # not `to_numpy`, which would import pandas
        if dtype != "str":
            pieces.append(_viewed(chunk, np.dtype(dtype)))
            continue
        words = np.array([str(word) for word in chunk.dictionary], dtype=object)
        index = _viewed(chunk.indices, np.dtype(np.int32))
        pieces.append(words[index] if len(index) else np.empty(0, object))
    if not pieces:
        return np.empty(0, object if dtype == "str" else dtype)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _viewed(chunk: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The numbers of an Arrow array without nulls, not copied."""
    if not len(chunk):
        return np.empty(0, dtype)
    return np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)


def _bounds_to_text(bounds: Sequence[tuple[int, int]]) -> str:
    """Steps of each row group behind their CRC; pyarrow aborts on damaged Parquet statistics."""
    told = " ".join(f"{low}-{high}" for low, high in bounds)
    return f"{zlib.crc32(told.encode()):08x} {told}"


def _bounds_from_text(said: bytes, groups: int) -> list[tuple[int, int]]:
    if said[:9] != b"%08x " % zlib.crc32(said[9:]):
        raise ValueError("the steps of its row groups are damaged")
    bounds = []
    for pair in said[9:].decode("ascii").split():
        low, _, high = pair.partition("-")
        bounds.append((int(low), int(high)))
    if len(bounds) != groups:
        raise ValueError("the steps of its row groups are missing")
    return bounds


def _short(trouble: BaseException) -> str:
    return " ".join(str(trouble).split())[:160] or type(trouble).__name__
