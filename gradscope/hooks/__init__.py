"""A model -> calls of (site, tensor): attach, detach, names, reused modules, in-place operations.

Must never know statistics or files.
"""

from gradscope.hooks.flatten import tensors
from gradscope.hooks.observer import Observer, unsupported
from gradscope.hooks.select import Choice, clean_name, named_modules, select, unwrap

__all__ = [
    "Choice",
    "Observer",
    "clean_name",
    "named_modules",
    "select",
    "tensors",
    "unsupported",
    "unwrap",
]
