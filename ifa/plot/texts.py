"""Texts that fit: broken where they are too long for their place."""

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def inches(text: str, size: float) -> float:
    """Return how wide a line is in matplotlib's font of so many points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return (
        text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0] / 72
    )


def tall(text: str, size: float) -> float:
    """Return how many inches the lines of a text take, with room between them."""
    return (1 + text.count("\n")) * size * 1.4 / 72 if text else 0.0


def fitted(text: str, width: float, size: float, most: int = 4) -> str:
    """Break a text into lines of so many inches; of one without end keep its last letters.

    Names differ in their last letters. Lines end at spaces, or after what parts names: ``._/-``.
    """
    if "\n" in text:
        return "\n".join(fitted(line, width, size, most) for line in text.split("\n"))
    lines, first = _lines(text, width, size), 0
    while len(lines) > most:
        first += max(1, len(lines[0]) // 4)
        lines = _lines(f"…{text[first:]}", width, size)
    return "\n".join(lines)


def _lines(text: str, width: float, size: float) -> list[str]:
    lines = [""]
    # a number is not broken
    for piece in re.findall(r"\s*(?:[^\s._/-]|[.-](?=\d))*[._/-]*", text):
        if inches((lines[-1] + piece).rstrip(), size) <= width:
            lines[-1] += piece
            continue
        lines.append("")
        for letter in piece.strip():  # of a piece that is longer than a line
            if lines[-1] and inches(lines[-1] + letter, size) > width:
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines if line.strip()] or [""]
