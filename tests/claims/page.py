"""What was measured, as tables that docs/claims.md includes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import cells, curves

VERDICTS = ("holds", "does not hold", "cannot be said")
Found = Mapping[tuple[str, str, int], Mapping[str, Any]]

_TOP = """<!-- made by `python -m tests.claims`: do not edit -->

## Every population and network

Mean ± standard deviation over {seeds} seeds, and in how many of them the claim *holds*, *does not
hold*, or *cannot be said*. A star is where it holds by algebra. It took {minutes:.0f} minutes of
CPU time in all.
"""
_CURVES = """
## Few features, one by one

Accuracy on the held-out digits with the first k features only, mean ± standard deviation over
{seeds} seeds; in brackets the mean of a prototype, of other networks. What is at random is the mean
of {draws} draws.
"""


def page(found: Found) -> str:
    """Write the tables of all that was measured."""
    seeds = len({seed for *_, seed in found})
    minutes = sum(one["seconds"] for one in found.values()) / 60
    lines = [_TOP.format(seeds=seeds, minutes=minutes), *_tally(found)]
    for key, population in cells.POPULATIONS.items():
        names = [name for name, cell in cells.CELLS.items() if cell.population == key]
        each = {name: _of(found, "cells", name) for name in names}
        each = {name: several for name, several in each.items() if several}
        if each:
            lines += [f"### {population.title}", "", *_cells(each), ""]
    lines.append(_CURVES.format(seeds=seeds, draws=curves.DRAWS))
    for name, (_, layers) in curves.NETWORKS.items():
        if several := _of(found, "curves", name):
            for layer in layers:
                lines += [*_curves(layer, several), ""]
    return "\n".join(lines).rstrip() + "\n"


def _of(found: Found, kind: str, name: str) -> list[Mapping[str, Any]]:
    return [one for (what, which, _), one in found.items() if (what, which) == (kind, name)]


def _tally(found: Found) -> Iterator[str]:
    """Count what was said, of networks that were trained: those that were planted are apart."""
    runs = {
        name: several
        for name, cell in cells.CELLS.items()
        if "planted" not in cell.network and (several := _of(found, "cells", name))
    }
    if not runs:
        return
    count = sum(map(len, runs.values()))
    yield f"### All of {len(runs)} trained networks, {count} runs\n"
    yield "| claim | holds | does not hold | cannot be said | estimates, smallest to largest |"
    yield "|---|---|---|---|---|"
    first = next(iter(runs.values()))[0]
    for claim in first["claims"]:
        rows = [one["claims"][claim] for several in runs.values() for one in several]
        said = [sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS]
        values = sorted(row["estimate"] for row in rows)
        limits = f"{values[0]:.2f} … {np.median(values):.2f} … {values[-1]:.2f}"
        yield f"| {claim} | {said[0]} | {said[1]} | {said[2]} | {limits} |"
    yield ""


def _cells(each: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Write the table of a population: a column for each network."""
    yield "| | " + " | ".join(cells.CELLS[name].network for name in each) + " |"
    yield "|---|" + "---|" * len(each)
    accuracies = (_spread([one["accuracy"] for one in several]) for several in each.values())
    yield "| accuracy | " + " | ".join(accuracies) + " |"
    sizes = (f"{several[0]['channels']}, {several[0]['samples']}" for several in each.values())
    yield "| channels, samples | " + " | ".join(sizes) + " |"
    for claim in next(iter(each.values()))[0]["claims"]:
        row = (_cell([one["claims"][claim] for one in several]) for several in each.values())
        yield f"| {claim} | " + " | ".join(row) + " |"


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    said = [sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS]
    star = "\\*" if any("by algebra" in row["sentence"] for row in rows) else ""
    return f"{_spread([row['estimate'] for row in rows])}{star}, {'/'.join(map(str, said))}"


def _spread(values: Sequence[float], digits: int = 2) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def _curves(layer: str, each: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Write the accuracies of all seeds beside those of the prototype."""
    of = [one["layers"][layer] for one in each]
    yield (
        f"{curves.TITLES[layer]}; {_spread([one['all'] for one in each], 3)} with all of them, "
        f"{_spread([one['none'] for one in of], 3)} with none.\n"
    )
    yield "| features | " + " | ".join(map(str, curves.KS)) + " |"
    yield "|---|" + "---|" * len(curves.KS)
    known = curves.BEFORE.get(layer, {})
    for name in (name for name in of[0] if name != "none"):
        values = np.array([one[name] for one in of]).T
        before = (
            [f" ({cell.split('±')[0]})" for cell in known[name].split()] if name in known else []
        )
        before = before or [""] * len(curves.KS)
        row = (f"{_spread(one, 3)}{told}" for one, told in zip(values, before, strict=True))
        yield f"| {name} | " + " | ".join(row) + " |"
