"""The answers in words: what was measured, also where it contradicts the textbook."""

from __future__ import annotations

import numpy as np
import pytest

from gradscope.figures.sentences import (
    Profile,
    curve_sentence,
    decades,
    flow_sentence,
    heatmap_sentence,
    join,
    linear_sentence,
)
from gradscope.figures.theme import number, run_colours, shorten


def profile(
    values: list[float], label: str = "net", family: str = "", stages: list[str] | None = None
) -> Profile:
    """A line over layers l0 (input) .. ln (loss)."""
    count = len(values)
    return Profile(
        label,
        family,
        [f"l{i}" for i in range(count)],
        np.array(values),
        stages or ["s"] * count,
        np.ones(count, dtype=bool),
    )


def test_decades_are_input_over_loss() -> None:
    assert decades(profile([1e-6, 1e-4, 1e-2])) == pytest.approx(-4)
    assert decades(profile([0.0, 1e-4, 1e-2, np.nan])) == pytest.approx(-2)
    assert np.isnan(decades(profile([0.0, 1.0])))


def test_one_line_tells_the_change_and_the_stage_it_happens_in() -> None:
    falling = profile([1e-6, 1e-5, 1e-2, 1e-2], stages=["a", "a", "b", "b"])
    assert flow_sentence([falling]) == (
        "Gradient falls 4.0 decades from l3 to l0; 75 % of it is lost in b"
    )
    assert flow_sentence([profile([1e2, 1.0])]) == "Gradient grows 2.0 decades from l1 to l0"
    steady = flow_sentence([profile([1.0, 2.0])])
    assert steady == "Gradient keeps its size from l1 to l0: the ends differ by 0.3 decades"


def test_change_there_and_back_is_not_told_as_a_share() -> None:
    text = flow_sentence([profile([1e-2, 1e-3, 1.0], stages=["a", "b", "c"])])
    assert text.endswith("; c alone accounts for 3.0")


def test_nothing_to_follow_is_said() -> None:
    assert "fewer than two layers" in flow_sentence([profile([0.0, np.nan])])
    assert "fewer than two layers" in linear_sentence([profile([np.nan, 1.0])], "skip share")


@pytest.mark.parametrize(
    ("plain", "residual", "told"),
    [
        (1e-6, 1e-1, None),
        (0.5, 1e-2, "against the textbook, the plain network keeps it best here"),
        (0.5, 0.6, "the plain network does not vanish here"),
        (1e-1, 1e-2, "against the textbook"),
        (1e3, 1.0, None),
    ],
)
def test_a_contradiction_of_the_textbook_is_told(
    plain: float, residual: float, told: str | None
) -> None:
    text = flow_sentence(
        [profile([plain, 1.0], "p", "plain"), profile([residual, 1.0], "r", "residual")]
    )
    assert " in p and " in text
    assert (told in text) if told else ("textbook" not in text and "vanish" not in text)


def test_the_name_of_an_architecture_alone_says_nothing() -> None:
    lines = [profile([1e-3, 1.0], "resnet"), profile([0.5, 1.0], "plain")]
    text = flow_sentence(lines)
    assert (
        text
        == "From loss to input the gradient falls 3.0 decades in resnet and keeps its size (−0.3 decades) in plain"
    )


def test_shares_are_told_as_plain_values() -> None:
    text = linear_sentence([profile([0.2, 0.5, 0.9]), profile([0.5, 0.51], "b")], "skip share")
    assert (
        text
        == "From loss to input the skip share falls from 0.9 to 0.2 in net and stays near 0.5 in b"
    )
    cells = np.array([[0.2, 0.8], [0.4, 0.9]])
    told = heatmap_sentence(["a", "b"], np.array([0, 50]), cells, "skip share", log=False)
    assert told == (
        "Skip share is smallest at a (0.3) and largest at b (0.85); "
        "its median over layers goes from 0.5 to 0.65 between steps 0 and 50"
    )
    negative = heatmap_sentence(
        ["a", "b"], np.array([0]), np.array([[-0.5, 0.0]]), "cosine", log=False
    )
    assert negative == "Cosine is smallest at a (−0.5) and largest at b (0)"


def test_a_map_tells_the_smallest_layer_and_how_the_spread_moves() -> None:
    cells = np.array([[1e-2, 1e-1], [1e-4, 1e-1]])
    assert heatmap_sentence(["a", "b"], np.array([0, 9]), cells, "gradient rms") == (
        "Gradient rms is smallest at a, 2.0 decades below b; "
        "the spread over layers widens from 1.0 to 3.0 decades between steps 0 and 9"
    )
    flat = heatmap_sentence(["a", "b"], np.array([0]), np.ones((1, 2)), "gradient rms")
    assert flat == "Gradient rms is the same at every layer, within a factor 1"
    zero = heatmap_sentence(["a", "b"], np.array([0]), np.zeros((1, 2)), "skip share", log=False)
    assert zero == "Skip share is the same at every layer (0)"
    assert "too few values" in heatmap_sentence(["a"], np.array([0]), np.array([[1.0]]), "x")


def test_curves_name_a_winner_but_not_on_a_tie() -> None:
    assert (
        curve_sentence({"a": 0.3, "b": 0.2}, "loss", "low") == "Loss ends lowest in b (0.2); a 0.3"
    )
    assert curve_sentence({"a": 0.3, "b": 0.2}, "accuracy", "high").startswith(
        "Accuracy ends highest in a"
    )
    assert (
        curve_sentence({"a": 0.2, "b": 0.2}, "loss", "low") == "Loss ends the same in a and b (0.2)"
    )
    assert curve_sentence({"a": 0.9, "b": 0.20001, "c": 0.2}, "loss", "low") == (
        "Loss ends lowest in c and b (0.2); a 0.9"
    )
    assert curve_sentence({"a": 0.2, "b": np.nan}, "loss", "low") == "Loss of a stands at 0.2"
    assert curve_sentence({}, "loss", "low") == "No loss was logged yet"


def test_numbers_and_names_in_words() -> None:
    assert [number(v) for v in (0.0, 1234.5, 1.2e-5, -0.5, np.nan, np.inf, 9999.9)] == [
        "0", "1230", "1.2×10⁻⁵", "−0.5", "NaN", "∞", "1×10⁴",
    ]  # fmt: skip
    assert join(["a"]) == "a"
    assert join(["a", "b", "c"]) == "a, b and c"
    long = shorten("features.denseblock4.denselayer32.conv2", 22)
    assert len(long) == 22
    assert long.startswith("features.")
    assert long.endswith("conv2")


def test_colours_are_stable_and_distinct() -> None:
    names = [f"run{i}" for i in range(7)]
    colours = run_colours(names)
    assert len(set(colours.values())) == 7
    assert run_colours(list(reversed(names))) == colours
    assert len(run_colours([f"r{i}" for i in range(20)])) == 20
