"""Axes laid out by inches: nothing is solved for, and nothing is clipped."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Inches(NamedTuple):
    """What a grid of pictures is laid out by."""

    wide: float  # of a picture
    tall: float
    above: float  # each band, for titles
    below: float  # all, for bars
    left: float = 0.25
    right: float = 0.25
    gap: float = 0.12


def laid_out(
    make: Callable[..., Any], rows: int, columns: int, bands: int, inches: Inches
) -> tuple[Any, list[list[Any]]]:
    """Make a figure of bands of so many rows, and its axes, which takes a tenth of solving."""
    wide, tall, above, below, left, right, gap = inches
    width = left + columns * wide + (columns - 1) * gap + right
    height = bands * (above + rows * (tall + gap)) + below
    figure = make(figsize=(width, height))

    def at(row: int, column: int) -> tuple[float, float, float, float]:
        titles = above * (1 + row // rows)
        bottom = height - titles - (row + 1) * tall - row * gap
        start = left + column * (wide + gap)
        return start / width, bottom / height, wide / width, tall / height

    places = [[at(row, column) for column in range(columns)] for row in range(bands * rows)]
    return figure, [[figure.add_axes(place) for place in row] for row in places]
