"""Progress on the terminal: a bar with the time left for each part of a run.

Until a part reports its first progress its line says that code is being compiled or
loaded, which on a first run is what takes the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self


class Progress(AbstractContextManager["Progress"]):
    """Progress bars on stderr; silent with `quiet` or where stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich import progress  # noqa: PLC0415  (only where something is shown)
        from rich.console import Console  # noqa: PLC0415

        console = Console(stderr=True)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("{task.percentage:>3.0f} %"),
            progress.TimeRemainingColumn(),
            progress.TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    @contextmanager
    def task(self, label: str, note: str = "compiling") -> Iterator[Callable[[float], None]]:
        """Show a part of the run; yields a function that takes the fraction done.

        Until the first fraction arrives the line shows `note`.
        """
        task: Any = self._bars.add_task(f"{label} [dim]({note})[/dim]", total=1.0)

        def advance(fraction: float) -> None:
            self._bars.update(task, description=label, completed=fraction)

        yield advance
        self._bars.remove_task(task)
