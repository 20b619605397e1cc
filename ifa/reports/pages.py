"""One file that asks for nothing but itself: styles, scripts and data in it, all else forbidden."""

import base64
import hashlib
import html
import json
import math
from functools import cache
from importlib.resources import files
from typing import Any

_SCRIPTS = (
    "arrays.js", "maps.js", "draw.js", "charts.js", "parts.js", "overview.js", "features.js",
    "samples.js", "classes.js", "compare.js", "start.js",
)  # fmt: skip
_LIBRARY = "preact-10.29.8.min.js"
_LICENCE = "preact-LICENSE.txt"


def page_of(content: dict[str, Any]) -> str:
    """Make the file of what is to be shown."""
    style, library, script = _style(), _library(), _script()
    title = html.escape(content["title"])
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; img-src data:; "
        f"script-src {_digest(library)} {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": title,
        "style": style,
        "library": library,
        "script": script,
        "content": written(content),
    }
    page = _file("report.html")
    for name, part in parts.items():
        page = page.replace(f"<!-- {name} -->", part, 1)
    return page


def written(content: Any) -> str:
    """Write JSON that a script element can hold; what is no number is null.

    Examples
    --------
    >>> print(written({"a": float("nan"), "b": [1, "c"]}))
    {"a":null,"b":[1,"c"]}
    """
    text = json.dumps(_plain(content), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # a comment, too, would hide the end of the element
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def inlined(page: str, height: int = 720) -> str:
    """Show a page inside another one, such as a notebook, apart from it."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" title="ifa: a report" '
        f'width="100%" height="{height}" loading="lazy"></iframe>'
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _file(name: str) -> str:
    found = files("ifa.reports") / "page"
    for part in name.split("/"):
        found = found / part
    return found.read_text(encoding="utf-8")


def _style() -> str:
    return _file("report.css")


@cache
def _library() -> str:
    """Return the one library, with its licence."""
    code = _file(f"vendor/{_LIBRARY}").split("//# sourceMappingURL", maxsplit=1)[0]
    return f"/*! {_LIBRARY}\n{_file(f'vendor/{_LICENCE}')}*/\n{code}"


@cache
def _script() -> str:
    every = "\n".join(_file(name) for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{every}\n}})();\n'
