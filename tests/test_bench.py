"""The benchmark's own arithmetic; what it measures is in docs/performance.md."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.measure import Measured, interleaved, table

ROOT = Path(__file__).parents[1]


def test_ratios_are_those_of_the_rounds():
    taken = Measured(ours=[2.0, 4.0, 9.0], theirs=[1.0, 4.0, 3.0])
    assert taken.ratio("ours", "theirs") == (2.0, 1.0, 3.0)
    assert str(taken.ratio("ours", "theirs", 0.5)) == "1.00 (0.50–1.50)"
    assert taken.milliseconds("theirs") == "3000"


def test_variants_run_in_turns_and_back():
    ran: list[str] = []
    taken = interleaved({name: lambda name=name: ran.append(name) for name in "ab"}, 0, least=3)
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"  # once to warm up
    assert {name: len(times) for name, times in taken.items()} == {"a": 3, "b": 3}


def test_a_table_is_markdown():
    assert table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


@pytest.mark.deep
def test_the_quick_benchmark_runs():
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n### ") == 17
