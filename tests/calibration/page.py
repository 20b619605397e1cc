"""The page docs/calibration.md: what was measured, as tables that people can read."""

from collections.abc import Mapping
from itertools import groupby

from .cells import ASKED, SURE, Cell, Rate, verdict
from .settings import CHANNELS, ICC, MEMBERS, WITHIN
from .table import CELLS

_TOP = f"""# Calibration

An interval of 95 % should hold the truth in 95 of 100 studies, and an alarm at 5 % should be
raised in at most 5 of 100 studies of nothing. Whether they do is measured here: through the
public functions, over populations whose truth is known, {{draws}} of them for most lines.
`python -m tests.calibration` makes this page; CI measures the core lines anew, with 300
populations each, and fails if one is out of bounds. Nothing that `ifa.diagnose`, `ifa.evaluate`,
`ifa.population`, `ifa.contest` or `ifa.reduce` returns as an interval, a p-value or an alarm may
be missing here: a test sees to that.

## How to read it

A line is one function in one setting. **Measured** is the share of populations, and in brackets
the exact binomial limits (95 %, Clopper and Pearson): what the share could be, for so many
populations. A line fails if its limits at {SURE:.0%} lie wholly outside of what is **asked**:

| what | nominal | asked |
|---|---|---|
| an interval holds the truth | 95 % | {ASKED["interval"][0]:g} … {ASKED["interval"][1]:g} |
| an alarm, or any of several, where there is nothing | ≤ 5 % | ≤ {ASKED["alarm"][1]:g} |
| an alarm where a fault was planted: power | high | ≥ {ASKED["power"][0]:g} |

An alarm that is raised less often than at 5 % errs on the safe side. That costs power, which is
why both are shown. *Silent* counts populations for which there was no answer (NaN); they are in
no share. A line with another bound is an exception, which is stated where it stands.

Settings:

* **normal, t3, lognormal, ReLU-like**: importances are standard normal; of Student's t with 3
  degrees of freedom, whose tails are heavy; skewed, the exponential of normal ones; or never
  negative and zero in half of the samples.
* **n** is the number of samples of a run, of all targets together. Intervals are of one channel,
  alarms over {CHANNELS} unless another number is said.
* **blocks**: channels hang together by {MEMBERS}, with a correlation of {WITHIN:g}; otherwise
  they are independent.
* **clusters**: samples belong together by {MEMBERS}, such as the slices of a patient, with an
  intraclass correlation of {ICC:g}. The run says which, by `cluster=`, unless *not given* is
  said: then the line shows what ignoring it costs, and nothing is asked of it.
* **listed targets**: each sample is explained for every one of them.

What is not here is not known. Real runs follow none of these four: look at the lines that are
nearest to your own distributions, n and number of channels.
"""

_PARTS = {
    "interval": ("Intervals", "holds the truth"),
    "alarm": ("Alarms where there is nothing", "alarm"),
    "power": ("Alarms where a fault was planted", "found"),
}


def page(rates: Mapping[str, Rate]) -> str:
    """Write the page of the cells that were measured."""
    cells_of = [cell for key, cell in CELLS.items() if key in rates]
    most = max(rate.of + rate.silent for rate in rates.values())
    text = [_TOP.format(draws=f"{most:,}".replace(",", " "))]
    if len(rates) < len(CELLS):
        text.append(f"So far {len(rates)} of {len(CELLS)} lines are measured, those of CI first.\n")
    text += _exceptions(rates)
    for kind, (title, verb) in _PARTS.items():
        text.append(f"## {title}\n")
        rows = sorted((cell for cell in cells_of if cell.kind == kind), key=_named)
        for name, cells in groupby(rows, _named):
            text.append(f"### {name}\n")
            text.append(f"| setting | {verb} | asked | populations |\n|---|---|---|---|")
            text += [_row(cell, rates[cell.key]) for cell in cells]
            text.append("")
    return "\n".join(text).rstrip() + "\n"


def _named(cell: Cell) -> str:
    return f"`{cell.of}`: {', '.join(f'`{name}`' for name in cell.reports)}"


def _row(cell: Cell, rate: Rate) -> str:
    low, high = rate.limits(0.95)
    said = f"{rate.hits / rate.of:.3f} ({low:.3f} … {high:.3f})" if rate.of else "no answer"
    silent = f", {rate.silent} silent" if rate.silent else ""
    outside = " ⚠" if verdict(cell, rate) else ""
    return (
        f"| {cell.setting} | {said}{outside} | {_asked(cell)} | {rate.of + rate.silent}{silent} |"
    )


def _asked(cell: Cell) -> str:
    least, most = cell.bounds
    if (least, most) == (0, 1):
        return "nothing"
    if least == 0:
        return f"≤ {most:g}"
    return f"≥ {least:g}" if most == 1 else f"{least:g} … {most:g}"


def _exceptions(rates: Mapping[str, Rate]) -> list[str]:
    stated = [cell for key, cell in CELLS.items() if cell.why and key in rates]
    stated.sort(key=lambda cell: (cell.why, cell.of))
    if not stated:
        return []
    text = ["## Exceptions\n", "Where less is asked, and why:\n"]
    for why, cells in groupby(stated, lambda cell: cell.why):
        text.append(f"* {why}")
        for name, each in groupby(cells, lambda cell: cell.of):
            known = [(cell, rates[cell.key]) for cell in each]
            shares = [rate.hits / rate.of for _, rate in known if rate.of]
            said = f"{min(shares):.3f} … {max(shares):.3f}" if shares else "no answer"
            settings = "; ".join(cell.setting for cell, _ in known)
            text.append(f"  * `{name}`: {said}, asked {_asked(known[0][0])}, in: {settings}")
    return [*text, ""]
