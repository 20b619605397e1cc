"""The dictionaries that runs are in: found among those that are given, by their digests."""

from collections.abc import Mapping, Sequence
from typing import Any

from ifa.basis import Dictionary, digest
from ifa.store.runs import Run

# Path -> what `ifa basis` wrote there.
Given = Mapping[str, Dictionary]


def digests_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of the dictionary of each layer, by the spec of a run; none of channels."""
    known: Any = spec.get("basis") or {}
    return dict(known) if isinstance(known, dict) else {spec["layers"][0]: str(known)}


def bases_of(
    where: str, runs: Sequence[str], layers: Sequence[str] | None, given: Given
) -> list[dict[str, Dictionary] | None]:
    """Return the dictionaries of the layers of each run; None of one of channels.

    Raises
    ------
    ValueError
        If a run's dictionary is not given, or one that is given is of none of them.
    """
    by_digest = {digest(one): (path, one) for path, one in given.items()}
    found: list[dict[str, Dictionary] | None] = []
    used: set[str] = set()
    for run in runs:
        known = digests_of(Run.at(run, where).spec())
        known = {name: one for name, one in known.items() if layers is None or name in layers}
        for layer, one in known.items():
            if one not in by_digest:
                raise ValueError(
                    f"{where}: expected --basis with the dictionary that the run at {run} was made "
                    f"in at layer {layer}, {one[:12]}, got {_said(by_digest)}. Give the file that "
                    "`ifa analyze` was given."
                )
        used |= {*known.values()}
        found.append({name: by_digest[one][1] for name, one in known.items()} or None)
    others = {one: pair for one, pair in by_digest.items() if one not in used}
    if others:
        raise ValueError(
            f"{where}: expected --basis to be what the run at {runs[0]} was made in, got "
            f"{_said(others)}, which it was not. Analyze in that basis: `ifa analyze --basis`."
        )
    return found


def _said(given: Mapping[str, tuple[str, Dictionary]]) -> str:
    return ", ".join(f"{path} ({one[:12]})" for one, (path, _) in given.items()) or "none"
