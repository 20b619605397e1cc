"""Names of atoms: given after they were looked at, and no part of what a dictionary is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ifa.basis.dictionaries import Dictionary, check_dictionary, digest
from ifa.types import Statistics


def named(dictionary: Dictionary, names: Sequence[str] | Mapping[int, str]) -> Dictionary:
    """Return a dictionary whose atoms have names; its `digest`, and so its runs, are the same.

    Parameters
    ----------
    dictionary
        Of any layer.
    names
        One line of text for each atom, or of some by their place; the others keep theirs. Two may
        be the same, and an empty one is none.

    Returns
    -------
    Dictionary
        With `names`, which `save` keeps.

    Raises
    ------
    TypeError, ValueError
        If there are not as many as atoms, no such atom, or one is not a line of text.

    Examples
    --------
    >>> import ifa, torch
    >>> one = ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.zeros(2))
    >>> seen = ifa.basis.named(one, {1: "a red rim"})
    >>> ifa.basis.names(seen), ifa.basis.digest(seen) == ifa.basis.digest(one)
    (('', 'a red rim'), True)
    """
    where = "ifa.basis.named"
    count = len(check_dictionary(where, dictionary).atoms)
    if isinstance(names, Mapping):
        known = [*(names_or_none(dictionary) or [""] * count)]
        for place, name in names.items():
            if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < count:
                raise ValueError(
                    f"{where}: expected places of atoms, 0 to {count - 1}, got {place!r}."
                )
            known[place] = name
    elif isinstance(names, str) or len(names) != count:
        came = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ValueError(
            f"{where}: expected a name for each of {count} atoms, got {came}. Name some by their "
            "place: {3: 'a red rim'}."
        )
    else:
        known = [*names]
    for name in known:
        if not isinstance(name, str) or len(name.splitlines()) > 1 or name.endswith("\n"):
            raise ValueError(f"{where}: expected every name to be a line of text, got {name!r}.")
    text = "\n".join(known).encode() if any(known) else b""
    return dictionary._replace(names=torch.tensor([*text], dtype=torch.uint8))


def names(dictionary: Dictionary) -> tuple[str, ...]:
    """Return the name of every atom, empty where it has none.

    Parameters
    ----------
    dictionary
        Of any layer.

    Returns
    -------
    tuple of str
        (atom,)

    Examples
    --------
    See `named`.
    """
    check_dictionary("ifa.basis.names", dictionary)
    return names_or_none(dictionary) or ("",) * len(dictionary.atoms)


def name_atoms(statistics: Statistics, basis: Any) -> Statistics:
    """Return a run in a basis with the names of its atoms, as a coordinate ``atom_name(atom)``.

    Parameters
    ----------
    statistics
        What `ifa.analyze` or `ifa.open` returned, of a run with this ``basis=``; its atoms may have
        been named since.
    basis
        The `Dictionary`, or a mapping of them by layers.

    Returns
    -------
    xarray.DataTree
        The same values; every group with a dimension ``atom`` has the coordinate.

    Raises
    ------
    ValueError
        If the run is of channels, or in another basis.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten())
    >>> data = [(torch.rand(1, 4), 0) for _ in range(3)]
    >>> one = ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.zeros(2))
    >>> run = ifa.analyze(net, data, layer="0", basis=one, progress=False)
    >>> seen = ifa.basis.name_atoms(run, ifa.basis.named(one, ["an edge", "a bar"]))
    >>> seen["0"]["importance"].set_xindex("atom_name").sel(atom_name="a bar").dims
    ('target',)
    """
    where = "ifa.basis.name_atoms"
    said = json.loads(statistics.attrs.get("spec", "{}")).get("basis")
    found, named_any = statistics.copy(), False
    for path, group in found.subtree_with_keys:
        if "atom" not in group.dims:
            continue
        one = dictionary_of(where, basis, path.removeprefix("samples/"), said)
        text = np.array(names(one), dtype=object)
        known = group.to_dataset(inherit=False).assign_coords(atom_name=("atom", text))
        group.dataset, named_any = known, True
    if not named_any:
        raise ValueError(
            f"{where}: expected statistics of a run in a basis, got one of channels. Make it with "
            "ifa.analyze(..., basis=)."
        )
    return found


def dictionary_of(where: str, basis: Any, layer: str, said: Any) -> Dictionary:
    """Return a layer's dictionary; raise unless it is the one whose digest a run's spec says."""
    one = check_dictionary(where, basis.get(layer) if isinstance(basis, Mapping) else basis)
    expected = said.get(layer) if isinstance(said, Mapping) else said
    if digest(one) != expected:
        raise ValueError(
            f"{where}: expected the dictionary of layer {layer!r} of this run, "
            f"{str(expected)[:12]}, got {digest(one)[:12]}. Give the one that it was analyzed in."
        )
    return one


def names_or_none(dictionary: Dictionary) -> tuple[str, ...] | None:
    """Read the names of a dictionary that has some."""
    lines = bytes(dictionary.names.tolist())
    return tuple(lines.decode().split("\n")) if lines else None
