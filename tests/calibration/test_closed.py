"""The table is closed: whatever public reports an interval, a p-value or an alarm has a row."""

import inspect
import re
from importlib import import_module

import numpy as np

from ifa import contest, diagnose, evaluate

from .runs import simulated_table
from .settings import Setting, run_of
from .table import CELLS

ROOMS = ("contest", "diagnose", "evaluate", "population", "reduce")
# a name that a docstring's Returns has in backticks, or a variable of what is returned
PROMISE = re.compile(
    r"(?:\w+_)?(?:p|p_value|p_adjusted|alarm|low|high|interval|tied|equivalent)|\w+_bound|p_\w+"
)
WORD = re.compile(r"\b(?:interval|intervals|p-value|alarm)\b")
CLAIMED = {
    name: {word for cell in CELLS.values() if cell.of == name for word in cell.reports}
    for name in {cell.of for cell in CELLS.values()}
}


FUNCTIONS = {
    f"{room}.{name}": inspect.getdoc(found) or ""
    for room in ROOMS
    for name, found in vars(import_module(f"ifa.{room}")).items()
    if name in import_module(f"ifa.{room}").__all__ and inspect.isfunction(found)
}


def promises(text):
    """Names of intervals, p-values and alarms in the Returns of a docstring; "" where unnamed."""
    part = re.search(r"\nReturns\n-+\n(.*?)(?=\n[A-Z][a-z ]+\n-+\n|\Z)", text, re.DOTALL)
    said = part[1] if part else ""
    names = {name for name in re.findall(r"`+(\w+)`+", said) if PROMISE.fullmatch(name)}
    return names or ({""} if WORD.search(said) or "(low, high)" in said else set())


def missing(name, text):
    """What a function promises that no row of the table looks at; it may name another function."""
    claimed, said = CLAIMED.get(name), promises(text) - {one.split(".")[1] for one in FUNCTIONS}
    return {name} if said and claimed is None else said - {"", *(claimed or ())}


def test_every_promise_has_a_row():
    """A new one needs a row in `intervals` or `alarms`, for what it reports."""
    assert {
        name: missed for name, text in FUNCTIONS.items() if (missed := missing(name, text))
    } == {}


def test_every_row_is_of_something_public():
    assert CLAIMED.keys() <= FUNCTIONS.keys()


def returned():
    """Return what each function that returns a dataset does, of a small run."""
    rng = np.random.default_rng(0)
    one, other = (run_of(rng, Setting(60, targets=2), name=name) for name in "ab")
    yield "diagnose.agreement", diagnose.agreement(one, other)
    yield "diagnose.confounders", diagnose.confounders(one, np.arange(60) // 2 % 2)
    yield "diagnose.outliers", diagnose.outliers(one)
    yield "diagnose.redundancy", diagnose.redundancy(one)
    yield "diagnose.shift", diagnose.shift(one, other)
    yield "evaluate.consistency_report", evaluate.consistency_report(one)
    yield "contest.summary", contest.summary(simulated_table(rng.standard_normal((3, 2, 9))))


def test_every_variable_that_promises_has_a_row():
    for name, found in returned():
        named = {str(one) for one in found.data_vars if PROMISE.fullmatch(str(one))}
        assert named <= CLAIMED[name], name


def test_a_function_without_a_row_is_found():
    text = (
        "Say.\n\nReturns\n-------\nxarray.Dataset\n    `level_alarm` of each.\n\nRaises\n------\n"
    )
    assert missing("evaluate.new", text) == {"evaluate.new"}
    assert missing("diagnose.outliers", text) == {"level_alarm"}
    assert not missing("diagnose.shift", text)
    assert missing("evaluate.new", "Say.\n\nReturns\n-------\n(low, high)\n    An interval.")
    assert not missing(
        "evaluate.new", "An alarm.\n\nReturns\n-------\nCurve\n    `auc`: low is good."
    )
