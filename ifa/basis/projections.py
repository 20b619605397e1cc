"""Features of a dictionary in the place of channels."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ifa.basis.dictionaries import Dictionary, check_dictionary, digest, encode, over_channels
from ifa.chains import Chain, chain, describe
from ifa.checks import outside
from ifa.declared import declare, declared
from ifa.stages import expect, weigh
from ifa.types import BasisDependent, Features, Step


def project(dictionary: Dictionary) -> Step:
    r"""Make a step that reads `Features` in a basis: from it on, a channel is an atom.

    .. math:: U_k(p) = \sum_c E_{kc} A_c(p), \qquad
        \frac{\partial S}{\partial U_k}(p) = \sum_c D_{kc} G_c(p)

    With :math:`A(p) = \sum_k U_k(p) D_k`, as in a full basis, the sum over channels of activation
    times gradient is the same in both: so are the maps and the sum of importances of `fullcam` and
    `gradcam`. Of atoms that do not span the layer, the rest is in none of them.

    Parameters
    ----------
    dictionary
        Of the layer, see `ifa.basis.Dictionary`.

    Returns
    -------
    callable
        `Features` -> `Features`, of atoms in the place of channels. It comes first in a chain.

    Raises
    ------
    TypeError, ValueError
        If it is no dictionary, or (when called) its channels are not the layer's.

    Examples
    --------
    >>> import ifa, torch
    >>> turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    >>> step = ifa.project(ifa.basis.Dictionary(turned, turned, torch.zeros(2)))
    >>> seen = ifa.Features(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor(0))
    >>> explain = ifa.chain(ifa.weigh(ifa.weight.fullcam), ifa.combine)
    >>> explain(seen).values, explain(step(seen)).values
    (tensor([2., 4.]), tensor([2., 4.]))
    """
    # without names, which make no other step: a run goes on when its atoms are named
    bare = check_dictionary("ifa.project", dictionary)._replace(
        names=Dictionary._field_defaults["names"]
    )
    return partial(_project, dictionary=bare)


@declare(kind="projection", gradients=False)
def _project(features: Features, *, dictionary: Dictionary) -> Features:
    where = "ifa.project"
    expect(where, features, Features, "Put it first in the chain, before ifa.weigh(...).")
    activations, gradients, target = features
    if len(activations) != dictionary.atoms.shape[1]:
        check_dictionary(where, dictionary, len(activations))
    codes = encode(dictionary, activations)
    return Features(codes, over_channels(dictionary.atoms, gradients), target)


def check_basis(where: str, name: str, basis: Any) -> None:
    """Raise unless an option is None, a dictionary, or a mapping of them by layers."""
    each = basis.values() if isinstance(basis, Mapping) else () if basis is None else (basis,)
    for one in each:
        check_dictionary(f"{where}, {name}", one)


def by_layer(
    where: str, basis: Any, layers: Sequence[str], channels: Sequence[int]
) -> dict[str, Dictionary]:
    """Return the dictionary of each layer, of one or a mapping by layers."""
    named = dict(basis) if isinstance(basis, Mapping) else dict.fromkeys(layers[:1], basis)
    if {*named} != {*layers}:
        came = ", ".join(map(str, named)) if isinstance(basis, Mapping) else "one"
        raise ValueError(
            f"{where}: expected basis to have a dictionary for each of {', '.join(layers)}, got "
            f"{came}. Give a mapping by layers."
        )
    pairs = zip(layers, channels, strict=True)
    return {layer: check_dictionary(where, named[layer], extent) for layer, extent in pairs}


def projections(
    layers: tuple[str, ...], channels: tuple[int, ...], *, where: str, basis: Any
) -> tuple[Step, ...]:
    """Return the projection of each layer."""
    return tuple(map(project, by_layer(where, basis, layers, channels).values()))


def check_features(where: str, what: str, values: Any, basis: Any) -> None:
    """Raise where values are said to be of atoms without a basis, or of channels in one."""
    dims = getattr(values, "dims", ())
    if basis is None and "atom" in dims:
        raise ValueError(
            f"{where}: expected {what} of the layer's channels, got one of atoms. Give the "
            "dictionary that they are of as basis=."
        )
    if basis is not None and "channel" in dims:
        raise ValueError(
            f"{where}: expected {what} of atoms with basis=, got one of channels. Take it from "
            "statistics in this basis, ifa.analyze(..., basis=)."
        )


def digests(basis: Any) -> Any:
    """Return what tells a basis from every other, for a spec."""
    if isinstance(basis, Mapping):
        return {layer: digest(one) for layer, one in basis.items()}
    return None if basis is None else digest(basis)


def heed_basis(where: str, weight: Any, basis: Any = None) -> None:
    """Warn of a weighting whose maps are other ones in another basis, where it is in one."""
    kernel = weight
    if basis is not None and declared(weight, "kind", "kernel") != "kernel":
        return  # it is refused
    if basis is None:
        steps = weight.steps if isinstance(weight, Chain) else (weight,)
        if not any(declared(step, "kind") == "projection" for step in steps):
            return
        kernels = [step.keywords["kernel"] for step in steps if "kernel" in _bound(step)]
        kernel = kernels[0] if kernels else steps[-1]
        if declared(kernel, "kind") == "projection":
            return  # it weighs nothing, and is refused
    if not declared(kernel, "linear", False):
        warnings.warn(
            f"{where}: the weighting {describe(kernel)} is not linear in the gradients over "
            "channels, so that its maps and importances are other ones in every basis: those of "
            "atoms are not those of channels turned. ifa.weight.fullcam's and gradcam's are.",
            BasisDependent,
            stacklevel=outside(),
        )


def _bound(step: Any) -> Mapping[str, Any]:
    return step.keywords if isinstance(step, partial) else {}


def weights_in(weight: Any, basis: Any, layers: Sequence[str]) -> tuple[Any, ...]:
    """Return what weighs each layer, as one method: in a basis a chain that begins with it."""
    if basis is None:
        return (weight,) * len(layers)
    named: Any = basis if isinstance(basis, Mapping) else dict.fromkeys(layers, basis)
    return tuple(chain(project(named[layer]), weigh(weight)) for layer in layers)
