"""Dictionaries fitted to activations: by scikit-learn, or by other libraries."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifa.basis.dictionaries import Dictionary, check_dictionary, decode, encode
from ifa.checks import check_count
from ifa.stages import as_tensor


def unexplained(dictionary: Dictionary, activations: Any) -> Tensor:
    r"""Measure the share of the variance of activations that a dictionary does not make up.

    .. math:: \frac{\sum_{n,p} |A_n(p) - \hat A_n(p)|^2}{\sum_{n,p} |A_n(p) - \bar A|^2}

    Parameters
    ----------
    dictionary
        Of the layer.
    activations : (sample, channel, \*space)
        Better of samples that it was not fitted to. Their own mean is subtracted below the line.

    Returns
    -------
    (), float64
        0 where all is made up; 1 is what the mean alone leaves. NaN where nothing varies.

    Examples
    --------
    >>> import ifa, torch
    >>> first = ifa.basis.Dictionary(torch.eye(1, 2), torch.eye(1, 2), torch.zeros(2))
    >>> ifa.basis.unexplained(first, torch.tensor([[2.0, 1.0], [-2.0, -1.0]]))
    tensor(0.2000, dtype=torch.float64)
    """
    where = "ifa.basis.unexplained"
    rows = _rows(where, activations)
    check_dictionary(where, dictionary, rows.shape[1])
    left = (rows.T - decode(dictionary, encode(dictionary, rows.T))).square().sum()
    whole = (rows - rows.mean(0)).square().sum()
    return torch.where(whole > 0, left / whole, torch.nan)


def nmf(
    activations: Any,
    *,
    atoms: int,
    held_out: float = 0.25,
    seed: int = 0,
    iterations: int = 200,
) -> Dictionary:
    r"""Parts that only add up: non-negative atoms and codes, by factorization in mini-batches.

    .. math:: A(p) \approx \sum_k U_k(p) D_k, \qquad U, D \ge 0

    Codes are read by a rectified linear map, fitted to those of the factorization.

    Parameters
    ----------
    activations : (sample, channel, \*space)
        Not negative, as after a ReLU; every position is a row.
    atoms
        How many.
    held_out
        Share of the samples that are not fitted to, for `Dictionary.unexplained`.
    seed
        Of the first guess, and of which samples are held out.
    iterations
        Over the data, at most.

    Returns
    -------
    Dictionary
        In float64; every atom is of unit length.

    Raises
    ------
    ValueError
        If an activation is negative or not finite, or there are fewer than two samples.

    References
    ----------
    Lefèvre, Bach & Févotte 2011, "Online algorithms for nonnegative matrix factorization with the
    Itakura-Saito divergence". doi:10.1109/ASPAA.2011.6082314

    Examples
    --------
    >>> import ifa, torch
    >>> parts = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    >>> codes = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    >>> float(ifa.basis.nmf(codes @ parts, atoms=2).unexplained) < 0.02
    True
    """
    from sklearn.decomposition import MiniBatchNMF

    where = "ifa.basis.nmf"
    check_count(where, "atoms", atoms)
    check_count(where, "iterations", iterations)
    if (_rows(where, activations) < 0).any():
        raise ValueError(
            f"{where}: expected activations that are not negative, got some that are. Take the "
            "layer's ReLU, or ifa.basis.pca."
        )
    options: dict[str, Any] = {"n_components": atoms, "random_state": seed}
    model = MiniBatchNMF(**options, max_iter=iterations, batch_size=1024, init="nndsvda")
    return _fitted(where, model, activations, held_out, seed)


def from_sklearn(
    estimator: Any, activations: Any, *, held_out: float = 0.25, seed: int = 0
) -> Dictionary:
    r"""Take a decomposition of scikit-learn as a dictionary, such as ``FastICA`` or ``PCA``.

    Atoms are its ``components_``, of ``FastICA`` the columns of its ``mixing_``, which its
    ``components_`` read. Codes of what is not negative, as of ``MiniBatchNMF``, are read by a
    rectified linear map fitted to them; those of other models, as of ``DictionaryLearning`` without
    ``positive_code``, by least squares, so that they make up as much of the layer as these atoms
    can, and are dense.

    Parameters
    ----------
    estimator
        A decomposition. One that is not fitted yet is copied and fitted to the rows of the samples
        that are not held out; one that is, to (row, channel), is taken as it is.
    activations : (sample, channel, \*space)
        Of this layer; every position is a row.
    held_out, seed
        Share of the samples that are not fitted to, for `Dictionary.unexplained`, and which.

    Returns
    -------
    Dictionary
        In float64.

    Raises
    ------
    TypeError
        If it is no decomposition with ``components_``.
    ValueError
        If an activation is not finite, there are fewer than two samples, or it was fitted to
        another number of channels.

    Examples
    --------
    >>> import ifa, torch
    >>> from sklearn.decomposition import PCA
    >>> rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    >>> float(ifa.basis.from_sklearn(PCA(3), rows).unexplained.round(decimals=6))
    0.0
    """
    return _fitted("ifa.basis.from_sklearn", estimator, activations, held_out, seed)


def from_overcomplete(
    model: Any, activations: Any, *, held_out: float = 0.25, seed: int = 0
) -> Dictionary:
    r"""Take a trained dictionary of the library overcomplete, or of one made like it.

    What is asked of it is ``get_dictionary()``, (atom, channel), and ``encode(rows)``: codes, or
    those before and after the nonlinearity, as a sparse autoencoder gives them. Of an autoencoder
    the encoder has to be affine, and its codes rectified, with the ``top_k`` largest of every row
    if it says so: this is tried on the activations, and refused if it is not so. Of other models
    codes are read as in `from_sklearn`.

    Parameters
    ----------
    model
        Trained, in evaluation mode. Nothing of overcomplete is imported.
    activations : (sample, channel, \*space)
        Of this layer, to try it on and for the mean.
    held_out, seed
        On which share of the samples `Dictionary.unexplained` is measured, and which.

    Returns
    -------
    Dictionary
        In float64.

    Raises
    ------
    TypeError
        If it lacks one of the methods.
    ValueError
        If its codes are not as above.

    References
    ----------
    Fel et al. 2025, "Overcomplete: a vision-based SAE toolbox". github.com/KempnerInstitute
    """
    where = "ifa.basis.from_overcomplete"
    if not callable(getattr(model, "get_dictionary", None)) or not hasattr(model, "encode"):
        raise TypeError(
            f"{where}: expected a model with get_dictionary() and encode(rows), got "
            f"{type(model).__name__}."
        )
    train, test = halves(where, activations, held_out, seed)
    rows = train.float()
    with torch.no_grad():
        atoms = as_tensor(where, "the dictionary", model.get_dictionary()).detach().double().cpu()
        codes = model.encode(rows)
        if isinstance(codes, Tensor):
            codes = codes.double().cpu()
            return _of_codes(where, atoms, codes, train, test, bool((codes >= 0).all()))
        found = _of_encoder(where, model, atoms, rows, train.mean(0))
    return found._replace(unexplained=unexplained(found, test))


def _of_encoder(where: str, model: Any, atoms: Tensor, rows: Tensor, mean: Tensor) -> Dictionary:
    """Read the affine map of a sparse autoencoder, and see that its codes are ours."""
    channels = rows.shape[1]
    before, after = (part.double().cpu() for part in model.encode(rows))
    probe = torch.cat([torch.zeros(1, channels), torch.eye(channels)])
    seen = model.encode(probe)[0].double().cpu()
    matrix, bias = (seen[1:] - seen[0]).T.contiguous(), seen[0].clone()
    active = torch.tensor(int(getattr(model, "top_k", getattr(model, "k", len(atoms)))))
    found = Dictionary(atoms, matrix, mean, bias, active)
    scale = 1e-4 * (1e-6 + float(before.abs().max()))
    affine = rows.double() @ matrix.T + bias
    ours = encode(found, rows.double().T).T
    if not torch.allclose(affine, before, atol=scale) or not _alike(ours, after, scale):
        raise ValueError(
            f"{where}: expected an encoder that is affine, and codes that are rectified, the "
            f"{int(active)} largest of a row, got others from {type(model).__name__}."
        )
    return found


def _alike(ours: Tensor, theirs: Tensor, scale: float) -> bool:
    """Tell whether codes are the same, but for which of two that are as large is kept."""
    return float((ours.sort(1).values - theirs.sort(1).values).abs().max()) <= scale


def _fitted(where: str, model: Any, activations: Any, held_out: float, seed: int) -> Dictionary:
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    train, test = halves(where, activations, held_out, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the error is said
        if not hasattr(model, "components_") and hasattr(model, "fit"):
            copy: Any = clone(model)
            model = copy.fit(train.numpy())
        if not hasattr(model, "components_") or not hasattr(model, "transform"):
            raise TypeError(
                f"{where}: expected a decomposition of scikit-learn with components_, got "
                f"{type(model).__name__}."
            )
        codes = torch.from_numpy(np.asarray(model.transform(train.numpy()))).double()
    components = torch.from_numpy(np.array(model.components_, dtype=np.float64))
    if components.shape[1] != train.shape[1]:
        raise ValueError(
            f"{where}: expected a model of the layer's {train.shape[1]} channels, got one of "
            f"{components.shape[1]}."
        )
    if hasattr(model, "mixing_"):
        atoms = torch.from_numpy(np.array(model.mixing_, dtype=np.float64)).T.contiguous()
        found = Dictionary(atoms, components, train.mean(0))
        return found._replace(unexplained=unexplained(found, test))
    positive = "NMF" in type(model).__name__ or bool(getattr(model, "positive_code", False))
    return _of_codes(where, components, codes, train, test, positive)


def _of_codes(
    where: str, atoms: Tensor, codes: Tensor, train: Tensor, test: Tensor, positive: bool
) -> Dictionary:
    """Find what reads codes, rectified if they are never negative, else by least squares."""
    length = atoms.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    atoms, codes, mean = atoms / length, codes * length.T, train.mean(0)
    if not positive:
        found = Dictionary(atoms, torch.linalg.pinv(atoms).T.contiguous(), mean)
    else:
        table = torch.cat([train, torch.ones(len(train), 1, dtype=torch.float64)], 1)
        reads = torch.linalg.lstsq(table, codes, driver="gelsd").solution.T
        every = torch.tensor(len(atoms))
        found = Dictionary(atoms, reads[:, :-1].contiguous(), mean, reads[:, -1].clone(), every)
    return found._replace(unexplained=unexplained(check_dictionary(where, found), test))


def _rows(where: str, activations: Any) -> Tensor:
    """Take every position of (sample, channel, *space) as a row, in float64."""
    values = as_tensor(where, "activations", activations).detach()
    if values.ndim < 2 or not values.numel() or not values.isfinite().all():
        raise ValueError(
            f"{where}: expected finite activations (sample, channel, *space), at least one, got "
            f"{tuple(values.shape)}{'' if values.ndim < 2 else ' or NaN or infinity in them'}."
        )
    return values.movedim(1, -1).reshape(-1, values.shape[1]).double().cpu()


def halves(where: str, activations: Any, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Part the rows of samples that are fitted to from those of the rest."""
    values = as_tensor(where, "activations", activations)
    samples = len(values) if values.ndim else 0
    if not 0 < held_out < 1 or samples < 2:
        raise ValueError(
            f"{where}: expected at least two samples and held_out in (0, 1), got {samples} and "
            f"{held_out!r}."
        )
    count = min(samples - 1, max(1, round(held_out * samples)))
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    order = order.to(values.device)
    return _rows(where, values[order[count:]]), _rows(where, values[order[:count]])
