"""Prints results of commands, and their progress: a live line on a terminal, else log lines."""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import rich.box
import rich.console
import rich.progress
import rich.table

from deeplab_jax.reporter import Item, Reporter

# Minimum number of seconds between progress lines if stderr is not a terminal.
PLAIN_INTERVAL = 10.0


def duration(seconds: float) -> str:
    """Formats a number of seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def make_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0
) -> rich.table.Table:
    """Returns a table; the last `right` columns are right-aligned."""
    table = rich.table.Table(
        box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for position, title in enumerate(titles):
        is_right = position >= len(titles) - right
        table.add_column(title, justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


# Metrics that only some runs report, with their formats in the line of a training step.
OPTIONAL = {
    "flops_utilization": "{:.1%} MFU",
    "flops_utilization_of_measured_rate": "{:.1%} of CPU matrix rate",
    "input_wait_fraction": "{:.0%} input wait",
    "goodput": "goodput {:.3f}",
}


def _parts(step: int, num_steps: int, scalars: Mapping[str, float]) -> Iterator[str]:
    """Yields the parts of a line on the progress of training, such as `step 10/100`."""
    yield f"step {step}/{num_steps}"
    yield f"loss {scalars['loss']:.4f}"
    yield f"lr {scalars['learning_rate']:.2e}"
    yield f"{scalars['images_per_second']:.1f} images/s"
    for name, form in OPTIONAL.items():
        if name in scalars:
            yield form.format(scalars[name])
    yield f"{duration(scalars['seconds_left'])} left"


class Console(Reporter):
    """Prints results to stdout, and progress, warnings and errors to stderr."""

    def __init__(self) -> None:
        # All text is printed as it is, because file names may contain `[red]` or `:car:`.
        plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
        self._out = rich.console.Console(soft_wrap=True, **plain)
        self._err = rich.console.Console(stderr=True, soft_wrap=True, **plain)
        self._live: rich.progress.Progress | None = None
        self._last_plain_line = -PLAIN_INTERVAL

    def print(self, text: object) -> None:
        """Prints a result to stdout."""
        # A run that stops early leaves the live line open.
        self.close()
        self._out.print(text)

    def error(self, text: str) -> None:
        """Prints the error message of a failed command."""
        self.close()
        self._err.print(f"deeplab-jax: {text}")

    def message(self, text: str) -> None:
        self._err.print(text)

    def warning(self, text: str) -> None:
        self._err.print(f"warning: {text}", style="yellow")

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Generator[Item, None, None]:
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self._err.is_terminal and self._live is None:
            with rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                *rich.progress.Progress.get_default_columns()[1:],
                rich.progress.MofNCompleteColumn(),
                console=self._err,
                transient=True,
            ) as progress:
                yield from progress.track(items, total=total, description=description)
            return
        started = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL:
                last = now
                rate = done / (now - started)
                left = f", {duration((total - done) / rate)} left" if total else ""
                self._err.print(f"{description}: {done}/{total or '?'}, {rate:.1f}/s{left}")

    def training_step(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        line = "  ".join(_parts(step, num_steps, scalars))
        if self._err.is_terminal:
            self._show_live(line, step, num_steps)
        elif time.monotonic() - self._last_plain_line >= PLAIN_INTERVAL or step == num_steps:
            self._last_plain_line = time.monotonic()
            self._err.print(line)

    def _show_live(self, line: str, step: int, num_steps: int) -> None:
        if self._live is None:
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(),
                console=self._err,
            )
            self._live.start()
            self._task = self._live.add_task(line, total=num_steps)
        self._live.update(self._task, completed=step, description=line)
        if step == num_steps:
            self.close()

    def close(self) -> None:
        """Ends the live line of a training run, if there is one, and shows the cursor again."""
        if self._live is not None:
            self._live.stop()
            self._live = None
