"""The benchmark's own arithmetic; what it measures is in docs/performance.md."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.measure import Measured, exponents, interleaved, table
from bench.records import load, parsed, save, slower

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


def test_exponents_are_those_of_powers():
    assert exponents([1, 10, 100], [2.0, 20.0, 2000.0]) == ["", "1.00", "2.00"]


def test_what_became_slower_is_named_and_what_did_not_is_not(tmp_path):
    head = ["work", "variant", "ms", "/ bare", "faster than theirs", "passes", "max difference"]

    def printed(*rows):
        return [parsed("### Speed\n\nA note.\n\n" + table(head, list(rows)))]

    one = ["a", "ifa", "10", "1.00 (0.99–1.01)", "2.00 (1.90–2.10)", 815, "1e-6"]
    two = ["b", "ifa", "10", "1.00 (0.80–1.30)", "2.00 (1.00–3.00)", 40, "1e-6"]
    old = printed(one, two)
    save(old, tmp_path / "old.json")
    assert load(tmp_path / "old.json") == old
    assert slower(old, old) == []
    # times of another machine, a difference within what rounds differ by, and what became faster
    fine = ["a", "ifa", "99", "0.80 (0.79–0.81)", "2.50 (2.40–2.60)", 700, "1e-2"]
    assert (
        slower(old, printed(fine, ["b", "ifa", "9", "1.20 (0.90–1.40)", two[4], 40, "0e+00"])) == []
    )
    bad = ["a", "ifa", "10", "1.20 (1.19–1.21)", "1.50 (1.40–1.60)", 816, "1e-6"]
    assert slower(old, printed(bad, two)) == [
        "Speed: a, ifa: / bare: 1.00 (0.99–1.01) → 1.20 (1.19–1.21)",
        "Speed: a, ifa: faster than theirs: 2.00 (1.90–2.10) → 1.50 (1.40–1.60)",
        "Speed: a, ifa: passes: 815 → 816",
    ]


@pytest.mark.deep
def test_the_quick_benchmark_runs():
    command = [sys.executable, "-W", "ignore", "-m", "tests.bench", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n### ") == 22
