"""Arrays and pictures as text that a page can hold."""

import base64
import io
import math
from typing import Any, NamedTuple

import numpy as np

_KINDS = {"b": "u1", "u": "u1", "i": "i4", "f": "f4"}


def packed(array: Any, kind: str | None = None) -> dict[str, Any]:
    """Pack numbers, little endian; JavaScript has an array for each kind.

    Examples
    --------
    >>> packed(np.array([1.0, 2.0]))
    {'kind': 'f4', 'shape': [2], 'base64': 'AACAPwAAAEA='}
    """
    array = np.asarray(array)
    kind = kind or _KINDS[array.dtype.kind]
    numbers = np.ascontiguousarray(array, dtype=f"<{kind}" if kind != "u1" else "u1")
    text = base64.b64encode(numbers.tobytes()).decode()
    return {"kind": kind, "shape": list(array.shape), "base64": text}


def quantized(array: np.ndarray, axes: int, bits: int = 8) -> dict[str, Any]:
    r"""Pack numbers as integers of so many bits, by the largest of each item.

    Parameters
    ----------
    array : (\*item, ...)
        Finite; NaN becomes 0.
    axes
        How many axes say which item it is; all behind them share a unit.
    bits
        8 or 16: what is lost is at most 1/254, or 1/65 534, of an item's largest absolute value.

    Examples
    --------
    >>> found = quantized(np.array([[0.0, -2.0], [1.0, 0.5]]), 1)
    >>> found["values"]["shape"], found["unit"]["shape"]
    ([2, 2], [2])
    """
    values = np.nan_to_num(np.asarray(array, dtype=np.float64), posinf=0.0, neginf=0.0)
    inner = tuple(range(axes, values.ndim))
    most = 2 ** (bits - 1) - 1
    unit = np.abs(values).max(axis=inner, initial=0.0, keepdims=True) / most
    whole = np.rint(values / np.where(unit > 0, unit, 1.0))
    return {
        "values": packed(whole.astype(np.int64), f"i{bits // 8}"),
        "unit": packed(unit.reshape(values.shape[:axes])),
    }


class Sheet(NamedTuple):
    """Pictures side by side in one file."""

    picture: dict[str, Any]
    note: str  # of what was lost; empty if nothing was


def sheet(pictures: np.ndarray, most: int) -> Sheet:
    """Lay pictures (sample, row, column[, 3]) of eight bits out as one, of so many bytes at most.

    PNG where that fits; otherwise JPEG, and smaller where even that is too large.
    """
    from PIL import Image

    count, high, wide = pictures.shape[:3]
    # no browser draws a side of more than 16 384
    columns = min(max(1, math.ceil(math.sqrt(count * high / wide))), max(1, 16000 // wide))
    rows = -(-count // columns)
    canvas = np.zeros((rows * high, columns * wide, *pictures.shape[3:]), np.uint8)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        canvas[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = picture
    image, note = Image.fromarray(canvas), ""
    content, form = _saved(image, "png", optimize=count * high * wide < 2**20), "png"
    quality = 90
    while len(content) > most:
        note = f"Inputs are drawn from JPEG of quality {quality}."
        content, form = _saved(image, "jpeg", quality=quality), "jpeg"
        quality -= 10
        if quality < 20:
            break
    text = base64.b64encode(content).decode()
    said = {"columns": columns, "size": [high, wide], "url": f"data:image/{form};base64,{text}"}
    return Sheet(said, note)


def _saved(image: Any, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()
