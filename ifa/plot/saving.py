"""Pictures as files: pixels, or vector graphics in which words stay words."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifa.checks import check_choice, check_count
from ifa.store.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = ("png", "svg", "pdf")


def save(drawn: Any, path: str | os.PathLike[str], *, dpi: int = 300) -> Path:
    """Write a picture as PNG, SVG or PDF, by the end of the path.

    In SVG and PDF words are text, which can be searched, read aloud and edited; maps and images are
    as many pixels as they have. Nothing of the time or the machine is written.

    Parameters
    ----------
    drawn
        What any function of `ifa.plot` returns: a figure, axes, or an array of axes.
    path
        Ends in ``.png``, ``.svg`` or ``.pdf``. What is there is replaced.
    dpi
        Dots per inch of a PNG.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If the path ends otherwise, or `dpi` is no positive number.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> with TemporaryDirectory() as folder:
    ...     save(figure, f"{folder}/empty.svg").name
    'empty.svg'
    """
    path = Path(path)
    form = path.suffix.lower().removeprefix(".")
    check_choice("ifa.plot.save", "the path's ending", form, FORMS)
    check_count("ifa.plot.save", "dpi", dpi)
    first = drawn
    while not hasattr(first, "get_figure"):
        first = first[0]
    content = content_of(first.get_figure(root=True), form, dpi)
    write_atomically(path, lambda file: file.write(content))
    return path


def content_of(figure: "Figure", form: str, dpi: int) -> bytes:
    """Render a figure, without the time, the version, or random names."""
    from matplotlib import rc_context

    content = io.BytesIO()
    metadata: Any = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }[form]
    words: Any = {"svg.fonttype": "none", "svg.hashsalt": "ifa", "pdf.fonttype": 42}
    with rc_context(words):
        figure.savefig(content, format=form, dpi=dpi, metadata=metadata)
    return content.getvalue()
