"""Features of a layer one by one: their names, their own maps, a gallery of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ifa.basis.names import name_atoms
from ifa.diagnose.rows import Table, statistics_of, table_of
from ifa.explanation import explain
from ifa.plot.grids import Inches, laid_out
from ifa.plot.overlays import draw
from ifa.plot.shades import Shades, draw_bar, exceeds
from ifa.plot.texts import fitted, tall
from ifa.reduce.statistics import feature_of
from ifa.scaling import Scale, scale_from
from ifa.score import logit
from ifa.types import Method, Score, Statistics
from ifa.weight import fullcam

_SIZE = 8  # of words, in points
_NAME, _LEAST, _GAP = 1.1, 0.65, 0.12  # inches: of names, of a picture's side, between pictures


def features(
    statistics: Statistics,
    data: Any,
    model: nn.Module,
    features: Sequence[int],
    *,
    layer: str | None = None,
    target: int | None = None,
    basis: Any = None,
    weight: Method = fullcam,
    score: Score = logit,
    samples: int = 6,
    width: float | None = None,
) -> np.ndarray:
    r"""Draw several channels, or atoms: a row for each, its top samples with its own map of them.

    All maps have one scale, the common one of the run's whole maps, so that features can be
    compared: at 1 a feature alone makes as much as the map of a strong sample.

    Parameters
    ----------
    statistics
        A run with ``keep_samples="full"``.
    data
        The data set of the run, ``(input, label, ...)``.
    model
        The network of the run.
    features
        Which channels or atoms, in the order of rows.
    layer
        Which layer; may be left out where there is one.
    target
        Top samples of this target only, by its value.
    basis, weight, score
        Those of the run. Names that `ifa.basis.named` gave are beside the rows.
    samples
        How many top samples of each.
    width
        Of the figure, in inches: where that is too little, samples of a feature are in several
        lines.

    Returns
    -------
    numpy.ndarray
        The axes (feature, sample), wherever they are in the figure.

    Raises
    ------
    IndexError
        If there is no such feature.
    ValueError
        If network, basis, weighting or score are not the run's, or it has kept too little.

    Examples
    --------
    >>> import ifa, torch
    >>> layers = torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten()
    >>> net = torch.nn.Sequential(*layers)
    >>> data = [(torch.rand(1, 4, 4), 0) for _ in range(3)]
    >>> run = ifa.analyze(net, data, layer="1", keep_samples="full", progress=False)
    >>> ifa.plot.features(run, data, net, [0, 2], samples=2).shape
    (2, 2)
    """
    where = "ifa.plot.features"
    if not len(features):
        raise ValueError(
            f"{where}: expected features to draw, got none. Give their places: [0, 3]."
        )
    statistics = with_names(statistics, basis)
    table = table_of(statistics, layer, where)
    means = statistics_of(statistics, table.layer, where)
    chosen = [top_rows(where, table, feature, target, samples) for feature in features]
    made: Any = {"basis": basis, "weight": weight, "score": score}
    found = [
        maps_of(where, model, data, table, rows, feature, means, **made)
        for feature, rows in zip(features, chosen, strict=True)
    ]
    shades = found[0][1]
    grid, titles = _rows(table, features, chosen, width)
    for row, one in enumerate(features):
        _draw_row(where, grid[row], data, table.sample[chosen[row]], *found[row], titles[row])
        name = fitted(name_of(means, one), _NAME, _SIZE)
        grid[row, 0].annotate(
            name, (0, 0.5), (-6, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", fontsize=_SIZE, annotation_clip=False, parse_math=False,
        )  # fmt: skip
    figure = grid[0, 0].figure
    wide, high = figure.get_size_inches()
    place = figure.add_axes((0.3 / wide, 0.55 / high, min(wide - 0.6, 4.0) / wide, 0.12 / high))
    extend = exceeds(shades, *(values for maps, _ in found for values in maps))
    draw_bar(figure, shades, cax=place, orientation="horizontal", extend=extend)
    return grid


def _rows(
    table: Table, features: Sequence[int], chosen: list[np.ndarray], width: float | None
) -> tuple[np.ndarray, list[list[str]]]:
    """Make axes (feature, sample), in as many lines as the width asks for, and their titles."""
    from matplotlib import pyplot as plt

    count = max([1, *map(len, chosen)])
    width = _NAME + 0.45 + 1.1 * max(count, 3) if width is None else width
    room = width - _NAME - 0.45
    columns = min(count, max(1, int((room + _GAP) / (_LEAST + _GAP))))
    lines = -(-count // columns)
    side = min((room + _GAP) / columns - _GAP, 2.2)
    titles = [
        [fitted(f"{table.id[row]}\n{table.importance[row, one]:.3g}", side, _SIZE, most=3)
         for row in rows]
        for one, rows in zip(features, chosen, strict=True)
    ]  # fmt: skip
    above = 0.1 + max((tall(text, _SIZE) for row in titles for text in row), default=0.0)
    right = width - _NAME - 0.2 - columns * (side + _GAP) + _GAP
    spaces = Inches(side, side, above, 0.85, _NAME + 0.2, right, _GAP)
    figure, grid = laid_out(plt.figure, 1, columns, lines * len(chosen), spaces)
    figure.set_figwidth(width)  # to the bit
    axes = np.array(grid, dtype=object).reshape(len(chosen), lines * columns)
    for spare in axes[:, count:].ravel():
        spare.remove()
    return axes[:, :count], titles


def _draw_row(
    where: str,
    axes: list[Any],
    data: Any,
    samples: np.ndarray,
    maps: list[np.ndarray],
    shades: Shades,
    titles: list[str],
) -> None:
    """Draw top samples, each with the map of one feature over it."""
    for one in axes:
        one.set_axis_off()
    for one, sample, values, title in zip(axes, samples, maps, titles, strict=False):
        draw(where, one, np.asarray(data[int(sample)][0]), values, shades)
        one.set_title(title, fontsize=_SIZE, pad=3, parse_math=False)


def with_names(statistics: Statistics, basis: Any) -> Statistics:
    """Return a run with the names of its atoms where its basis is given, and is its own."""
    return statistics if basis is None else name_atoms(statistics, basis)


def name_of(means: Any, feature: int) -> str:
    """Name a channel or an atom by its place, and by the name that it was given."""
    place = f"{feature_of(means)} {feature}"
    name = str(means["atom_name"].values[feature]) if "atom_name" in means.coords else ""
    return f"{place}: {name}" if name else place


def top_rows(
    where: str, table: Table, feature: int, target: int | None, samples: int
) -> np.ndarray:
    """List the rows in which a feature is most important, the largest first."""
    count = table.importance.shape[1]
    if not 0 <= feature < count:
        raise IndexError(f"{where}: expected {table.feature}s in 0..{count - 1}, got {feature}.")
    shown = table.target >= 0 if target is None else table.target == target
    rows = np.flatnonzero(shown)
    return rows[np.argsort(-table.importance[rows, feature], kind="stable")][:samples]


def maps_of(
    where: str,
    model: nn.Module,
    data: Any,
    table: Table,
    rows: np.ndarray,
    feature: int,
    means: Any,
    *,
    basis: Any,
    **options: Any,
) -> tuple[list[np.ndarray], Shades]:
    """Make the maps of one feature for rows of a run, in units of the run's common scale."""
    found = scale_from(means)
    limit = torch.stack([found.low.abs(), found.high.abs()]).amax()
    if not limit > 0:
        raise ValueError(f"{where}: expected a run whose maps are not all zero, got a scale of 0.")
    scale = Scale(torch.zeros_like(limit), limit, origin=found.origin, rectified=False)
    shades = Shades(signed=True, label=f"common scale: 1 = {limit:.3g} {table.unit}")
    if not len(rows):
        return [], shades
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    inputs = torch.stack([torch.as_tensor(data[int(one)][0]) for one in table.sample[rows]])
    maps = explain(
        *(model, inputs.to(device), torch.as_tensor(table.target[rows], device=device)),
        layer=table.layer,
        basis=basis[table.layer] if isinstance(basis, Mapping) else basis,
        mask=torch.arange(table.importance.shape[1], device=device) == feature,
        scale=scale,
        **options,
    )
    return list(maps.cpu().numpy()), shades
