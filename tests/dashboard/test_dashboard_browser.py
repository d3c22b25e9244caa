"""A real browser clicks through every page on small runs; any console error fails."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gradscope_dashboard import create_app
from werkzeug.serving import make_server

from gradscope.schema import RunInfo, Site
from gradscope.store import RunWriter

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
LAYERS = [f"stage{1 + i // 4}.{i % 4}.conv" for i in range(12)]


def grow(writer: RunWriter, steps: range, fall: float) -> None:
    """Rows of those steps: a gradient that falls towards the input."""
    site = np.arange(len(LAYERS))
    for step in steps:
        size = 10.0 ** (-fall * (1 - site / 11)) * (1 + 0.1 * np.sin(step))
        key = {"step": np.full(len(site), step), "site": site}
        writer.append("outputs", {**key, "grad_rms": size, "grad_norm": size * 9, "rms": size + 1})
        scalar = {"step": np.array([step]), "value": np.array([2.0 / (1 + step)])}
        writer.append(
            "scalars",
            {**scalar, "name": np.array(["loss"], dtype=object), "time": np.array([1.0 * step])},
        )
    writer.flush()


def begin(root: Path, name: str, family: str) -> RunWriter:
    writer = RunWriter(root, name, RunInfo(model=name, config={"family": family}, family=family))
    writer.set_sites(
        [
            Site(n, "output", i, "Conv2d", (8, 4, 4, 4), 0, n.split(".")[0])
            for i, n in enumerate(LAYERS)
        ]
    )
    return writer


@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        with sync_api.sync_playwright() as play:
            own = play.chromium.executable_path
            found = own if Path(own).exists() else None
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium was found; install one (apt install chromium)")
        pytest.skip("no Chromium was found")
    return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    server = make_server("127.0.0.1", 0, create_app(tmp_path).server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(chromium: str) -> Iterator[object]:
    trouble: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        tab.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: trouble.append(str(e)))
        tab.on("response", lambda r: trouble.append(r.url) if r.status >= 400 else None)
        yield tab
        browser.close()
    assert not trouble


def shot(page: object, name: str) -> None:
    folder = os.environ.get("GRADSCOPE_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(700)  # type: ignore[attr-defined]
        page.screenshot(path=f"{folder}/{name}.png")  # type: ignore[attr-defined]


def test_every_page_theme_layer_and_back(page, served) -> None:
    address, root = served
    for name, fall in (("plain8", 3.0), ("residual8", 0.3)):
        writer = begin(root, name, name.rstrip("8"))
        grow(writer, range(12), fall)
        writer.close()
    page.goto(address + "/?theme=light")
    page.wait_for_selector(".run-row .run-name")
    shot(page, "overview")
    page.click("a.rail-link[title=Flow]")
    page.wait_for_selector("#flow-profile-panel.ready")
    page.wait_for_selector("#flow-heatmap-panel.ready .main-svg")
    area = page.locator("#flow-profile-panel .plot-area").bounding_box()
    drawn = page.locator("#flow-profile .main-svg >> nth=0").bounding_box()
    assert abs(area["y"] - drawn["y"]) < 4, "the plot stands beside its panel"
    assert abs(area["height"] - drawn["height"]) < 8, "the plot does not fill its panel"
    shot(page, "flow")
    page.click("#theme-switch")
    page.wait_for_selector("html[data-theme=dark]")
    shot(page, "flow-dark")
    page.click("details.more summary")
    page.click(".data-table a >> nth=2")
    page.wait_for_selector("#drawer.open .drawer-name")
    shot(page, "drawer")
    page.go_back()
    page.wait_for_selector("#drawer:not(.open)", state="attached")
    page.go_forward()
    page.wait_for_selector("#drawer.open")
    page.keyboard.press("Escape")
    page.wait_for_selector("#drawer:not(.open)", state="attached")
    for title, ready in (
        ("Compare", "#compare-difference-panel.ready"),
        ("Ablation", ".empty-state"),
        ("Findings", "#findings-list .panel"),
    ):
        page.click(f"a.rail-link[title={title}]")
        page.wait_for_selector(ready)
        shot(page, title.lower())
    assert page.inner_text("#toast") == ""


def test_a_growing_run_appears_by_itself(page, served) -> None:
    address, root = served
    page.goto(address + "/")
    page.wait_for_selector(".empty-state")
    shot(page, "empty")
    writer = begin(root, "growing", "plain")
    grow(writer, range(5), 1.0)
    page.wait_for_selector(".pulse", timeout=15000)
    page.goto(address + "/flow")
    page.wait_for_selector("#flow-profile-panel.ready")
    before = page.inner_text("#step-label")
    grow(writer, range(5, 9), 1.0)
    page.wait_for_function(
        "before => document.getElementById('step-label').innerText !== before",
        arg=before,
        timeout=15000,
    )
    shot(page, "live")
    writer.close()


def test_an_unknown_path_leads_back(page, served) -> None:
    page.goto(served[0] + "/nowhere")
    page.wait_for_selector(".not-found")
