"""A model -> calls of (site, tensor): attach, detach, names, reused modules, in-place operations.

Must never know statistics or files.
"""

from gradscope.hooks.flatten import tensors
from gradscope.hooks.observer import Observer, unsupported
from gradscope.hooks.select import (
    Choice,
    clean_name,
    is_compiled,
    named_modules,
    select,
    unwrap,
)
from gradscope.hooks.split import Source, source_of, watch_split

__all__ = [
    "Choice",
    "Observer",
    "Source",
    "clean_name",
    "is_compiled",
    "named_modules",
    "select",
    "source_of",
    "tensors",
    "unsupported",
    "unwrap",
    "watch_split",
]
