"""Intensity scales: one for a whole population, applied to maps and taken back; or one per map."""

from functools import partial
from math import atanh
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ifa.markup import html_table
from ifa.network.identity import Origin, read_origin
from ifa.reduce.statistics import one_layer
from ifa.stages import as_tensor, by_output, expect, row
from ifa.types import Map, Statistics, Step

# Where the tanh scale puts the two limits.
TANH_LOW, TANH_HIGH = 0.05, 0.95

How = Literal["affine", "tanh"]


class _Limits(NamedTuple):
    low: Tensor
    high: Tensor


class Scale(_Limits):
    """The two limits of a common intensity scale, in the score's unit.

    Parameters
    ----------
    low, high : () or (target,)
        One pair, or one for each target.

    Attributes
    ----------
    origin
        What the scale was made of: network, layer, weighting, score. `scale_from` fills it in, and
        `ifa.explain`, `ifa.maps` and the command line refuse a scale of another origin. None for a
        scale made by hand, which is taken as it is.
    rectified
        Whether it is for maps without what speaks against the target; None if made by hand.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.Scale(torch.tensor(-1.0), torch.tensor(3.0))
    Scale(low=tensor(-1.), high=tensor(3.))
    """

    origin: Origin | None = None
    rectified: bool | None = None

    def __new__(
        cls,
        low: Tensor,
        high: Tensor,
        *,
        origin: Origin | None = None,
        rectified: bool | None = None,
    ) -> "Scale":
        """Make a scale."""
        scale = super().__new__(cls, low, high)
        scale.origin, scale.rectified = origin, rectified
        return scale

    def _replace(self, **changes: Tensor) -> "Scale":  # pyright: ignore[reportIncompatibleMethodOverride]
        # the inherited one drops the origin, and a scale without one is taken for any maps
        limits = {**self._asdict(), **changes}
        return Scale(**limits, origin=self.origin, rectified=self.rectified)

    def _repr_html_(self) -> str:
        made = ("by hand",)
        if self.origin is not None:
            network, weighting, score = self.origin.names
            made = network, f"layer {self.origin.layer}", weighting, f"in {score}"
        limits = (torch.atleast_1d(one).tolist() for one in (self.low, self.high))
        pairs = enumerate(zip(*limits, strict=True))
        rows = [(place, f"{low:.4g}", f"{high:.4g}") for place, (low, high) in pairs]
        rows = [("all", *rows[0][1:])] if self.low.ndim == 0 else rows
        said = f"common scale, {', '.join(made)}{', rectified' if self.rectified else ''}"
        return html_table(["target", "0 is", "1 is"], rows, caption=said)


def scale_from(
    statistics: Statistics,
    *,
    upper: float = 0.90,
    lower: float = 0.50,
    over: Literal["all", "target", "widest"] = "all",
    rectified: bool = False,
) -> Scale:
    r"""Read the common intensity scale off a population's statistics.

    .. math:: high = Q_{upper}(\max_p L_n(p)), \qquad low = Q_{lower}(\min_p L_n(p))

    over the maps :math:`L_n` of the population's samples n, by default the 90th percentile of their
    maxima and the median of their minima.

    Parameters
    ----------
    statistics
        One layer's dataset as `ifa.analyze` returns it, or a tree with one layer.
    upper, lower
        Which of the stored quantiles are the limits.
    over
        ``"all"`` pools every sample: scalars. ``"target"`` gives one scale for each output:
        (target,), with NaN where none was explained. ``"widest"`` takes the lowest low and the
        highest high of the targets.
    rectified
        Put `low` at 0, for chains that rectify first.

    Returns
    -------
    Scale
        `low` and `high`, float64, in the score's unit.

    Raises
    ------
    LookupError
        If a quantile was not stored.
    ValueError
        If the widest scale is asked for and no target was explained.

    References
    ----------
    Li et al. 2024, "Integrated feature analysis". arXiv:2407.01142

    Examples
    --------
    >>> import ifa, xarray as xr
    >>> statistics = xr.Dataset(
    ...     {"map_max_overall": ("quantile", [1.0, 3.0]),
    ...      "map_min_overall": ("quantile", [-2.0, 0.0])},
    ...     {"quantile": [0.5, 0.9]},
    ... )
    >>> ifa.scale_from(statistics)
    Scale(low=tensor(-2., dtype=torch.float64), high=tensor(3., dtype=torch.float64))
    """
    dataset = one_layer(statistics, "ifa.scale_from")
    if over not in ("all", "target", "widest"):
        raise ValueError(
            f"ifa.scale_from: expected over to be 'all', 'target' or 'widest', got {over!r}."
        )
    suffix = "_overall" if over == "all" else ""
    high = _quantile(dataset, f"map_max{suffix}", upper)
    low = _quantile(dataset, f"map_min{suffix}", lower)
    if over == "widest":
        if low.isnan().all() or high.isnan().all():
            raise ValueError(
                "ifa.scale_from: expected a target that was explained, got NaN for all of them. "
                "No sample has a finite map: look at `nonfinite`."
            )
        low, high = low[~low.isnan()].amin(), high[~high.isnan()].amax()
    low = torch.zeros_like(low) if rectified else low
    origin = dataset.attrs.get("origin")
    return Scale(
        low, high, origin=None if origin is None else read_origin(origin), rectified=rectified
    )


