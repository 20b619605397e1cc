"""What notebooks show of objects: HTML in which every text stays text."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str | None = None
) -> str:
    """Write a table whose first column names its rows.

    Examples
    --------
    >>> html_table(["name"], [["<a>"]]).partition("<tbody>")[2]
    '<tr><th scope="row">&lt;a&gt;</th></tr></tbody></table>'
    """
    title = "" if caption is None else f"<caption>{escape(caption)}</caption>"
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(str(first))}</th>'
        + "".join(f"<td>{escape(str(one))}</td>" for one in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
