"""Words -> calls: the command `gradscope`.

Each command imports what it needs when it runs. Must never hold any logic.
"""

from gradscope.cli.main import main

__all__ = ["main"]
