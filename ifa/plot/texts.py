"""Texts that fit: broken where they are too long for their place."""

import textwrap
from functools import lru_cache


@lru_cache(maxsize=4096)
def inches(text: str, size: float) -> float:
    """Return how wide a line is in matplotlib's font of so many points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return (
        text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0] / 72
    )


def fitted(text: str, width: float, size: float, most: int = 4) -> str:
    """Break a text into lines of so many inches; of one without end keep its last letters.

    Names differ in their last letters.
    """
    if "\n" in text:
        return "\n".join(fitted(line, width, size, most) for line in text.split("\n"))
    for letters in range(max(len(text), 1), 0, -1):
        cut = text if len(text) <= letters * most else "…" + text[1 - letters * most :]
        lines = textwrap.wrap(cut, letters) or [""]
        if len(lines) > most:
            continue
        if letters <= 3 or all(inches(line, size) <= width for line in lines):
            return "\n".join(lines)
    return text
