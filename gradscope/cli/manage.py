"""The command `runs`: a table of runs, and what can be done with them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from gradscope.cli.terminal import Commands, command, duration, table
from gradscope.schema import GradScopeError


def add_runs(commands: Commands) -> None:
    """`gradscope runs`."""
    runs = command(
        commands,
        "runs",
        run_runs,
        "list runs with status and verdict, or archive, rename, annotate and delete them",
        "gradscope runs    or    gradscope runs --rename resnet20 resnet20-first",
    )
    runs.add_argument(
        "runs", nargs="?", default="runs", metavar="DIR", help="folder of runs (runs)"
    )
    does = runs.add_mutually_exclusive_group()
    does.add_argument(
        "--archive", nargs=2, metavar=("RUN", "FILE.zip"), help="pack a run into one file"
    )
    does.add_argument("--rename", nargs=2, metavar=("RUN", "NAME"), help="give a run another name")
    does.add_argument("--note", nargs=2, metavar=("RUN", "TEXT"), help="keep a note with a run")
    does.add_argument("--tag", nargs=2, metavar=("RUN", "TAG"), help="add a tag to a run")
    does.add_argument("--untag", nargs=2, metavar=("RUN", "TAG"), help="take a tag off a run")
    does.add_argument("--baseline", metavar="RUN", help="compare others with this run")
    does.add_argument("--delete", metavar="RUN", help="delete a run, after asking")
    runs.add_argument("--yes", action="store_true", help="delete without asking")


def run_runs(arguments: argparse.Namespace) -> None:
    from gradscope import store

    root = arguments.runs

    def path(name: str) -> Path:
        return store.find_run(name, root)

    if arguments.archive:
        print(store.archive_run(path(arguments.archive[0]), arguments.archive[1]))
    elif arguments.rename:
        print(store.rename_run(path(arguments.rename[0]), arguments.rename[1]))
    elif arguments.note:
        store.annotate_run(path(arguments.note[0]), note=arguments.note[1])
    elif arguments.tag:
        store.annotate_run(path(arguments.tag[0]), add_tags=[arguments.tag[1]])
    elif arguments.untag:
        store.annotate_run(path(arguments.untag[0]), remove_tags=[arguments.untag[1]])
    elif arguments.baseline:
        mark_baseline(path(arguments.baseline))
    elif arguments.delete:
        delete(path(arguments.delete), arguments.yes)
    else:
        print(listing(root))


def listing(root: str) -> str:
    """The table of runs of a folder."""
    from gradscope.store import list_runs

    found = list_runs(root)
    if not found:
        return f"No runs in {root}. Make some: gradscope demo --runs {root}"
    rows = []
    for run in found:
        status = run.status
        age = duration(time.time() - status.heartbeat) + " ago" if status.heartbeat else "-"
        state = f"{status.state}: {status.error}" if status.error else status.state
        tags = ", ".join((*run.info.tags, *status.user_tags))
        mark = "*" if status.baseline else ""
        verdict = status.verdict or ("not yet" if status.state == "running" else "-")
        cells = (run.name + mark, run.info.model, str(status.steps_seen), age, tags or "-", state)
        rows.append((*cells, verdict))
    return table(("run", "model", "steps", "written", "tags", "status", "verdict"), rows)


def mark_baseline(chosen: Path) -> None:
    """Mark one run of its folder as the baseline, and no other."""
    from gradscope.store import annotate_run, list_runs

    annotate_run(chosen, baseline=True)
    for run in list_runs(chosen.parent):
        if run.status.baseline and run.path != chosen:
            annotate_run(run.path, baseline=False)


def delete(path: Path, sure: bool) -> None:
    """Delete a run, after a yes."""
    from gradscope.store import delete_run

    if not sure:
        try:
            answer = input(f"Delete {path} for good? [y/N] ")
        except EOFError:
            raise GradScopeError("Nobody answered; delete without asking with --yes.") from None
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return
    delete_run(path)
    print(f"{path} is deleted.")


COMMANDS = (add_runs,)
