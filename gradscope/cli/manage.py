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
    does.add_argument("--no-baseline", action="store_true", help="take the baseline mark away")
    does.add_argument("--delete", metavar="RUN", help="delete a run, after asking")
    runs.add_argument("--yes", action="store_true", help="delete without asking")


def run_runs(arguments: argparse.Namespace) -> None:
    from gradscope import store

    root = arguments.runs

    def path(name: str) -> Path:
        return store.find_run(name, root)

    if arguments.archive:
        run = path(arguments.archive[0])
        archive = store.archive_run(run, arguments.archive[1])
        print(f"{run} is packed into {archive} ({size(archive)}), and stays.")
    elif arguments.rename:
        run = path(arguments.rename[0])
        print(f"{run} is now {store.rename_run(run, arguments.rename[1])}.")
    elif arguments.note:
        store.annotate_run(path(arguments.note[0]), note=arguments.note[1])
        print(f"The note of {path(arguments.note[0])} is {arguments.note[1]!r}.")
    elif arguments.tag:
        store.annotate_run(path(arguments.tag[0]), add_tags=[arguments.tag[1]])
        print(tags_of(path(arguments.tag[0])))
    elif arguments.untag:
        store.annotate_run(path(arguments.untag[0]), remove_tags=[arguments.untag[1]])
        print(tags_of(path(arguments.untag[0])))
    elif arguments.baseline:
        mark_baseline(path(arguments.baseline), root)
    elif arguments.no_baseline:
        mark_baseline(None, root)
    elif arguments.delete:
        delete(path(arguments.delete), arguments.yes)
    else:
        print(listing(root))


def listing(root: str) -> str:
    """The table of runs of a folder; `*` marks the baseline, `.zip` an archive."""
    from gradscope.store import list_runs

    found = list_runs(root)
    if not found:
        return f"No runs in {root}. Make some: gradscope demo --runs {root}"
    noted = any(run.status.user_note for run in found)
    head = ("run", "model", "steps", "written", "tags", *(("note",) if noted else ()))
    rows = []
    for run in found:
        status = run.status
        age = duration(time.time() - status.heartbeat) + " ago" if status.heartbeat else "-"
        state = f"{status.state}: {status.error}" if status.error else status.state
        tags = ", ".join((*run.info.tags, *status.user_tags))
        mark = "*" if status.baseline else ""
        verdict = status.verdict or ("not yet" if status.state == "running" else "-")
        note = (" ".join(status.user_note.split())[:40] or "-",) if noted else ()
        cells = (run.path.name + mark, run.info.model, str(status.steps_seen), age, tags or "-")
        rows.append((*cells, *note, state, verdict))
    return table((*head, "status", "verdict"), rows)


def tags_of(path: Path) -> str:
    """A sentence that lists the user's tags of a run."""
    from gradscope.store import open_run

    tags = open_run(path).status.user_tags
    return f"{path} is tagged {', '.join(tags)}." if tags else f"{path} has no tags of yours."


def size(path: Path) -> str:
    """The bytes of a file, or of all files in a folder, as 12 KB or 3.4 MB."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    whole = sum(file.stat().st_size for file in files)
    return f"{whole / 1e6:,.1f} MB" if whole >= 1e6 else f"{whole / 1e3:,.0f} KB"


def mark_baseline(chosen: Path | None, root: str) -> None:
    """Mark one run, or none, as the baseline of its folder."""
    from gradscope.store import annotate_run, list_runs

    if chosen is not None:
        annotate_run(chosen, baseline=True)
        print(f"{chosen} is the baseline.")
    others = [run for run in list_runs(chosen.parent if chosen else root) if run.status.baseline]
    for run in others:
        if run.path != chosen:
            annotate_run(run.path, baseline=False)
            print(f"{run.path} is the baseline no more.")
    if chosen is None and not others:
        print(f"No run in {root} was the baseline.")


def delete(path: Path, sure: bool) -> None:
    """Delete a run, after a yes."""
    from gradscope.store import delete_run, open_run

    if not sure:
        try:
            status = open_run(path).status
            what = f"{status.state}, {status.steps_seen} steps, {size(path)}"
        except GradScopeError:
            what = f"unreadable, {size(path)}"
        try:
            answer = input(f"Delete {path} ({what}) for good? [y/N] ")
        except EOFError:
            print()
            raise GradScopeError("Nobody answered; delete without asking with --yes.") from None
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return
    delete_run(path)
    print(f"{path} is deleted.")


COMMANDS = (add_runs,)
