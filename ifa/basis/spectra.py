"""Dictionaries from the second moments of a population alone."""

from typing import Any

import torch
from torch import Tensor

from ifa.basis.dictionaries import Dictionary
from ifa.checks import check_count
from ifa.reduce.statistics import one_layer
from ifa.stages import as_tensor

# What is added to a moment for directions that it lacks, as a share of its mean.
_RIDGE = 1e-12


def pca(statistics: Any, *, atoms: int | None = None) -> Dictionary:
    r"""Directions of the largest variance of activations, the largest first.

    .. math:: P = \sum_k \lambda_k d_k d_k^\top, \qquad U_k = d_k^\top A

    Parameters
    ----------
    statistics
        Of one layer, from ``ifa.analyze(..., reductions="second_moments")``, or what
        `ifa.reduce.second_moments` finalizes to.
    atoms
        How many; None for as many as channels.

    Returns
    -------
    Dictionary
        Orthonormal, float64; the largest entry of each atom is positive.

    Raises
    ------
    ValueError
        If there are no such moments, or fewer channels than atoms.

    Examples
    --------
    >>> import ifa, torch
    >>> rows = ifa.reduce.Rows(torch.tensor([[1.0, 1.0], [3.0, 3.5]]), torch.ones(1, 2))
    >>> reduction = ifa.reduce.second_moments()
    >>> moments = reduction.finalize(ifa.reduce.fold(reduction, [rows]))
    >>> ifa.basis.pca(moments, atoms=1).atoms.round(decimals=3)
    tensor([[0.6250, 0.7810]], dtype=torch.float64)
    """
    where = "ifa.basis.pca"
    mean, covariance = _moments(where, statistics, "activation_mean", "activation_covariance")
    return _orthonormal(where, covariance, mean, atoms)


def gradient(statistics: Any, *, atoms: int | None = None) -> Dictionary:
    r"""Directions in which the score changes most, the largest first: the gradients' subspace.

    .. math:: Q = \sum_k \mu_k d_k d_k^\top, \qquad U_k = d_k^\top A

    Of a linear head of c classes only c − 1 directions move their differences; those after them are
    any that are orthogonal.

    Parameters
    ----------
    statistics, atoms
        As in `pca`.

    Returns
    -------
    Dictionary
        As `pca`.

    Raises
    ------
    ValueError
        As `pca`.

    References
    ----------
    Constantine 2015, "Active subspaces". doi:10.1137/1.9781611973860

    Examples
    --------
    >>> import ifa, torch
    >>> rows = ifa.reduce.Rows(torch.eye(2), torch.tensor([[0.0, 2.0], [0.0, -2.0]]))
    >>> reduction = ifa.reduce.second_moments()
    >>> moments = reduction.finalize(ifa.reduce.fold(reduction, [rows]))
    >>> ifa.basis.gradient(moments, atoms=1).atoms
    tensor([[0., 1.]], dtype=torch.float64)
    """
    where = "ifa.basis.gradient"
    mean, moment = _moments(where, statistics, "activation_mean", "gradient_moment")
    return _orthonormal(where, moment, mean, atoms)


def balanced(statistics: Any, *, atoms: int | None = None) -> Dictionary:
    r"""Directions that both vary and matter, by balanced truncation, the strongest first.

    With :math:`P = L L^\top` of activations and :math:`Q = R R^\top` of gradients,

    .. math:: R^\top L = X \Sigma Y^\top, \qquad E = \Sigma^{-1/2} X^\top R^\top, \qquad
        D^\top = L Y \Sigma^{-1/2},

    so that codes are uncorrelated, gradients by codes too, and both have the variances
    :math:`\Sigma`: the geometric mean of how much a feature varies and how much the score depends
    on it. Atoms are not orthogonal, but :math:`E D^\top` is the identity. Directions that one of
    the moments lacks have a share of 1e-12 of its mean, so that there are as many atoms as
    channels, those last.

    Parameters
    ----------
    statistics, atoms
        As in `pca`.

    Returns
    -------
    Dictionary
        In float64; the largest entry of each atom is positive.

    Raises
    ------
    ValueError
        As `pca`.

    References
    ----------
    Moore 1981, "Principal component analysis in linear systems: controllability, observability,
    and model reduction". doi:10.1109/TAC.1981.1102568

    Examples
    --------
    >>> import ifa, torch
    >>> seen = torch.tensor([[9.0, 1.0, 0.0], [-9.0, 1.0, 0.0], [0.0, -2.0, 0.1]])
    >>> slopes = torch.tensor([[0.0, 2.0, 1.0], [0.0, -2.0, 1.0]])
    >>> reduction = ifa.reduce.second_moments()
    >>> moments = reduction.finalize(ifa.reduce.fold(reduction, [ifa.reduce.Rows(seen, slopes)]))
    >>> ifa.basis.balanced(moments, atoms=1).encode.abs().round(decimals=3)
    tensor([[0.0000, 1.1890, 0.0000]], dtype=torch.float64)
    """
    where = "ifa.basis.balanced"
    names = "activation_mean", "activation_covariance", "gradient_moment"
    mean, covariance, moment = _moments(where, statistics, *names)
    count = _count(where, atoms, len(mean))
    left, right = _root(covariance), _root(moment)
    x, strength, yh = torch.linalg.svd(right.T @ left)
    scale = strength[:count].rsqrt()[:, None]
    encode = scale * (x[:, :count].T @ right.T)
    found = scale * (yh[:count] @ left.T)
    sign = _signs(found)
    return Dictionary(found * sign, encode * sign, mean)