def rescale(scale: Scale, how: How = "affine", widen: float = 1.0) -> Step:
    r"""Make a step that puts a map on a common scale; nothing is clipped.

    .. math::

        h = \frac{L - low}{high - low} \qquad\text{or}\qquad
        h = \tanh\left(\alpha + (\beta - \alpha) \frac{L - low}{high - low}\right)

    with :math:`\alpha = \operatorname{artanh} 0.05` and :math:`\beta = \operatorname{artanh} 0.95`:
    affine takes low to 0 and high to 1, tanh takes low to 0.05 and high to 0.95.

    Parameters
    ----------
    scale
        Limits, one pair or one for each target, of which an example takes its own target's. Of
        DataArrays with a coordinate `target` the rows are found by it.
    how
        ``"affine"`` or ``"tanh"``.
    widen
        Stretches the range about its centre, alike for both.

    Returns
    -------
    callable
        `Map` -> `Map`, without unit.

    Raises
    ------
    ValueError
        If a range has no width, or an option is unknown.

    Examples
    --------
    >>> import ifa, torch
    >>> scale = ifa.Scale(torch.tensor(-1.0), torch.tensor(3.0))
    >>> values = ifa.Map(torch.tensor([-1.0, 1.0, 3.0, 5.0]), torch.tensor(0))
    >>> ifa.rescale(scale)(values).values
    tensor([0.0000, 0.5000, 1.0000, 1.5000])
    >>> ifa.rescale(scale, "tanh")(values).values[::2]
    tensor([0.0500, 0.9500])
    """
    return partial(_rescale, scale=_widened("ifa.rescale", scale, how, widen), how=how)


def unscale(scale: Scale, how: How = "affine", widen: float = 1.0) -> Step:
    """Make the inverse of `rescale` with the same arguments: back to the score's unit.

    Parameters
    ----------
    scale, how, widen
        As `rescale` had them.

    Examples
    --------
    >>> import ifa, torch
    >>> scale = ifa.Scale(torch.tensor(-1.0), torch.tensor(3.0))
    >>> ifa.unscale(scale)(ifa.Map(torch.tensor([0.0, 1.0]), torch.tensor(0))).values
    tensor([-1.,  3.])
    """
    return partial(_unscale, scale=_widened("ifa.unscale", scale, how, widen), how=how)


