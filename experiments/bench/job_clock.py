"""A run of the command line that says where its time goes; `bench.job` starts it as a process.

python -m experiments.bench.job_clock BEGAN OUT digits --epochs 3

BEGAN is the time (of ``time.time``) before it was started, OUT the file of JSON that it writes.
"""

import time

_LOADED = time.time()  # before the imports that are measured

import contextlib  # noqa: E402
import functools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_COMPILATION = "/jax/core/compile/"


class Clock:
    """Time by phase. What passes in a phase within another is that of the inner one alone."""

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        """Starts with the phase ``rest``."""
        self._now = now
        self._began = now()
        self.seconds = {"rest": 0.0}
        self._phases = ["rest"]
        self._taken: list[tuple[float, float]] = []

    def _charge(self) -> None:
        now = self._now()
        self._add(self._phases[-1], now - self._began)
        self._began = now

    def _add(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Whatever passes within is of this phase."""
        self._charge()
        self._phases.append(name)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as a phase."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return call

    def take(self, name: str, seconds: float) -> None:
        """The last ``seconds`` were of this phase; those within them that it has had count once."""
        end = self._now()
        start = end - seconds
        while self._taken and self._taken[-1][0] >= start:
            seconds -= self._taken.pop()[1]
        self._taken.append((start, end - start))
        self._add(name, seconds)
        self._add(self._phases[-1], -seconds)

    def end(self) -> dict[str, float]:
        """The seconds of all phases, which are all that has passed."""
        self._charge()
        return self.seconds


def _watch(clock: Clock) -> None:
    """Puts the clock around the parts of a run."""
    import jax

    from experiments import checkpoint, data, log, loop, parallel, report, step
    from experiments.methods import METHODS

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith(_COMPILATION):
            clock.take("compile", duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
    places: list[tuple[Any, str, str]] = [
        (data, "load", "data"),
        (loop, "sparsity_report", "evaluate"),
        (log.Log, "write", "log"),
        (report, "show", "report"),
        (report, "figure", "report"),
        *((checkpoint.Checkpoints, x, "checkpoints") for x in ("__init__", "save", "close")),
    ]
    for owner, name, phase in places:
        setattr(owner, name, clock.timed(phase, getattr(owner, name)))
    for name, method in METHODS.items():
        METHODS[name] = clock.timed("train", method)
    wrap = parallel.DataParallel.wrap

    def wrapped(self: Any, function: Any, **kwargs: Any) -> Any:
        made = wrap(self, function, **kwargs)
        if getattr(function, "func", None) is not step.evaluation_step:
            return made
        return clock.timed("evaluate", lambda *args: jax.block_until_ready(made(*args)))

    parallel.DataParallel.wrap = wrapped  # type: ignore[method-assign]


def main(began: float, out: Path, words: list[str]) -> int:
    """Runs, and writes the seconds of each phase."""
    clock = Clock()
    with clock.phase("import"):
        from experiments import run

    _watch(clock)
    status = run.main(words)
    seconds = clock.end()
    seconds["import"] += _LOADED - began  # the interpreter's own start
    out.write_text(json.dumps(seconds))
    return status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
