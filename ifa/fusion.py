"""Several maps to one: of layers, of targets, of components, of augmented inputs."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from ifa.checks import check_size
from ifa.network.inputs import at, grid_place, put
from ifa.resizing import place, resized
from ifa.stages import expect
from ifa.types import Inputs, Map, Positions, Step, Target, Weighted
from ifa.weight.eigencam import first_direction

How = Literal["max", "mean", "product"]
# (inputs, target) -> maps (sample, *space) at the input's size
Explain = Callable[[Tensor, Any], Tensor]


def fuse(
    maps: Sequence[Map],
    *,
    how: How = "max",
    size: Sequence[int] | None = None,
    positions: Sequence[Positions] | None = None,
) -> Map:
    r"""Fuse the maps of several layers of one example, after bringing them to one grid.

    Maximum and mean suit maps on one scale. Refine-CAM is the product of maps that were each
    scaled by `ifa.minmax`; torch-cam fuses by the maximum.

    Parameters
    ----------
    maps
        One `Map` for each layer, of one example, with the same number of axes. Lift it over a batch
        with `ifa.batched`: ``ifa.batched(ifa.fuse)((maps_of_layer3, maps_of_layer4))``.
    how
        ``"max"``, ``"mean"`` or ``"product"``, at each position.
    size
        The grid to fuse on, such as the input's; the largest of the maps' if None.
    positions
        Where the units of each layer lie, see `ifa.positions`: each map is then brought to `size`,
        which is to be the input's, by `ifa.place`. None tiles the input evenly with the units of
        every layer, as `ifa.resize` does.

    Returns
    -------
    Map
        With the target of the first.

    Raises
    ------
    ValueError
        If there is no map, their numbers of axes differ, `how` is unknown, or positions are not
        those of as many maps, with a size.

    References
    ----------
    Refine-CAM: arXiv:2605.14641, by torch-cam's public code.

    Examples
    --------
    >>> import torch
    >>> coarse, fine = Map(torch.ones(1), torch.tensor(0)), Map(torch.arange(3.0), torch.tensor(0))
    >>> fuse([coarse, fine], how="mean").values
    tensor([0.5000, 1.0000, 1.5000])
    """
    functions = {"max": torch.amax, "mean": torch.mean, "product": torch.prod}
    if how not in functions:
        raise ValueError(f"ifa.fuse: expected how to be one of {[*functions]}, got {how!r}.")
    maps = tuple(maps)
    for one in maps:
        expect("ifa.fuse", one, Map, "Give maps as ifa.combine makes them.")
    if not maps or len({one.values.ndim for one in maps}) > 1:
        shapes = [tuple(one.values.shape) for one in maps]
        raise ValueError(
            f"ifa.fuse: expected maps of one example with equally many axes, got {shapes}. "
            "Lift it over a batch with ifa.batched(ifa.fuse)."
        )
    if positions is not None:
        if size is None or len(positions) != len(maps):
            raise ValueError(
                f"ifa.fuse: expected positions of {len(maps)} maps and the size of the input, got "
                f"{len(positions)} and {size}. Give one of ifa.positions for each map, and size=."
            )
        pairs = zip(maps, positions, strict=True)
        placed = [place(where, size)(one).values for one, where in pairs]
    else:
        largest = max((tuple(one.values.shape) for one in maps), key=prod)
        grid = largest if size is None else tuple(size)
        placed = [resized(one.values, grid) for one in maps]
    stacked = torch.stack(placed)
    return Map(functions[how](stacked, dim=0), maps[0].target)


def saturate(*, gamma: float = 2.0) -> Step:
    r"""Make Layer-CAM's scaling of a map before fusion, which lifts the weak maps of early layers.

    .. math:: h = \tanh(\gamma \, L / \max L)

    A map without a positive value is divided by 1 instead.

    Parameters
    ----------
    gamma
        Slope.

    Returns
    -------
    callable
        `Map` -> `Map`.

    References
    ----------
    Jiang et al. 2021, "LayerCAM", equation 8. doi:10.1109/TIP.2021.3089943

    Examples
    --------
    >>> import torch
    >>> saturate()(Map(torch.tensor([0.0, 4.0]), torch.tensor(0))).values
    tensor([0.0000, 0.9640])
    """
    check_size("ifa.saturate", "gamma", gamma)
    return partial(_saturate, gamma=gamma)


def _saturate(values: Map, *, gamma: float) -> Map:
    expect("ifa.saturate", values, Map, "Put ifa.combine before it.")
    largest = values.values.amax()
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    return values._replace(values=torch.tanh(gamma * values.values / safe))


def combine_principal(weighted: Weighted) -> Map:
    r"""Combine by the first principal component of the weighted activations, for a smoother map.

    .. math:: L = \sum_k v_k \, w_k \odot A_k

    with v the first right singular vector of the centred (space, channel) matrix of
    :math:`w_k \odot A_k`; used in place of `ifa.combine`. Others call it eigen-smooth. The sign is
    that of the plain sum.

    Parameters
    ----------
    weighted
        `Weighted` of one example.

    Returns
    -------
    Map
        Values (\*space), in the score's unit, up to the constant that centring takes away.

    References
    ----------
    Gildenblat et al. 2021, pytorch-grad-cam, ``eigen_smooth``.

    Examples
    --------
    >>> import torch
    >>> one = Weighted(torch.tensor([2.0]), torch.tensor([[1.0, 3.0]]), torch.tensor(0))
    >>> combine_principal(one).values
    tensor([2., 6.])
    """
    expect("ifa.combine_principal", weighted, Weighted, "Put ifa.weigh(...) before it.")
    weights, activations, target = weighted
    parts = weights.reshape(weights.shape + (1,) * (activations.ndim - weights.ndim)) * activations
    return Map(torch.tensordot(first_direction(parts), parts, dims=1), target)


def cluster(maps: Tensor | Map, clusters: Sequence[Sequence[int]]) -> Tensor:
    r"""Sum the maps of targets that belong together, such as several outputs of one regression.

    .. math:: L_c = \sum_{t \in c} L_t

    Parameters
    ----------
    maps : (target, ...)
        Maps of many targets, the target axis first.
    clusters
        For each cluster, the positions of its targets on that axis. A target may be in none, but
        not in two.

    Returns
    -------
    (cluster, ...)
        In the unit of the maps.

    Raises
    ------
    ValueError
        If a position is out of range or stands twice, or a cluster is empty.

    Examples
    --------
    >>> import torch
    >>> cluster(torch.arange(5.0).reshape(5, 1), [[0, 1], [2, 3, 4]])
    tensor([[1.],
            [9.]])
    """
    values = maps.values if isinstance(maps, Map) else maps
    members = [index for part in clusters for index in part]
    good = all(len(part) for part in clusters) and len(set(members)) == len(members)
    if not members or not good or not 0 <= min(members) <= max(members) < len(values):
        raise ValueError(
            f"ifa.cluster: expected clusters of distinct positions in 0..{len(values) - 1}, "
            f"got {[list(part) for part in clusters]}."
        )
    return torch.stack([values[list(part)].sum(0) for part in clusters])


def augmented(
    explain: Explain,
    *,
    flips: Sequence[Sequence[int]] = ((), (-1,)),
    scales: Sequence[float] = (0.9, 1.0, 1.1),
) -> Explain:
    r"""Average an explanation over flipped and brightened inputs: test-time augmentation.

    .. math:: \bar L(x) = \frac{1}{n} \sum_{f, s} f^{-1}\bigl(L(s \cdot f(x))\bigr)

    Parameters
    ----------
    explain
        ``(inputs, target) -> maps`` (sample, \*space), at the input's size or a grid that flips
        with it. With ``target=None`` each augmented input is explained for its own prediction.
    flips
        Sets of axes, counted from the last, each flipped in the input and back in the map.
    scales
        Factors of the input.

    Returns
    -------
    callable
        The same signature.

    References
    ----------
    Gildenblat et al. 2021, pytorch-grad-cam, ``aug_smooth``, whose six passes are the default.

    Examples
    --------
    >>> import torch
    >>> flat = augmented(lambda inputs, target: inputs[:, 0], scales=(1.0, 3.0))
    >>> flat(torch.ones(1, 1, 4))
    tensor([[2., 2., 2., 2.]])
    """
    if not flips or not scales or any(axis >= 0 for axes in flips for axis in axes):
        raise ValueError(
            "ifa.augmented: expected flips of axes counted from the last (negative), and at least "
            f"one flip and scale, got {flips} and {scales}. No flip is the empty tuple ()."
        )

    def explain_augmented(inputs: Inputs, target: Target = None) -> Tensor:
        place = grid_place("ifa.augmented", inputs)
        image = at(inputs, place)
        passes = [
            explain(put(inputs, place, image.flip(tuple(axes)) * scale), target).flip(tuple(axes))
            for axes, scale in product(flips, scales)
        ]
        return torch.stack(passes).mean(0)

    return explain_augmented
