"""Tells in what surroundings a run is made: versions, platform, commit, command line.

Never reads environment variables, never imports torch, and blots out what looks like a secret.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

_PACKAGES = ("gradscope", "torch", "torchvision", "numpy", "pyarrow")
_SECRET = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|"
    r"credential|auth|bearer|cookie|session[-_]?id)s?$",
    re.IGNORECASE,
)
_LOOKS_SECRET = re.compile(
    r"(sk-|ghp_|gho_|github_pat_|glpat-|hf_|xox[abp]-|AKIA|eyJ)[\w.\-]{12,}|[0-9a-fA-F]{32,}"
)
_URL_SECRET = re.compile(r"(://[^/:@\s]*):[^/@\s]+@")
_BLOT = "***"


def environment() -> dict[str, Any]:
    """Versions, platform, git commit and command line as plain JSON values."""
    return {
        "python": platform.python_version(),
        "packages": _versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 0,
        "git_commit": git_commit(Path.cwd()),
        "command_line": redacted(sys.argv),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def redacted(words: list[str]) -> list[str]:
    """A command line whose secrets-looking values are replaced by `***`."""
    shown: list[str] = []
    hide = False
    for word in words[:1000]:
        name, equals, _ = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append(_BLOT)
            hide = False
            continue
        secret = bool(_SECRET.search(name.lstrip("-")))
        if equals and secret:
            shown.append(f"{name}={_BLOT}")
        else:
            hide = secret and word.startswith("-")
            shown.append(_LOOKS_SECRET.sub(_BLOT, _URL_SECRET.sub(rf"\1:{_BLOT}@", word))[:1000])
    return shown


def git_commit(folder: Path) -> str:
    """The commit checked out in the repository around `folder`, "" if there is none."""
    for place in (folder, *folder.parents):
        git = place / ".git"
        try:
            if git.is_file():
                git = place / _line(git).removeprefix("gitdir: ")
            elif not git.is_dir():
                continue
            return _resolved(git)
        except OSError:
            return ""
    return ""


def _resolved(git: Path) -> str:
    head = _line(git / "HEAD")
    if not head.startswith("ref: "):
        return head if re.fullmatch(r"[0-9a-f]{40,64}", head) else ""
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    shared = git / _line(common) if common.is_file() else git
    for store in (git, shared):
        loose = store / name
        if loose.is_file():
            return _line(loose)[:64]
    packed = shared / "packed-refs"
    if packed.is_file():
        with open(packed, encoding="utf-8", errors="replace") as file:
            for line in file:
                commit, _, found = line.strip().partition(" ")
                if found == name:
                    return commit[:64]
    return ""


def _line(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline(4096).strip()
