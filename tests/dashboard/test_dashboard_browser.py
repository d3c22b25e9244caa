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

from gradscope.schema import Finding, RunInfo, Site
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
        tab.set_default_timeout(15000)
        tab.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: trouble.append(str(e)))
        tab.on("response", lambda r: trouble.append(r.url) if r.status >= 400 else None)
        yield tab
        browser.close()
    assert trouble == []


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
    page.click("#flow-table details summary")
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


def click_plot(page: object, graph: str, across: float, up: float) -> None:
    """A click at that share of the plot's area; the second try waits for the hover layer."""
    page.locator(f"#{graph}").scroll_into_view_if_needed()  # type: ignore[attr-defined]
    box = page.locator(f"#{graph} .nsewdrag >> nth=0").bounding_box()  # type: ignore[attr-defined]
    x, y = box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"]
    page.mouse.move(x - 3, y)  # type: ignore[attr-defined]
    page.mouse.move(x, y, steps=3)  # type: ignore[attr-defined]
    page.wait_for_timeout(250)  # type: ignore[attr-defined]
    page.mouse.click(x, y)  # type: ignore[attr-defined]


RANGES = """graph => {
  const full = document.querySelector(`#${graph} .js-plotly-plot`)._fullLayout;
  return [full.xaxis.range, full.yaxis.range].flat().map(end => Math.round(1e6 * end) / 1e6);
}"""


def wait_for_points(page: object, graph: str, count: int) -> None:
    page.wait_for_function(  # type: ignore[attr-defined]
        """([graph, count]) => document.querySelector(`#${graph} .js-plotly-plot`)
             ._fullData.some(trace => trace.x && trace.x.length === count)""",
        arg=[graph, count],
        timeout=20000,
    )


def test_zoom_stays_while_a_run_grows_until_it_is_reset(page, served) -> None:
    address, root = served
    writer = begin(root, "growing", "plain")
    grow(writer, range(6), 1.0)
    graph = "compare-training"
    page.goto(address + "/compare")
    page.wait_for_selector(f"#{graph}-panel.ready .nsewdrag", state="attached")
    wait_for_points(page, graph, 6)
    whole = page.evaluate(RANGES, graph)
    page.locator(f"#{graph}").scroll_into_view_if_needed()
    box = page.locator(f"#{graph} .nsewdrag >> nth=0").bounding_box()
    x, y, width, height = (box[side] for side in ("x", "y", "width", "height"))
    page.mouse.move(x + 0.3 * width, y + 0.3 * height)
    page.mouse.down()
    page.mouse.move(x + 0.6 * width, y + 0.6 * height, steps=5)
    page.mouse.up()
    page.wait_for_function(f"whole => ({RANGES})('{graph}')[0] > whole[0]", arg=whole)
    zoomed = page.evaluate(RANGES, graph)
    grow(writer, range(6, 10), 1.0)
    wait_for_points(page, graph, 10)
    assert page.evaluate(RANGES, graph) == zoomed
    page.mouse.dblclick(x + 0.5 * width, y + 0.5 * height)
    page.wait_for_function(f"zoomed => ({RANGES})('{graph}')[0] < zoomed[0]", arg=zoomed)
    grow(writer, range(10, 14), 1.0)
    wait_for_points(page, graph, 14)
    assert page.evaluate(RANGES, graph)[1] > 13
    writer.close()


