"""Turns the values of a run into small JSON files and back, trusting nothing it reads.

Never follows a file larger than its limit, never evaluates anything, knows nothing of tables.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradscope.schema import FORMAT_VERSION, Finding, GradScopeError, RunInfo, Site
from gradscope.store.disk import replace
from gradscope.store.values import FAR_STEP, JSON, Segment

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BAD_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def plain(value: Any, depth: int = 0) -> JSON:
    """`value` as plain JSON: non-finite floats and unknown objects become text."""
    if value is None or isinstance(value, (bool, str)):
        return _BAD_TEXT.sub("\ufffd", value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth < 20:
        if isinstance(value, Mapping):
            return {str(k): plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(v, depth + 1) for v in value]
        item = getattr(value, "tolist", None)
        if callable(item) and getattr(value, "size", 10**9) <= 10_000:
            return plain(item(), depth + 1)
    return _BAD_TEXT.sub("\ufffd", str(value))[:1000]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by `value` in one step: a reader sees the old file or the new one."""
    data = json.dumps({"format_version": FORMAT_VERSION, **value}, allow_nan=False).encode()
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(hidden, "wb") as file:
        file.write(data)
    replace(hidden, path)


def read_limited(path: str, limit: int) -> bytes | None:
    """The bytes of a regular file of at most `limit` bytes, None if it is not there.

    Raises GradScopeError if it is no regular file or too large.
    """
    try:
        handle = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as trouble:
        raise damaged(path, trouble.strerror or str(trouble)) from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise damaged(path, "it is not a regular file")
        if facts.st_size > limit:
            raise damaged(path, f"it has {facts.st_size:,} bytes, more than {limit:,}")
        data = os.read(handle, facts.st_size)
        while len(data) < facts.st_size and (more := os.read(handle, facts.st_size - len(data))):
            data += more
        return data
    except OSError as trouble:
        raise damaged(path, trouble.strerror or str(trouble)) from None
    finally:
        os.close(handle)


def damaged(path: Path | str, why: str) -> GradScopeError:
    """The error for a file of a run that cannot be used, with the remedy."""
    name = str(path)
    if name.endswith(".parquet"):
        remedy = "move that file away to read the rest of the run"
    elif name.endswith(".zip"):
        remedy = "archive the run again or restore the file from a copy"
    elif name.endswith(("status.json", "findings.json", "user.json")):
        remedy = "delete that file to read the run without it"
    else:
        remedy = "restore it from a copy, or delete the run"
    return GradScopeError(f"{name} is damaged ({why}): {remedy}.")


def parse(data: bytes, path: Path | str) -> dict[str, Any]:
    """JSON object of a run's file; checks the format version. Raises GradScopeError."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as trouble:
        raise damaged(path, f"not JSON: {str(trouble)[:80]}") from None
    if not isinstance(value, dict):
        raise damaged(path, "not a JSON object")
    version = value.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise damaged(path, "it carries no format version")
    if version > FORMAT_VERSION:
        raise GradScopeError(
            f"{path} has run format {version}, this GradScope reads up to {FORMAT_VERSION}: "
            "install a newer GradScope to open it."
        )
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"the number {text} is not allowed")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def text(value: Any, limit: int = 100_000) -> str:
    """`value` as harmless text: control and direction characters replaced, cut at `limit`."""
    return _BAD_TEXT.sub("\ufffd", value[:limit]) if isinstance(value, str) else ""


def number(value: Any, default: float = 0.0) -> float:
    """`value` as a finite float, else `default`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return default
    try:
        result = float(value)
    except OverflowError:
        return default
    return result if math.isfinite(result) else default


def integer(value: Any, default: int = 0, low: int = -1, high: int = FAR_STEP) -> int:
    """`value` as an int within [low, high], else `default`."""
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return value if low <= value <= high else default


def texts(value: Any) -> tuple[str, ...]:
    """`value` as a tuple of harmless texts; what is not a text is left out."""
    if not isinstance(value, list):
        return ()
    return tuple(text(item) for item in value[:100_000] if isinstance(item, str))


def mapping(value: Any) -> dict[str, Any]:
    """`value` as a plain mapping, its texts made harmless."""
    cleaned = plain(value) if isinstance(value, dict) else {}
    return cleaned if isinstance(cleaned, dict) else {}


