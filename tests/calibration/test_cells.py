"""Every interval covers, and every alarm errs, as often as it says."""

import numpy as np
import pytest
from scipy.stats import binomtest

from .cells import Cell, Rate, measured, verdict
from .page import page
from .table import CELLS, MISSES


def cells(*, core):
    return [
        pytest.param(
            cell,
            id=key,
            marks=[pytest.mark.xfail(strict=True, reason=MISSES[key])] if key in MISSES else [],
        )
        for key, cell in CELLS.items()
        if cell.core or not core
    ]


@pytest.mark.parametrize("cell", cells(core=True))
def test_core(cell):
    assert not verdict(cell, measured(cell, 300))


@pytest.mark.deep
@pytest.mark.parametrize("cell", cells(core=False))
def test_deep(cell):
    assert not verdict(cell, measured(cell, cell.draws))


def test_a_known_miss_is_of_the_table():
    assert MISSES.keys() <= CELLS.keys()


def biased(rate, kind="interval"):
    return Cell("evaluate.none", ("low",), kind, f"{rate:g}", lambda rng: bool(rng.random() < rate))


@pytest.mark.parametrize("hits", [0, 3, 285, 300])
def test_limits_are_the_exact_binomial_ones(hits):
    known = binomtest(hits, 300).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(Rate(hits, 300).limits(0.95), (known.low, known.high), atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "kind", "said"),
    [
        (0.85, "interval", "too seldom"),
        (1.00, "interval", "too often"),
        (0.15, "alarm", "too often"),
        (0.60, "power", "too seldom"),
    ],
)
def test_what_does_not_keep_its_promise_is_told_by_300_draws(rate, kind, said):
    cell = biased(rate, kind)
    assert verdict(cell, measured(cell, 300)).endswith(said)


@pytest.mark.parametrize(("rate", "kind"), [(0.95, "interval"), (0.05, "alarm"), (0.9, "power")])
def test_what_keeps_its_promise_passes(rate, kind):
    cell = biased(rate, kind)
    assert not verdict(cell, measured(cell, 2000))


def test_silence_is_no_coverage():
    cell = Cell(
        "evaluate.none", ("low",), "interval", "", lambda rng: True if rng.random() < 0.3 else None
    )
    assert "no answer" in verdict(cell, measured(cell, 300))


def test_draws_do_not_depend_on_those_before_them():
    cell = biased(0.5)
    parts = [measured(cell, 30, first) for first in (0, 30)]
    assert measured(cell, 60) == Rate(*np.sum(parts, axis=0).tolist())


def test_the_page_names_every_cell():
    text = page({key: Rate(95, 100) for key in CELLS})
    assert all(f"| {cell.setting} |" in text for cell in CELLS.values())
