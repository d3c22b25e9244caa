"""The cost seen so far -> which steps are looked at in full.

Must never know tensors, sites or files.
"""

from __future__ import annotations

from gradscope.schema import GradScopeError

FIRST_STEPS = 1
"""Steps at the start that are always sampled: where a network stands before training."""

NORM_SHARE = 0.5
"""Share of the budget that the norms of unsampled steps may use."""

LONG_STEP = 5.0
"""A step longer than this many typical ones held something else (validation, a save)."""


class Sampling:
    """Decides before each step whether it is sampled, and if not whether gradient norms are taken.

    With an int n every n-th step is sampled. With "auto" the tracker's seconds are charged to an
    account that training fills with `budget` seconds per second. A step is sampled when the account
    can pay for another one like the last, so that once the first sample is paid off the cost stays
    within the budget; norms may use up half of it. A sample is charged what its step took longer
    than a typical one, which counts what it did to the caches, but at most three times its own
    seconds: some steps are long for other reasons.
    """

    def __init__(self, every: int | str, budget: float) -> None:
        if every != "auto" and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise GradScopeError(
                f'every={every!r} is neither "auto" nor a whole number of steps from 1 up.'
            )
        if not 0 < budget <= 1:
            raise GradScopeError(
                f"budget={budget!r} is not a share of step time between 0 and 1; 0.02 means 2 %."
            )
        self.every = every
        self.budget = budget
        self.elapsed = 0.0
        self.spent = 0.0
        self.sampled_steps = 0
        self.steps = 0
        self._typical = 0.0
        self._spent_on_norms = 0.0
        self._last_sample = 0.0

    def sample(self, step: int) -> bool:
        """Whether step `step` is to be sampled in full."""
        if isinstance(self.every, int):
            return step % self.every == 0
        if self.sampled_steps < FIRST_STEPS:
            return True
        return self.spent + self._last_sample <= self.budget * self.elapsed

    def norms(self) -> bool:
        """Whether the gradient norms of a step that is not sampled can be afforded."""
        share = NORM_SHARE * self.budget * self.elapsed
        return isinstance(self.every, int) or self._spent_on_norms <= share

    def done(
        self, sampled: bool, norms: bool, own: float, wall: float, beside: float = 0.0
    ) -> None:
        """Account for a finished step: the tracker's own seconds and the step's wall seconds.

        `beside`: seconds that background threads took from the training meanwhile.
        """
        bare = max(wall - own, 0.0)
        if self._typical == 0.0 or bare < self._typical:
            self._typical = bare
        else:
            self._typical += 0.05 * (min(bare, LONG_STEP * self._typical) - self._typical)
        self.steps += 1
        self.elapsed += min(bare, LONG_STEP * self._typical)
        if sampled:
            own = min(max(own, wall - self._typical), 3 * own)
            self._last_sample = own
            self.sampled_steps += 1
        elif norms:
            self._spent_on_norms += own
        self.spent += own + beside

    def close(self) -> None:
        """Nothing to end."""

    def cost(self) -> float:
        """The tracker's own time as a share of the training's."""
        return self.spent / self.elapsed if self.elapsed else float("nan")