def minmax(values: Map) -> Map:
    r"""Scale a map by its own extremes, as other libraries do: maps are then no longer comparable.

    .. math:: h = \frac{L - \min L}{\max L - \min L}

    A constant map becomes zero; NaN stays NaN.

    Parameters
    ----------
    values : Map
        Of one example.

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.minmax(ifa.Map(torch.tensor([2.0, 4.0, 3.0]), torch.tensor(0))).values
    tensor([0.0000, 1.0000, 0.5000])
    """
    expect("ifa.minmax", values, Map, "Put ifa.combine before it.")
    low, high = values.values.amin(), values.values.amax()
    width = torch.where(high > low, high - low, torch.ones_like(high))
    return values._replace(values=(values.values - low) / width)


def _rescale(values: Map, *, scale: Scale, how: How) -> Map:
    expect("ifa.rescale", values, Map, "Put ifa.combine before it.")
    low, high = _limits("ifa.rescale", scale, values)
    part = (values.values - low) / (high - low)
    return values._replace(values=part if how == "affine" else torch.tanh(_bend(part)))


def _unscale(values: Map, *, scale: Scale, how: How) -> Map:
    expect("ifa.unscale", values, Map, "Put ifa.rescale before it.")
    low, high = _limits("ifa.unscale", scale, values)
    part = values.values if how == "affine" else _unbend(torch.atanh(values.values))
    return values._replace(values=low + part * (high - low))


def _bend(part: Tensor) -> Tensor:
    return atanh(TANH_LOW) + (atanh(TANH_HIGH) - atanh(TANH_LOW)) * part


def _unbend(bent: Tensor) -> Tensor:
    return (bent - atanh(TANH_LOW)) / (atanh(TANH_HIGH) - atanh(TANH_LOW))


def _limits(where: str, scale: Scale, values: Map) -> tuple[Tensor, Tensor]:
    limits = (limit.to(values.values.device, values.values.dtype) for limit in scale)
    low, high = (row(where, limit, values.target) if limit.ndim else limit for limit in limits)
    return low, high


def _widened(where: str, scale: Scale, how: str, widen: float) -> Scale:
    if how not in ("affine", "tanh"):
        raise ValueError(f"{where}: expected how to be 'affine' or 'tanh', got {how!r}.")
    if not widen > 0:
        raise ValueError(f"{where}: expected widen > 0, got {widen}.")
    if not isinstance(scale, tuple | list) or len(scale) != 2:
        raise TypeError(
            f"{where}: expected a Scale, got {getattr(scale, '__name__', type(scale).__name__)}. "
            "Read one with ifa.scale_from(statistics), or make it: ifa.Scale(low, high). To scale "
            "each map by itself put ifa.minmax into the chain as it is."
        )
    limits = (by_output(where, "the limits of a scale", limit) for limit in scale)
    low, high = (limit.to(torch.float64) for limit in limits)
    if low.shape != high.shape or low.ndim > 1:
        raise ValueError(
            f"{where}: expected limits of one shape, () or (target,), got {tuple(low.shape)} and "
            f"{tuple(high.shape)}."
        )
    flat = torch.atleast_1d(high <= low)  # false for NaN: a target that was never explained
    if flat.any():
        index = int(flat.nonzero()[0])
        pair = torch.atleast_1d(low)[index].item(), torch.atleast_1d(high)[index].item()
        raise ValueError(
            f"{where}: expected low < high, got {pair[0]} and {pair[1]}"
            f"{f' for target {index}' if low.ndim else ''}. A range without width has no scale."
        )
    if widen == 1.0:
        return Scale(low, high)
    centre, half = (low + high) / 2, (high - low) / 2 * widen
    return Scale(centre - half, centre + half)


def _quantile(dataset: Any, name: str, quantile: float) -> Tensor:
    stored = as_tensor("ifa.scale_from", "quantile", dataset["quantile"])
    near = (stored - quantile).abs() < 1e-9
    if not near.any():
        raise LookupError(
            f"ifa.scale_from: expected one of the stored quantiles {stored.tolist()}, got "
            f"{quantile}. Analyze again with quantiles=(..., {quantile})."
        )
    # one row for each output up to the last, so that an example finds the row of its own target
    limits = dataset[name].isel(quantile=int(near.nonzero()[0]))
    return by_output("ifa.scale_from", name, limits).to(torch.float64)