def rotation(statistics: Any, *, atoms: int | None = None, seed: int = 0) -> Dictionary:
    """Directions at random, orthonormal: what any basis is to be compared with.

    Parameters
    ----------
    statistics, atoms
        As in `pca`; of the moments only the mean is read.
    seed
        Of the directions.

    Returns
    -------
    Dictionary
        As `pca`.

    Examples
    --------
    >>> import ifa, torch
    >>> rows = ifa.reduce.Rows(torch.eye(3), torch.eye(3))
    >>> reduction = ifa.reduce.second_moments()
    >>> moments = reduction.finalize(ifa.reduce.fold(reduction, [rows]))
    >>> found = ifa.basis.rotation(moments, atoms=2).atoms
    >>> (found @ found.T).round(decimals=6)
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    where = "ifa.basis.rotation"
    (mean,) = _moments(where, statistics, "activation_mean")
    count = _count(where, atoms, len(mean))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(mean), len(mean), generator=generator, dtype=torch.float64)
    found, upper = torch.linalg.qr(noise)
    found = (found * upper.diagonal().sign()).T[:count].contiguous()  # every rotation alike
    return Dictionary(found, found, mean)


def identity(statistics: Any) -> Dictionary:
    """Channels themselves, as atoms.

    Parameters
    ----------
    statistics
        As in `pca`; of the moments only the mean is read.

    Returns
    -------
    Dictionary
        An atom for each channel, in float64.

    Examples
    --------
    >>> import ifa, torch
    >>> rows = ifa.reduce.Rows(torch.eye(2), torch.eye(2))
    >>> reduction = ifa.reduce.second_moments()
    >>> moments = reduction.finalize(ifa.reduce.fold(reduction, [rows]))
    >>> ifa.basis.identity(moments).mean
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    (mean,) = _moments("ifa.basis.identity", statistics, "activation_mean")
    atoms = torch.eye(len(mean), dtype=torch.float64)
    return Dictionary(atoms, atoms, mean)


def _moments(where: str, statistics: Any, *names: str) -> list[Tensor]:
    """Read moments off a layer's statistics, or off what a reduction gives."""
    if hasattr(statistics, "data_vars"):
        statistics = one_layer(statistics, where)
    found = []
    for name in names:
        values = getattr(statistics, name, None)
        if values is None:
            raise ValueError(
                f"{where}: expected the statistics of one layer with {name}, got "
                f"{type(statistics).__name__} without it. Say reductions='second_moments' to "
                "ifa.analyze, and take one layer: statistics['conv2']."
            )
        values = as_tensor(where, name, values).double().cpu()
        if not values.isfinite().all():
            raise ValueError(
                f"{where}: expected {name} of finite numbers, got NaN or infinity. The population "
                "has no sample whose map is finite."
            )
        found.append(values)
    return found


def _orthonormal(where: str, moment: Tensor, mean: Tensor, atoms: int | None) -> Dictionary:
    count = _count(where, atoms, len(mean))
    vectors = torch.linalg.eigh(moment).eigenvectors.flip(1).T[:count]
    vectors = (vectors * _signs(vectors)).contiguous()
    return Dictionary(vectors, vectors, mean)


def _count(where: str, atoms: int | None, channels: int) -> int:
    if atoms is None:
        return channels
    check_count(where, "atoms", atoms, channels)
    return atoms


def _root(moment: Tensor) -> Tensor:
    """Factorize a second moment as a matrix times its transpose, of full rank."""
    values, vectors = torch.linalg.eigh(moment)
    least = _RIDGE * float(moment.diagonal().mean())
    return vectors * values.clamp(min=least if least > 0 else _RIDGE).sqrt()


def _signs(vectors: Tensor) -> Tensor:
    """Return what makes the largest entry of each row positive, (row, 1)."""
    place = vectors.abs().argmax(1, keepdim=True)
    return torch.where(vectors.gather(1, place) < 0, -1.0, 1.0).to(vectors)
