"""Dictionaries: features that several channels make up together, as plain data."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifa.network.tokens import callable_token, digest_of


class Dictionary(NamedTuple):
    r"""Features of a layer beyond its channels: atoms, and what reads their codes.

    .. math:: U_k(p) = \sum_c E_{kc} A_c(p) + e_k, \qquad A(p) \approx b + \sum_k U_k(p) D_k

    Codes are not centred. Where `active` is not 0 they are rectified, and at every position all
    but so many of the largest are 0. The mean of the activations is made of their own codes, and of
    a base b that no atom holds: a layer of which no atom is kept is at its mean.
    """

    atoms: Tensor  # (atom, channel), D, activation unit per code
    encode: Tensor  # (atom, channel), E, codes per activation unit
    mean: Tensor  # (channel,), of the activations: what dropped atoms are filled with
    bias: Tensor = torch.zeros(())  # (atom,) or (), e, added to codes
    active: Tensor = torch.zeros((), dtype=torch.int64)  # (), how many codes are not 0; 0 for all
    unexplained: Tensor = torch.tensor(torch.nan)  # (), of held-out variance; NaN if not measured
    names: Tensor = torch.zeros(0, dtype=torch.uint8)  # (byte,), lines of UTF-8, an atom's each


def encode(dictionary: Dictionary, activations: Tensor) -> Tensor:
    r"""Return the codes of activations.

    Parameters
    ----------
    dictionary
        Of this layer.
    activations : (channel, \*space)
        Of one example. Of a batch: ``torch.vmap(encode, (None, 0))``.

    Returns
    -------
    (atom, \*space)
        Codes, in the dtype of the activations.

    Examples
    --------
    >>> import ifa, torch
    >>> turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    >>> ifa.basis.encode(ifa.basis.Dictionary(turned, turned, torch.zeros(2)), torch.ones(2))
    tensor([ 1.4000, -0.2000])
    """
    codes = over_channels(dictionary.encode, activations)
    if dictionary.bias.ndim:
        bias = dictionary.bias.to(codes)
        codes = codes + bias.reshape(-1, *(1,) * (codes.ndim - 1))
    active = int(dictionary.active)
    return codes if active == 0 else largest(codes.relu(), active)


def decode(dictionary: Dictionary, codes: Tensor) -> Tensor:
    r"""Return the activations that codes stand for.

    Parameters
    ----------
    dictionary
        Of the layer.
    codes : (atom, \*space)
        Of one example; those of some may be another's, or the `fill`.

    Returns
    -------
    (channel, \*space)
        :math:`b + \sum_k U_k D_k`, in the dtype of the codes.

    Examples
    --------
    >>> import ifa, torch
    >>> first = ifa.basis.Dictionary(torch.eye(1, 2), torch.eye(1, 2), torch.tensor([5.0, 7.0]))
    >>> ifa.basis.decode(first, torch.tensor([2.0]))
    tensor([2., 7.])
    """
    mean = dictionary.mean.double()
    held = over_channels(dictionary.atoms.T, encode(dictionary, mean))
    base = (mean - held).to(codes)
    return over_channels(dictionary.atoms.T, codes) + base.reshape(-1, *(1,) * (codes.ndim - 1))


def fill(dictionary: Dictionary) -> Tensor:
    """Return what stands for each atom that is dropped: the code of the mean activation.

    Parameters
    ----------
    dictionary
        Of any layer.

    Returns
    -------
    (atom,)
        Of the dictionary's dtype.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.basis.fill(ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.tensor([1.0, 2.0])))
    tensor([1., 2.])
    """
    return encode(dictionary, dictionary.mean)


def digest(dictionary: Dictionary) -> str:
    """Return what tells a dictionary from every other: a digest of its tensors, but the names.

    Parameters
    ----------
    dictionary
        Of any layer, on any device.

    Returns
    -------
    str
        The same for the same numbers of the same dtype.

    Examples
    --------
    >>> import ifa, torch
    >>> one = ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.zeros(2))
    >>> ifa.basis.digest(one) == ifa.basis.digest(one._replace(mean=torch.ones(2)))
    False
    """
    return digest_of(callable_token([part.cpu().contiguous() for part in dictionary[:-1]]))


def check_dictionary(where: str, dictionary: Any, channels: int | None = None) -> Dictionary:
    """Raise unless it is a dictionary, of finite numbers, of a layer of so many channels."""
    if not isinstance(dictionary, Dictionary):
        raise TypeError(
            f"{where}: expected an ifa.basis.Dictionary, got {type(dictionary).__name__}. Make one "
            "with ifa.basis.pca, balanced, nmf, …, or read one with ifa.basis.load."
        )
    atoms, reads, mean, bias, active, unexplained, names = dictionary
    shapes = tuple(tuple(part.shape) for part in dictionary[:-1])
    whole = (
        atoms.ndim == 2
        and not (active.ndim or unexplained.ndim)
        and reads.shape == atoms.shape
        and mean.shape == atoms.shape[1:]
    )
    if not whole or bias.shape not in ((), atoms.shape[:1]) or not atoms.numel():
        raise ValueError(
            f"{where}: expected a dictionary of atoms (atom, channel), encode (atom, channel), "
            f"mean (channel,), bias (atom,) or (), active () and unexplained (), got {shapes}."
        )
    if not all(part.is_floating_point() and part.isfinite().all() for part in dictionary[:4]):
        raise ValueError(f"{where}: expected a dictionary of finite real numbers.")
    if active.is_floating_point() or not 0 <= int(active) <= len(atoms):
        raise ValueError(
            f"{where}: expected active to be a whole number, 0 to {len(atoms)}, got {active}."
        )
    lines = bytes(names.tolist()).count(b"\n") + 1 if names.dtype == torch.uint8 else 0
    if names.numel() and lines != len(atoms):
        raise ValueError(
            f"{where}: expected names of {len(atoms)} atoms, lines of UTF-8 as uint8, got {lines}. "
            "Give them by ifa.basis.named."
        )
    if channels is not None and atoms.shape[1] != channels:
        raise ValueError(
            f"{where}: expected a dictionary for the layer's {channels} channels, got one for "
            f"{atoms.shape[1]}. Fit it to this very layer."
        )
    return dictionary


def largest(codes: Tensor, count: int) -> Tensor:
    """Set all but the largest codes of every position to 0; of equal ones the lower is kept."""
    if count >= len(codes):
        return codes
    order = codes.argsort(dim=0, descending=True, stable=True)
    kept = torch.zeros_like(codes).scatter(0, order[:count], 1.0)
    return codes * kept


def over_channels(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply the first axis of values by a matrix, in their dtype and on their device."""
    flat = values.reshape(len(values), -1)
    return (matrix.to(values) @ flat).reshape(-1, *values.shape[1:])
