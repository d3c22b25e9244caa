"""The address describes a view, and a view its address."""

from __future__ import annotations

import subprocess
import sys

from gradscope_dashboard.state import State, parse, toggled
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@given(
    runs=st.lists(NAMES, max_size=4, unique=True),
    layer=NAMES,
    step=st.none() | st.integers(0, 10**9),
)
def test_a_state_survives_its_link(runs: list[str], layer: str, step: int | None) -> None:
    state = State(runs=tuple(runs), layer=layer, step=step)
    assert parse(state.search()) == state


def test_unreadable_values_are_ignored() -> None:
    assert parse("?step=x&nonsense=1&run=") == State()


def test_toggling_twice_is_nothing() -> None:
    assert toggled(toggled(("a", "b"), "b"), "b") == ("a", "b")


def test_the_dashboard_never_imports_torch() -> None:
    code = (
        "import sys, gradscope_dashboard as d; d.create_app('none');"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
