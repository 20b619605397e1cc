"""Say how far long work has come: a bar, a callback, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[int, int], None]


@contextmanager
def reporting(progress: Progress, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that reports so many more units as done.

    Parameters
    ----------
    progress
        True draws a bar on standard error, False is silent, a callable gets ``(done, total)``.
    description
        What the bar is labelled with.
    total
        How many units there are.
    """
    if progress is False:
        yield lambda units: None
    elif progress is True:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (*Bar.get_default_columns()[:2], MofNCompleteColumn())
        columns = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(description, total=total)
            yield lambda units: bar.advance(task, units)
    else:
        done = 0

        def advance(units: int) -> None:
            nonlocal done
            done += units
            progress(done, total)

        yield advance
