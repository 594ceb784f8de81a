"""One line for long work: what it is, how far, how fast, how long still, its losses. On a terminal alone."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline.interfaces import Progress

LINE = "{desc}: {n_fmt}/{total_fmt} steps, {rate_noinv_fmt}, {remaining} left{postfix} {bar}"  # cut at the edge
MOST_LOSSES = 3
A_MINUTE = 60.0  # seconds


class Line:
    """A context; at its end, but after an error, another line says what was done and how long it took."""

    def __init__(self, name: str) -> None:
        self.name, self.start, self.said = name, time.monotonic(), ""
        self.bar: tqdm | None = None  # none before the first step, so that a resumed unit has a rate of its own

    def __enter__(self) -> Self:
        return self

    def follow(self, progress: Progress) -> None:
        """Of a unit, with the losses of its last report."""
        self.show(progress.step, progress.num_steps, losses(progress.metrics) or self.said)

    def show(self, step: int, num_steps: int, said: str = "") -> None:
        """The line anew, where it is time for that."""
        if self.bar is None:
            self.bar = tqdm(
                desc=self.name,
                initial=step,
                total=num_steps,
                postfix=said,
                unit="",
                bar_format=LINE,
                leave=False,
                disable=None,
                dynamic_ncols=True,
            )
        self.said = said
        self.bar.set_postfix_str(said, refresh=False)
        self.bar.update(step - self.bar.n)

    def write(self, text: str) -> None:
        """What stays above this line; it is said where there is no terminal, too."""
        tqdm.write(text, file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        num_steps = 0
        if self.bar is not None:
            self.bar.close()
            num_steps = self.bar.n
        if kind is None and sys.stderr.isatty():
            seconds = time.monotonic() - self.start
            steps = f"{num_steps} step{'s' * (num_steps != 1)}"
            done = f"{steps} in {took(seconds)}" if self.bar is not None else "made before"
            sys.stderr.write(f"{', '.join(filter(None, [f'{self.name}: {done}', self.said]))}\n")


def losses(metrics: Mapping[str, float]) -> str:
    """The student's, then the first of the others."""
    found = sorted((name for name in metrics if name.endswith("loss")), key=lambda name: name != "student_loss")
    return ", ".join(f"{name.removesuffix('_loss')} {metrics[name]:.3g}" for name in found[:MOST_LOSSES])


def took(seconds: float) -> str:
    """For people: 4.2 s, 12:31, 1:02:03."""
    return f"{seconds:.1f} s" if seconds < A_MINUTE else tqdm.format_interval(seconds)
