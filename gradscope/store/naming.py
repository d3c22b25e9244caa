"""Turns a wished run name into a safe folder name, or says why it cannot be one.

Never touches files but for listing the names already taken.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from gradscope.schema import GradScopeError

MAX_NAME = 120
_ALLOWED = re.compile(r"[\w][\w .+=@#,()\[\]-]*", re.UNICODE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def check_name(name: str) -> str:
    """Return `name` if it can be a run's folder name on every system, else raise.

    Letters, digits and `_ . - + = @ # , ( ) [ ]` and inner blanks are allowed, at most 120
    characters (200 bytes of UTF-8). Raises GradScopeError otherwise.
    """
    why = _objection(name)
    if why:
        raise GradScopeError(
            f"The run name {name[:60]!r} {why}: choose letters, digits, '_', '-' and '.', "
            f"at most {MAX_NAME} characters."
        )
    return name


def _objection(name: str) -> str:
    if not isinstance(name, str) or not name:
        return "is empty"
    if len(name) > MAX_NAME or len(name.encode("utf-8", "replace")) > 200:
        return "is too long"
    if "/" in name or "\\" in name:
        return "holds a path separator"
    if name[0] == ".":
        return "begins with a dot and would be hidden"
    if name[0] == "-":
        return "begins with a dash and would read as an option"
    if name[-1] in ". ":
        return "ends with a dot or a blank"
    if not _ALLOWED.fullmatch(name):
        return "holds a character that some file system refuses"
    if _RESERVED.fullmatch(name):
        return "is reserved by Windows"
    return ""


def check_free(root: Path, name: str) -> None:
    """Raise GradScopeError if `root` holds `name`, or a name that differs only by case."""
    for taken in _names(root):
        if taken == name:
            raise GradScopeError(
                f"A run named {name!r} already exists in {root}: choose another name, "
                "or pass resume=True to continue it."
            )
        if taken.casefold() == name.casefold():
            raise GradScopeError(
                f"The run name {name!r} differs only by case from {taken!r} in {root}: "
                "choose a name that is different on every file system."
            )


def near_names(name: str, names: list[str]) -> str:
    """A sentence part that lists the names most like `name`, or how many there are."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(repr(n) for n in near) + "?"
    if names:
        shown = ", ".join(repr(n) for n in sorted(names)[:5])
        return f"it holds {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return "it holds no runs"


def _names(root: Path) -> list[str]:
    try:
        return os.listdir(root)
    except OSError:
        return []
