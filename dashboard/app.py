"""Turns a folder of runs into the Dash application, and serves it.

Must never know what a page draws, nor torch.
"""

from __future__ import annotations

import logging
import socket
import threading
import webbrowser
from pathlib import Path
from types import ModuleType
from typing import Any

import dash
from dash import Dash
from dash.dependencies import Input, Output
from gradscope_dashboard import drawer, exports, ids, shell
from gradscope_dashboard.catalog import Catalog
from gradscope_dashboard.pages import ablation, compare, findings, flow, missing, overview
from werkzeug.serving import make_server

from gradscope.schema import GradScopeError

PAGES: tuple[ModuleType, ...] = (overview, flow, compare, ablation, findings)
"""The pages in the order of the rail; each has PATH, TITLE, ICON, layout and connect."""

PORTS_TRIED = 20
ASSETS = Path(__file__).parent / "assets"
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{%title%}</title>
{%favicon%}
{%css%}
<script>
(function () {
  var asked = new URLSearchParams(location.search).get("theme");
  var kept = null;
  try { kept = localStorage.getItem("gradscope-theme"); } catch (refused) { kept = null; }
  var dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = asked || kept || (dark ? "dark" : "light");
})();
</script>
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>"""


def create_app(root: str | Path) -> Dash:
    """The dashboard over the runs below `root`, not served yet. The folder may not exist yet."""
    catalog = Catalog(root)
    app = Dash(
        "gradscope_dashboard",
        title="GradScope",
        update_title="",
        assets_folder=str(ASSETS),
        serve_locally=True,
        suppress_callback_exceptions=True,
        index_string=INDEX,
        on_error=report,
    )
    app.layout = lambda: shell.layout(PAGES, catalog, drawer.layout())
    shell.connect(app, catalog, PAGES)
    drawer.connect(app, catalog)
    exports.connect(app, catalog)
    route(app, catalog)
    for page in PAGES:
        page.connect(app, catalog)
    return app


def route(app: Dash, catalog: Catalog) -> None:
    """The router: the address's path decides which page's layout stands in the frame."""
    by_path = {page.PATH: page for page in PAGES}

    @app.callback(Output(ids.BODY, "children"), Input(ids.URL, "pathname"))
    def show_page(path: str | None) -> Any:
        page = by_path.get(path or "/")
        return missing.layout(path or "/", PAGES) if page is None else page.layout(catalog)


def report(error: Exception) -> None:
    """Shows what went wrong in one sentence and leaves the page as it is."""
    if isinstance(error, GradScopeError):
        sentence = str(error)
    else:
        logging.getLogger("gradscope.dashboard").error("a view failed", exc_info=error)
        sentence = f"This view could not be drawn ({type(error).__name__}: {error})."
    dash.set_props(ids.TOAST, {"children": sentence})


def serve(
    root: str | Path,
    host: str = "127.0.0.1",
    port: int = 8050,
    open_browser: bool = True,
) -> None:
    """Serves the dashboard until interrupted and prints its address.

    Takes the next free port where `port` is in use, and says so. Raises GradScopeError when none
    of the next ones is free or `host` is not an address of this machine.
    """
    free = free_port(host, port)
    app = create_app(root)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server(host, free, app.server, threaded=True)
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{free}/"
    if free != port:
        print(f"Port {port} is in use; taking {free} instead.")
    print(f"GradScope dashboard of {Path(root)}: {address}  (Ctrl-C ends it)", flush=True)
    if open_browser:
        opener = threading.Timer(0.8, lambda: webbrowser.open(address))
        opener.daemon = True
        opener.start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("Dashboard ended.")
    finally:
        server.server_close()


def free_port(host: str, port: int) -> int:
    """The first port from `port` on that can be bound; 0 asks the system for any."""
    refusal: OSError | None = None
    for candidate in range(port, port + (1 if port == 0 else PORTS_TRIED)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                refusal = error
                continue
            return int(probe.getsockname()[1])
    raise GradScopeError(
        f"no free port between {port} and {port + PORTS_TRIED - 1} on {host} ({refusal}); "
        "name another with --port, or another --host"
    )
