"""The command line as a whole: parser, dispatch, and how errors are told.

Exit codes: 0 done, 1 a user's error in one line, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gradscope import __version__
from gradscope.cli import manage, reading, recording, ways
from gradscope.schema import GradScopeError


def parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    top = argparse.ArgumentParser(
        prog="gradscope",
        description="See how gradients flow through a network, and what each part of it is worth.",
        epilog="example: gradscope demo",
    )
    top.add_argument("--version", action="version", version=f"gradscope {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (*recording.COMMANDS, *ways.COMMANDS, *manage.COMMANDS, *reading.COMMANDS):
        add(commands)
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parser().parse_args(words)
    try:
        arguments.call(arguments)
    except GradScopeError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print("\ngradscope: stopped; what was recorded so far is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _refused(str(error))
    return 0


def _refused(reason: str) -> int:
    print(f"gradscope: {' '.join(reason.split())}", file=sys.stderr)
    return 1
