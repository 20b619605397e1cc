"""Laws of stores: `make(store, seed)` runs one of many analyses, in a directory or in memory."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import ifa
from ifa.testing.holding import hold

Make = Callable[[Path | None, int], Any]


def a_store_gives_back_what_was_put_in(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """An opened run is identical to what was returned, and equal to the analysis in memory."""
    del verify
    read = open or ifa.open

    @given(st.integers(0, 99))
    def law(seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            returned = make(run, seed).load()
            opened = read(run).load()
        assert opened.identical(returned), f"expected {returned}, got {opened}"
        assert opened.equals(make(None, seed)), "expected the same values as in memory"

    hold(law, examples)


def repeating_an_analysis_changes_nothing(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """The same call again returns the finished run and does not write a byte."""
    del open, verify

    @given(st.integers(0, 99))
    def law(seed: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            first = make(run, seed).load()
            before = _written(run)
            second = make(run, seed).load()
            assert _written(run) == before, "expected no file written by the second call"
        assert second.identical(first), "expected the same result"

    hold(law, examples)


def another_analysis_is_refused(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """A store of another specification is an error, and is left as it was."""
    del open, verify

    @given(st.lists(st.integers(0, 99), min_size=2, max_size=2, unique=True))
    def law(seeds: list[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            make(run, seeds[0])
            before = _written(run)
            try:
                make(run, seeds[1])
            except ValueError:
                assert _written(run) == before, "expected the refused store left as it was"
            else:
                raise AssertionError("expected a ValueError for a store of another analysis")

    hold(law, examples)


def verifying_passes_until_a_byte_changes(
    make: Make, *, open: Any = None, verify: Any = None, examples: int | None = None
) -> None:
    """`verify` accepts a finished run, and refuses it with any byte of its content changed."""
    del open
    check = verify or ifa.verify

    @given(st.integers(0, 99), st.data())
    def law(seed: int, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder, "run")
            make(run, seed)
            assert check(run) is None, "expected None for a run as it was made"
            names = [
                Path(path).relative_to(run) for path, (_, text) in _written(run).items() if text
            ]
            file = run / data.draw(st.sampled_from(names), label="file")
            content = bytearray(file.read_bytes())
            content[data.draw(st.integers(0, len(content) - 1), label="byte")] ^= 1
            file.write_bytes(content)
            try:
                check(run)
            except ValueError:
                return
            raise AssertionError(f"expected a ValueError after {file.name} was changed")

    hold(law, examples)


STORE = (
    a_store_gives_back_what_was_put_in,
    repeating_an_analysis_changes_nothing,
    another_analysis_is_refused,
    verifying_passes_until_a_byte_changes,
)


def _written(run: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file was written, and what."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