def test_clicks_on_plots_and_keys(page, served) -> None:
    address, root = served
    for name in ("plain8", "residual8"):
        writer = begin(root, name, name.rstrip("8"))
        grow(writer, range(8), 2.0)
        writer.close()
    page.goto(address + "/?theme=light")
    page.wait_for_selector(".run-row .run-name")
    assert page.locator(".chip-star.current").count() == 0, "a baseline that nobody chose"
    page.click(".chip-star >> nth=1")
    page.wait_for_selector(".chip-star.current")
    page.keyboard.press("2")
    page.wait_for_selector("#flow-heatmap-panel.ready .nsewdrag", state="attached")
    click_plot(page, "flow-heatmap", 0.5, 0.5)
    page.wait_for_selector("#drawer.open .drawer-name")
    assert page.inner_text(".drawer-name") in LAYERS
    assert "step=" in page.url
    page.wait_for_selector("#drawer-histogram-panel.empty", state="attached")
    page.keyboard.press("Escape")
    page.wait_for_selector("#drawer:not(.open)", state="attached")
    page.keyboard.press("l")
    page.wait_for_function("!location.search.includes('step=')")
    page.wait_for_selector("#newest-step.current")
    page.keyboard.press("[")
    page.wait_for_function("location.search.includes('step=6')")
    page.keyboard.press("?")
    page.wait_for_selector("#shortcuts.open")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.wait_for_selector("html[data-theme=dark]")
    dot = page.locator("#flow-profile .scatterlayer .point >> nth=0").bounding_box()
    page.mouse.move(dot["x"] - 4, dot["y"])
    page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2, steps=3)
    page.wait_for_timeout(250)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#drawer.open .drawer-name")
    assert page.inner_text(".drawer-name") == LAYERS[0]
    page.wait_for_function("document.getElementById('flow-profile').offsetWidth < 900")


def test_lesions_findings_and_a_download(page, served) -> None:
    address, root = served
    writer = begin(root, "residual8", "residual")
    grow(writer, range(6), 1.0)
    units = [f"stage{1 + i // 2}.{i % 2}" for i in range(6)]
    for k in (1, 2, 3):
        amount = len(units)
        writer.append("ablations", lesions(units, k, np.linspace(0.4, 0.02, amount) * k))
    writer.set_findings(
        [
            Finding("vanishing", severity, LAYERS[at], 0, 5, f"It is {severity}.", "Do this.", 0.9)
            for at, severity in ((2, "warning"), (3, "critical"))
        ]
    )
    writer.close()
    page.goto(address + "/ablation")
    for name in ("ablation-bars", "ablation-curve", "pareto"):
        page.wait_for_selector(f"#ablation-graph-{name} .main-svg", state="attached")
    assert "stage1.0" in page.inner_text("#ablation-title")
    page.click(".panel >> nth=0 >> summary")
    with page.expect_download() as started:
        page.click(".panel >> nth=0 >> text=CSV")
    rows = Path(started.value.path()).read_text().splitlines()
    assert started.value.suggested_filename == "ablation-bars.csv"
    assert len(rows) == 1 + len(units)
    page.keyboard.press("5")
    page.wait_for_selector("#findings-list .finding")
    assert page.inner_text("#findings-title") == "1 critical finding and 1 warning in 1 run"
    assert "It is critical." in page.inner_text(".finding >> nth=0")
    page.click(".segment[title=warning]")
    page.wait_for_function("document.querySelectorAll('.finding').length === 1")
    page.click(".finding-meta a")
    page.wait_for_selector("#drawer.open .drawer-name")
    assert page.inner_text(".drawer-name") == LAYERS[2]


def lesions(units: list[str], k: int, harm: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of `k` units dropped at once: alone for k = 1, at random otherwise."""
    amount = len(units)
    many = [",".join(units[(i + j) % amount] for j in range(k)) for i in range(amount)]
    text = {"metric": "accuracy", "detail": "{}", "lesion": "drop" if k == 1 else "drop-k"}
    return {
        "step": np.full(amount, 5),
        "unit": np.array(many, dtype=object),
        **{key: np.full(amount, word, dtype=object) for key, word in text.items()},
        "value": 0.9 - harm,
        "baseline": np.full(amount, 0.9),
        "delta": -harm,
        "ci_low": -harm - 0.05,
        "ci_high": -harm + 0.05,
        **{key: np.full(amount, n * k) for key, n in (("samples", 100), ("k", 1))},
        **{key: np.full(amount, n * k) for key, n in (("parameters", 5000), ("macs", 10**6))},
    }


def test_an_unknown_path_leads_back(page, served) -> None:
    page.goto(served[0] + "/nowhere")
    page.wait_for_selector(".not-found")