def info_to_json(info: RunInfo) -> dict[str, Any]:
    """A RunInfo as plain JSON."""
    return {
        "model": plain(info.model),
        "family": plain(info.family),
        "config": plain(info.config),
        "tags": [str(tag) for tag in info.tags],
        "environment": plain(info.environment),
    }


def info_from_json(value: Mapping[str, Any]) -> RunInfo:
    """A RunInfo from what `info_to_json` gave, whatever was done to it since."""
    return RunInfo(
        model=text(value.get("model")),
        config=mapping(value.get("config")),
        tags=texts(value.get("tags")),
        environment=mapping(value.get("environment")),
        family=text(value.get("family")),
    )


def segments_to_json(segments: Sequence[Segment]) -> list[JSON]:
    """Segments as plain JSON."""
    return [
        {
            "first_seq": s.first_seq,
            "resume_step": s.resume_step,
            "started": s.started,
            "rewound_to": s.rewound_to,
            "environment": plain(s.environment),
        }
        for s in segments
    ]


def segments_from_json(value: Any, path: Path | str) -> tuple[Segment, ...]:
    """Segments; raises GradScopeError where they are not usable, as rows hang on them."""
    if not isinstance(value, list) or not value or len(value) > 100_000:
        raise damaged(path, "its list of segments is missing")
    found = []
    for item in value:
        entry = item if isinstance(item, dict) else {}
        first = integer(entry.get("first_seq"), -1)
        resume = integer(entry.get("resume_step"), -1)
        if first < 0 or resume < 0:
            raise damaged(path, "a segment has no first_seq or resume_step")
        found.append(
            Segment(
                first,
                resume,
                number(entry.get("started")),
                integer(entry.get("rewound_to"), -1),
                mapping(entry.get("environment")),
            )
        )
    return tuple(found)


def sites_to_json(sites: Sequence[Site]) -> dict[str, Any]:
    """Sites as JSON, one list per field: short, and quick to read."""
    return {
        "name": [s.name for s in sites],
        "kind": [s.kind for s in sites],
        "depth": [int(s.depth) for s in sites],
        "module_type": [s.module_type for s in sites],
        "shape": [[int(n) for n in s.shape] for s in sites],
        "parameters": [int(s.parameters) for s in sites],
        "stage": [s.stage for s in sites],
    }


def sites_from_json(value: Mapping[str, Any], path: Path | str) -> tuple[Site, ...]:
    """Sites from what `sites_to_json` gave; raises GradScopeError if a column is not whole."""
    names = value.get("name")
    fields = ("kind", "depth", "module_type", "shape", "parameters", "stage")
    columns = [value.get(field) for field in fields]
    if not isinstance(names, list) or not all(
        isinstance(column, list) and len(column) == len(names) for column in columns
    ):
        raise damaged(path, "its columns differ in length")
    sites = []
    for name, kind, depth, module_type, shape, parameters, stage in zip(
        names, *(column for column in columns if isinstance(column, list)), strict=True
    ):
        sizes = shape if isinstance(shape, list) else []
        sites.append(
            Site(
                text(name, 2000),
                text(kind, 100),
                integer(depth, 0),
                text(module_type, 1000),
                tuple(integer(n, 0) for n in sizes[:64]),
                integer(parameters, 0),
                text(stage, 1000),
            )
        )
    return tuple(sites)


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """A Finding as plain JSON."""
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "site": finding.site,
        "first_step": int(finding.first_step),
        "last_step": int(finding.last_step),
        "sentence": plain(finding.sentence),
        "advice": plain(finding.advice),
        "confidence": float(finding.confidence),
        "evidence": plain(finding.evidence),
    }


def finding_from_json(value: Any) -> Finding:
    """A Finding from what `finding_to_json` gave."""
    entry = value if isinstance(value, dict) else {}
    return Finding(
        kind=text(entry.get("kind")),
        severity=text(entry.get("severity")),
        site=text(entry.get("site")),
        first_step=integer(entry.get("first_step"), -1),
        last_step=integer(entry.get("last_step"), -1),
        sentence=text(entry.get("sentence")),
        advice=text(entry.get("advice")),
        confidence=min(1.0, max(0.0, number(entry.get("confidence"), 0.0))),
        evidence=mapping(entry.get("evidence")),
    )
