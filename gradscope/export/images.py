"""Turns figures into PNG, SVG and PDF bytes with one start of a browser.

Must never know runs, tables or which figure it renders.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import kaleido
import plotly.graph_objects as go
from choreographer.errors import BrowserFailedError, ChromeNotFoundError

from gradscope.schema import GradScopeError

IMAGE_FORMATS = ("png", "svg", "pdf")
PNG_SCALE = {"paper": 4.0, "screen": 2.0, "dark": 2.0}
"""Pixels of the file per px of the figure: 4 makes 384 dots per inch."""
DEFAULT_WIDTH = 960
REMEDY = (
    "install Chromium or Chrome (on Debian or Ubuntu: apt install chromium), "
    "or ask for html and csv only"
)


@dataclass(frozen=True)
class Image:
    """A figure to be rendered into a format of `IMAGE_FORMATS`."""

    figure: go.Figure
    format: str
    scale: float = 2.0


def render(images: Sequence[Image], *, timeout: float = 90) -> list[bytes]:
    """The files' contents, in order, all from one browser start (about two seconds).

    Raises GradScopeError in one sentence when there is no browser or it does not start.
    """
    if not images:
        return []
    with TemporaryDirectory(prefix="gradscope-export-") as folder:
        paths = [Path(folder) / f"{i}.{image.format}" for i, image in enumerate(images)]
        jobs = [_job(image, path) for image, path in zip(images, paths, strict=True)]
        try:
            kaleido.write_fig_from_object_sync(
                jobs, kopts={"timeout": timeout}, cancel_on_error=True
            )
        except ChromeNotFoundError:
            raise GradScopeError(f"images need a browser and none was found: {REMEDY}") from None
        except (TimeoutError, BrowserFailedError, OSError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise GradScopeError(
                f"the browser that draws images failed ({reason}): {REMEDY}"
            ) from None
        missing = [path for path in paths if not path.is_file() or not path.stat().st_size]
        if missing:
            kind = missing[0].suffix.lstrip(".")
            raise GradScopeError(f"the browser drew no {kind} file: {REMEDY}")
        return [path.read_bytes() for path in paths]


def browser_found() -> bool:
    """Whether a Chromium or Chrome is on the search path."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return any(shutil.which(name) for name in names)


def _job(image: Image, path: Path) -> dict[str, object]:
    layout = image.figure.layout
    size = {"width": layout.width or DEFAULT_WIDTH, "height": layout.height or 480}
    scale = image.scale if image.format == "png" else 1
    opts = {"format": image.format, "scale": scale, **size}
    return {"fig": image.figure.to_dict(), "path": path, "opts": opts}
