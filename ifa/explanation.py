"""The one call: model and inputs to maps."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from ifa.basis.projections import check_basis, check_features, heed_basis, projections, weights_in
from ifa.chains import Chain, batched, chain
from ifa.checks import check_choice
from ifa.fusion import fuse
from ifa.network.identity import Origin, origin_of, remembered_token
from ifa.network.inputs import at, check_batch, grid_place, space_of, take
from ifa.reduce.statistics import one_layer
from ifa.resizing import place, resize
from ifa.scaling import How, Scale, minmax, rescale, scale_from
from ifa.score import logit
from ifa.stages import combine, combine_blocks, keep, relu
from ifa.taps.blocks import last_of_each_grid
from ifa.taps.weighings import Weighing
from ifa.types import Grid, Inputs, Map, Method, Output, Score, Step, Target
from ifa.weight import fullcam, layercam


def explain(
    model: nn.Module,
    inputs: Inputs,
    target: Target = None,
    *,
    layer: str | nn.Module | None = None,
    weight: Method = fullcam,
    basis: Any = None,
    mask: Any = None,
    scale: Any = None,
    rectify: bool | None = None,
    size: Sequence[int] | Literal["input"] | None = "input",
    placing: Literal["centers", "even"] = "centers",
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Tensor:
    r"""Explain a batch in one call: tap, weigh, keep, combine, rectify, rescale, place.

    A short composition of the public functions and nothing more; for maps that can be compared
    between samples, give the `scale` of a population. What was seen of the network is kept for it,
    weakly, until it changes: in a loop a call costs what a tap's call costs.

    Parameters
    ----------
    model, layer, score, grid, output, grid_of
        As in `ifa.tap`.
    inputs : (sample, \*input)
        A batch: a tensor, a tuple of them (positional arguments) or a mapping (by keyword).
    target
        None for the prediction, an int, (sample,), or (target, sample): outputs, or rows of the
        table that a score such as `ifa.score.box` holds.
    weight
        Any method: a kernel of `ifa.weight`, a step `Features` -> `Weighted`, or a builder:
        `ifa.weight.cam`, one of `ifa.perturb`, its options bound with `functools.partial`. A
        function of one's own is a kernel, unless declared with `ifa.step` or `ifa.builder`.
    basis
        An `ifa.basis.Dictionary`: the layer is read in its atoms, see `ifa.project`. `weight` is
        then a kernel; one whose maps are other ones in every basis is named.
    mask
        Channels, or atoms, to keep, see `ifa.keep`.
    scale
        A common scale, see `ifa.scale_from`; or the statistics or the run to read it from. One of
        another network, layer, weighting or score is refused; one made by hand has no origin and is
        taken as it is. None leaves the score's unit.
    rectify
        Set what speaks against the target to zero. None is as the scale is, and without a scale
        yes.
    size
        ``"input"`` for the space of the input, of several tensors the one with the grid; a tuple;
        or None for the layer's own grid.
    placing
        ``"centers"`` puts every unit of the layer at its true centre in the input, see
        `ifa.positions` and `ifa.place`; ``"even"`` tiles the input with them, as `ifa.resize` and
        other libraries do, which is off by up to half a unit after padded strides.

    Returns
    -------
    (sample, \*space) or (target, sample, \*space)
        Maps.

    Raises
    ------
    LookupError, ValueError
        As `ifa.tap` and the steps; or if the scale is of other maps.

    Warns
    -----
    ZeroGradient
        If the gradient of a sample is zero at every channel and position.
    Cancellation
        If weights times activations of a sample cancel over the channels at every position, as they
        do where a normalization reads the layer.

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, stride=2), torch.nn.Flatten())
    >>> images = torch.rand(5, 1, 9, 7)
    >>> ifa.explain(net, images, layer="0").shape
    torch.Size([5, 9, 7])

    Every output of a regression (a regression activation map), signed, from one forward pass:

    >>> head = torch.nn.Sequential(net, torch.nn.Linear(36, 3))
    >>> every = torch.arange(3)[:, None].expand(3, 5)
    >>> ifa.explain(head, images, every, layer="0.0", rectify=False, size=None).shape
    torch.Size([3, 5, 4, 3])

    Why output 0, rather than output 2:

    >>> rather = ifa.score.contrast(gamma=1.0, references=[2])
    >>> ifa.explain(head, images, 0, layer="0.0", score=rather).shape
    torch.Size([5, 9, 7])
    """
    where = "ifa.explain"
    check_batch(where, inputs)
    check_basis(where, "basis", basis)
    check_features(where, "a mask", mask, basis)
    heed_basis(where, weight, basis)
    made = Weighing(
        *(where, model, layer, take(inputs, slice(2)), weight),
        score=score,
        grid=grid,
        output=output,
        grid_of=grid_of,
        remember=True,
        basis=None if basis is None else partial(projections, where=where, basis=basis),
    )
    if scale is not None:
        network = remembered_token(model, take(inputs, slice(2)))
        (whole,) = weights_in(weight, basis, made.layers)
        origin = origin_of(where, network, made.layers[0], whole, score, grid, output)
        scale, rectify = common_scale(where, scale, origin, rectify)
    (last,) = onto_input(where, made, inputs, size, placing, grid_of)
    steps = after_weighing(mask, scale, rectify is None or bool(rectify), last)
    return made.observe(inputs, target, step=steps, warn=where).result[0].values


def fine(
    model: nn.Module,
    inputs: Inputs,
    target: Target = None,
    *,
    layers: str | nn.Module | Sequence[str | nn.Module] | None = None,
    weight: Method = layercam,
    how: Literal["product", "mean", "max"] = "product",
    size: Sequence[int] | Literal["input"] = "input",
    placing: Literal["centers", "even"] = "centers",
    score: Score = logit,
    grid: Grid | None = None,
    output: Output = None,
    grid_of: str | int | None = None,
) -> Tensor:
    r"""Explain a batch by the maps of several layers at once: as sharp as the first, as the last.

    .. math:: L = \prod_l h(L_l^+) \quad\text{or their mean or maximum, with}\quad
        h(L) = \frac{L - \min L}{\max L - \min L}

    at each position, of the positive part of each layer's map, every unit of it at its true centre.
    All layers are from one forward and one backward pass. Early layers are sharp and know little of
    the class, the last one knows it and is coarse: a product keeps what all agree on. It is the
    best cheap map of high resolution that was measured here; the mean covers more of the object.
    Maps are each on a scale of their own, and have no common one.

    Parameters
    ----------
    model, score, grid, output, grid_of
        As in `ifa.tap`.
    inputs : (sample, \*input)
        A batch, as in `ifa.explain`.
    target
        None for the prediction, an int, (sample,), or (target, sample).
    layers
        Names of layers, or modules, or one of them. None takes the last layer of every grid on the
        way to the default layer, and that one; in a loop name them, because that is found out in
        each call.
    weight
        Any method, as in `ifa.explain`; by default LayerCAM, whose weights are positions' own.
    how
        ``"product"``, ``"mean"`` or ``"max"``.
    size, placing
        As in `ifa.explain`.

    Returns
    -------
    (sample, \*space) or (target, sample, \*space)
        Maps in 0 … 1. Where a layer says nothing for a sample, its map is zero: so is the product.

    Raises
    ------
    LookupError, ValueError
        As `ifa.explain`; or if `how` is unknown.

    Warns
    -----
    ZeroGradient, Cancellation
        As `ifa.explain`.

    References
    ----------
    Jiang et al. 2021, "LayerCAM: exploring hierarchical class activation maps for localization".
    doi:10.1109/TIP.2021.3089943. There maps are scaled by `ifa.saturate` and fused by the maximum.

    Examples
    --------
    >>> import ifa, torch
    >>> convs = [torch.nn.Conv2d(1, 2, 3, stride=2), torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten()]
    >>> net, images = torch.nn.Sequential(*convs), torch.rand(5, 1, 9, 11)
    >>> ifa.fine(net, images, 0, layers=("0", "1")).shape
    torch.Size([5, 9, 11])
    """
    where = "ifa.fine"
    check_batch(where, inputs)
    check_choice(where, "how", how, ("product", "mean", "max"))
    example, options = take(inputs, slice(2)), {"output": output, "grid_of": grid_of}
    if layers is None:
        layers = last_of_each_grid(model, example, where, **options)
    layers = (layers,) if isinstance(layers, str | nn.Module) else tuple(layers)
    options |= {"score": score, "grid": grid}
    made = Weighing(where, model, layers, example, weight, **options, remember=True)
    lasts = onto_input(where, made, inputs, size, placing, grid_of)
    steps = tuple(chain(after_weighing(None, None, True, last), minmax) for last in lasts)
    maps = made.observe(inputs, target, step=steps, warn=where).result
    return batched(partial(fuse, how=how))(maps).values


def after_weighing(
    mask: Any,
    scale: Scale | None,
    rectify: bool,
    last: Step | None,
    *,
    how: How = "affine",
    widen: float = 1.0,
    blocks: int | None = None,
) -> Chain:
    """Chain what makes a map of `Weighted`: keep, combine, rectify, rescale, and a last step."""
    steps = [] if mask is None else [keep(mask)]
    steps += [combine if blocks is None else combine_blocks(blocks)]
    steps += [relu] if rectify else []
    steps += [] if scale is None else [rescale(scale, how, widen)]
    steps += [] if last is None else [last]
    return chain(*steps)


def onto_input(
    where: str,
    made: Weighing,
    inputs: Inputs,
    size: Sequence[int] | Literal["input"] | None,
    placing: str,
    grid_of: str | int | None,
) -> tuple[Step | None, ...]:
    """Return the step that brings maps of each layer to the size asked for; None for none."""
    check_choice(where, "placing", placing, ("centers", "even"))
    if size is None:
        return (None,) * len(made.layers)
    space = space_of(at(inputs, grid_place(where, inputs, grid_of)))
    evenly = resize(space if size == "input" else size)
    if placing == "even":
        return (evenly,) * len(made.layers)
    extent = space if size == "input" else size
    units = zip(made.positions(inputs), made.tap.shapes, strict=True)
    return tuple(
        partial(_onto, placed=place(each, extent, input_size=space), evenly=evenly, grid=shape[1:])
        for each, shape in units
    )


def _onto(values: Map, *, placed: Step, evenly: Step, grid: tuple[int, ...]) -> Map:
    # a builder may have a grid of its own, such as noise at the inputs' size
    whole = tuple(values.values.shape[values.values.ndim - len(grid) :])
    return placed(values) if whole == grid else evenly(values)


def common_scale(
    where: str, scale: Any, origin: Origin, rectify: bool | None
) -> tuple[Scale | None, bool]:
    """Take a scale, or read one off statistics or a run; refuse one of maps of another origin.

    Parameters
    ----------
    where
        What an error names.
    scale
        None, a `Scale`, statistics, or the folder of a run.
    origin
        What the maps are made of.
    rectify
        What was asked for. None is as the scale is, and without a scale yes.

    Returns
    -------
    tuple
        The scale, and whether to rectify.
    """
    if scale is None:
        return None, rectify is None or bool(rectify)
    if isinstance(scale, str | os.PathLike):
        from ifa.store import open as open_run

        scale = open_run(scale)
    if not isinstance(scale, Scale):
        if not hasattr(scale, "data_vars"):
            raise TypeError(
                f"{where}: expected scale to be a Scale, statistics or the folder of a run, got "
                f"{type(scale).__name__}. Make one by hand: ifa.Scale(low, high)."
            )
        layers = getattr(scale, "children", {})
        scale = scale[origin.layer] if origin.layer in layers else scale
        scale = scale_from(one_layer(scale, where), rectified=bool(rectify))
    if scale.origin is not None:
        difference = origin.difference(scale.origin)
        if difference:
            raise ValueError(
                f"{where}: expected a scale of these very maps, got one of {difference}. "
                "Intensities of different maps have no common scale: analyze this network at this "
                "layer with this weighting, or make the scale by hand: ifa.Scale(low, high)."
            )
    made_for = bool(scale.rectified)
    if rectify is not None and scale.rectified is not None and rectify != made_for:
        raise ValueError(
            f"{where}: expected rectify={made_for} as the scale is, got {rectify}. Give "
            f"ifa.scale_from(statistics, rectified={rectify}), or leave rectify out."
        )
    return scale, made_for if rectify is None else rectify
