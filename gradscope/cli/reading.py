"""Commands that show runs: dashboard, export."""

from __future__ import annotations

import argparse

from gradscope.cli.terminal import Commands, command


def add_dashboard(commands: Commands) -> None:
    """`gradscope dashboard`."""
    dashboard = command(
        commands,
        "dashboard",
        run_dashboard,
        "serve the dashboard, live while runs are being written",
        "gradscope dashboard runs --port 8051",
    )
    dashboard.add_argument("runs", nargs="?", default="runs", metavar="DIR", help="folder of runs")
    dashboard.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    dashboard.add_argument("--port", type=int, default=8050, help="port (8050)")
    dashboard.add_argument("--no-browser", action="store_true", help="open no browser")


def run_dashboard(arguments: argparse.Namespace) -> None:
    from gradscope_dashboard.app import serve

    serve(
        arguments.runs,
        host=arguments.host,
        port=arguments.port,
        open_browser=not arguments.no_browser,
    )


def add_export(commands: Commands) -> None:
    """`gradscope export`."""
    export = command(
        commands,
        "export",
        run_export,
        "write a figure of one or several runs, and the data it shows",
        "gradscope export runs/demo --figure gradient-flow --format png,svg,pdf,html,csv --out figures",
    )
    export.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a folder of runs")
    export.add_argument("--figure", default="gradient-flow", help="which figure (gradient-flow)")
    export.add_argument("--format", default="png,csv", help="png,svg,pdf,html,csv")
    export.add_argument("--out", default="figures", metavar="DIR", help="where to write (figures)")
    export.add_argument("--style", default="paper", choices=("screen", "dark", "paper"))


def run_export(arguments: argparse.Namespace) -> None:
    from gradscope.export import export_figures
    from gradscope.frame import load_named

    written = export_figures(
        load_named(arguments.runs),
        figure=arguments.figure,
        formats=tuple(part.strip() for part in arguments.format.split(",") if part.strip()),
        out=arguments.out,
        style=arguments.style,
    )
    for path in written:
        print(path)


COMMANDS = (add_dashboard, add_export)
