"""A model in training -> a run folder: `track` and the `Scope` it returns.

Puts together the clock, the sampling, the hooks and the rows. Must never know pandas or plotly.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.diagnosis import verdict
from gradscope.hooks import Observer, is_compiled, named_modules, select
from gradscope.record.beside import Beside
from gradscope.record.blocks import BlockRecorder
from gradscope.record.clock import Clock
from gradscope.record.drain import Drain
from gradscope.record.lesions import Lesions
from gradscope.record.outputs import OutputRecorder, Work
from gradscope.record.parameters import ParameterRecorder, local, norm_now
from gradscope.record.ranks import Follower, Ranks, world
from gradscope.record.sampling import Sampling
from gradscope.record.scalars import flag_work, scalar_work
from gradscope.record.scaler import listen, loss_scale
from gradscope.record.shared import Shared
from gradscope.record.sites import SiteList
from gradscope.record.summary import summary
from gradscope.schema import Finding
from gradscope.store import RunWriter

HOOK_SECONDS = 3e-6
"""What calling one Python hook costs beyond the time spent inside it."""

Stop = Callable[[], None]


class Scope:
    """A recording in progress; made by `track`.

    `steps` is the number of optimizer steps done, `path` the run folder.
    """

    def __init__(
        self,
        model: nn.Module,
        writer: RunWriter | Follower,
        sampling: Sampling,
        *,
        observe: Any,
        exclude: Any,
        optimizers: Sequence[torch.optim.Optimizer],
        histograms: bool,
        eager_samples: bool,
        compiled: bool,
        start: int,
        quiet: bool,
        on_close: Callable[[Scope], None],
        lesions: Lesions | None = None,
    ) -> None:
        self._model = model
        self._writer = writer
        self._sampling = sampling
        self._eager_samples = eager_samples
        self._quiet = quiet
        self._on_close = on_close
        self._lesions = lesions
        modules = named_modules(model)
        chosen = select(modules, observe, exclude)
        self._sites = SiteList()
        self._compiled = compiled
        self._outputs = OutputRecorder(self._sites, histograms)
        self._blocks = BlockRecorder(self._sites, chosen)
        self._parameters = ParameterRecorder(
            model, self._sites, frozenset(chosen).__contains__, histograms
        )
        self._observer = Observer(
            model,
            chosen,
            on_output=self._timed(self._outputs.output),
            on_gradient=self._timed(self._outputs.gradient),
            on_alias=self._timed(self._outputs.alias),
            on_restart=self._forget_pass,
            on_entry=self._timed(self._enter),
            on_return=self._timed(self._leave),
            on_skip=lambda site, why: writer.note(f"The output {site} is not recorded: {why}."),
        )
        alone = world()[1] == 1
        self._ranks = None if alone else Ranks(lambda i: math.prod(self._sites.shape(i)))
        self._sharded = any(hasattr(p, "to_local") for p in model.parameters())
        self._parameters.shared = None if alone else Shared(lambda g: norm_now(local(g)))
        self._drain = Drain()
        busy = [self._drain.thread, *([] if isinstance(writer, Follower) else [writer.thread])]
        first = next(model.parameters(), None)
        self._beside = Beside(busy, "cpu" if first is None else first.device.type)
        self._own = 0.0
        self._batch: int | None = None
        self._pending: dict[int, tuple[bool, list[nn.Parameter], Work | None]] = {}
        self._clip_watch: list[Stop] = []
        self._stance: Any = None
        self._plan = self._last_plan = (False, False)
        self._open = True
        self._clock = Clock(
            optimizers, self._concerns, self._before, self._after, self._start_over, start
        )
        self._stop_scaler = listen(self._skipped)
        self._last = time.perf_counter()
        self._prepare()

    # what a script calls

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._writer.path

    @property
    def name(self) -> str:
        """The run's name below its root."""
        return self._writer.name

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return self._clock.now

    def log(self, **scalars: float | Tensor) -> None:
        """Keep scalars at the step just done: numbers, or one-element tensors (no waiting for them).

        Raises GradScopeError for anything else.
        """
        if self._open:
            self._drain_rows(scalar_work(max(self._clock.now - 1, 0), time.time(), scalars))

    def step(self) -> None:
        """End a step that no optimizer of torch's makes; gradients must still be there."""
        began = time.perf_counter()
        sampled = self._plan[0]
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        work = self._parameters.gradients(
            self._parameters.observed(parameters), self._clock.tick(), None, False
        )
        self._drain_rows(work)
        self._finish_step(self._clock.now - 1, sampled, True, began)

    def flush(self) -> None:
        """Write all that was recorded so far to the run folder."""
        self._drain.wait()
        self._writer.flush()

    def close(self, state: str = "finished", error: str = "") -> None:
        """End the recording and leave the model as it was; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        self._detach()
        self._clock.close()
        self._stop_scaler()
        self._drain.close()
        self._publish_sites()
        if self._drain.dropped:
            self._writer.note(
                f"{self._drain.dropped} steps' records were dropped: the disk was slow."
            )
        self._writer.update_config(self._measured())
        self._writer.flush()
        self._on_close(self)
        self._writer.close(state, error)
        self._release()
        if not self._quiet:
            print(self, file=sys.stderr)

    def abandon(self) -> None:
        """Stop listening and write nothing more: for a forked process, which trains nothing."""
        self._open = False
        self._detach()
        self._clock.close()
        self._stop_scaler()
        self._release()

    def keep_findings(self, diagnose: Callable[[RunWriter], tuple[Finding, ...]]) -> None:
        """Store the diagnosis of what is on disk with the run."""
        if isinstance(self._writer, Follower):
            return
        findings = diagnose(self._writer)
        self._writer.set_findings(findings, verdict(findings))

    def __enter__(self) -> Scope:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, KeyboardInterrupt):
            self.close("interrupted", "interrupted by the user")
        else:
            self.close("failed", f"{type(error).__name__}: {error}")

    def __str__(self) -> str:
        if isinstance(self._writer, Follower):
            return f"GradScope follows {self.name}, which the first process records"
        beside = self._lesions.told() if self._lesions is not None else ""
        return summary(
            self._writer, self._sampling, self._sites, self._clock.now, self._open, beside
        )

    # what torch calls

    def _concerns(self, optimizer: torch.optim.Optimizer) -> bool:
        return self._open and self._parameters.concerned(optimizer)

    def _before(self, optimizer: torch.optim.Optimizer, step: int, closure: bool) -> None:
        began = time.perf_counter()
        parameters = self._parameters.mine(optimizer)
        full, norms = self._plan if step == self._clock.now else self._last_plan
        work: Work | None = None
        if full:
            self._parameters.remember(parameters)
        if not closure and (full or norms):
            work = self._gradients(optimizer, parameters, step, full)
        self._pending[id(optimizer)] = (full, parameters, work)
        self._own += time.perf_counter() - began

    def _after(self, optimizer: torch.optim.Optimizer, step: int, closure: bool) -> None:
        began = time.perf_counter()
        full, parameters, work = self._pending.pop(id(optimizer), (False, [], None))
        if closure and (full or self._plan[1]):
            work = self._gradients(optimizer, parameters, step, full)
        if full:
            work = self._parameters.updates(work)
        self._drain_rows(work)
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None:  # fused optimizers see for themselves that a step is left out
            self._drain_rows(flag_work(step, time.time(), "skipped_step", overflow))
        if self._clock.leads(optimizer):
            self._finish_step(step, full, work is not None, began)
        else:
            self._own += time.perf_counter() - began

    def _gradients(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
        step: int,
        full: bool,
    ) -> Work | None:
        scale = getattr(optimizer, "grad_scale", None)
        return self._parameters.gradients(parameters, step, scale, full, loss_scale())

    def _skipped(self, optimizer: torch.optim.Optimizer) -> None:
        if self._concerns(optimizer):
            self._drain_rows(scalar_work(self._clock.now, time.time(), {"skipped_step": 1.0}))
            self._start_over()

    def _start_over(self, error: BaseException | None = None) -> None:
        """Forget what was seen since the last step, and make ready for the next one."""
        if isinstance(error, Exception):
            self._writer.note(f"Not recorded in full: a step with {type(error).__name__}: {error}.")
        self._forget_pass()
        self._detach()
        self._prepare()

    def _forget_pass(self) -> None:
        self._outputs.clear()
        self._blocks.clear()

    def _enter(self, name: str, module: nn.Module, args: object) -> None:
        self._blocks.enter(name, module, args)
        if self._batch is None and isinstance(args, tuple):
            sizes = [a.shape[0] for a in args if isinstance(a, Tensor) and a.dim() > 0]
            if sizes:
                self._batch = int(sizes[0])
                self._writer.update_config({"batch_size": self._batch})

    def _leave(self, name: str, module: nn.Module, output: object) -> None:
        self._blocks.leave(name, module, output)
        if self._sharded:
            self._clip_watch.extend(self._parameters.watch_gathered(module))

    # the step

    def _finish_step(self, step: int, sampled: bool, norms: bool, began: float) -> None:
        if sampled:
            self._drain_rows(self._outputs.take(step, loss_scale()))
            self._drain_rows(self._blocks.take(step, loss_scale()))
            self._detach()
        if self._sites.changed:
            self._publish_sites()
        now = time.perf_counter()
        self._own += now - began
        self._sampling.done(sampled, norms, self._own, now - self._last, self._beside.taken())
        if self._lesions is not None:
            self._lesions(step)
            now = time.perf_counter()
        self._last, self._own = now, 0.0
        self._prepare()

    def _prepare(self) -> None:
        """Decide about the step to come, and listen if it is to be sampled."""
        sampled = self._sampling.sample(self._clock.now)
        self._last_plan = self._plan
        self._plan = sampled, sampled or self._sampling.norms()
        if not sampled:
            return
        if self._eager_samples:
            self._stance = torch.compiler.set_stance("force_eager")
        if self._eager_samples or not (self._compiled or is_compiled(self._model)):
            self._observer.attach()
        else:  # hooks would compile the model a second time, and see nothing
            self._writer.note(
                "The model is compiled: module outputs are recorded with eager_samples=True only."
            )
        trainable = [p for p in self._model.parameters() if p.requires_grad and p.is_leaf]
        for remove in self._parameters.watch_accumulation(trainable):
            self._clip_watch.append(remove)

    def _detach(self) -> None:
        self._observer.detach()
        for remove in self._clip_watch:
            remove()
        self._clip_watch = []
        if self._stance is not None:
            torch.compiler.set_stance("default")
            self._stance = None

    def _release(self) -> None:
        """Let go of the model and its optimizers; an empty module stands in."""
        self._model = nn.Module()
        if self._lesions is not None:
            self._lesions.release()
        self._pending.clear()
        self._forget_pass()
        self._parameters.release()
        self._observer.release()

    def _publish_sites(self) -> None:
        self._writer.set_sites(self._sites.ordered(self._observer.order))

    def _drain_rows(self, work: Work | None) -> None:
        if work is None:
            return
        writer, ranks, sharded, batch = self._writer, self._ranks, self._sharded, self._batch

        def write() -> None:
            tables = work()
            if ranks is not None:
                tables = ranks.combine(tables, sharded, batch, time.time())
            for table, columns in tables.items():
                writer.append(table, columns)

        self._drain.put(write)

    def _timed(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            began = time.perf_counter()
            function(*args)
            self._own += time.perf_counter() - began + HOOK_SECONDS

        return call

    def _measured(self) -> Mapping[str, Any]:
        return {
            "steps": self._clock.now,
            "sampled_steps": self._sampling.sampled_steps,
            "tracking_cost": round(self._sampling.cost(), 5) if self._sampling.elapsed else None,
            **(self._lesions.measured() if self._lesions is not None else {}),
        }
