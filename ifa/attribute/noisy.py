"""Transforms that average over noise: SmoothGrad, its square, and VarGrad."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ifa.attribute.transforms import Attribute, Transformed
from ifa.checks import check_noise
from ifa.network.inputs import filled, floating, noise_like, over
from ifa.stages import wide


def smooth(
    attribution: Attribute, *, draws: int = 25, stdev: float = 0.15, seed: int = 0
) -> Transformed:
    r"""Average an attribution over noisy inputs.

    .. math:: b = \frac{1}{n} \sum_{i=1}^{n} a(x + \delta_i), \qquad
        \delta_i \sim N\bigl(0, (\sigma\,(\max x - \min x))^2\bigr)

    The range is each sample's own, of several tensors of each. The noise of a draw depends on the
    seed and the draw alone, and is, but for the range, the same for every sample. The prediction
    that is explained for ``target=None`` is that on the input without noise.

    Parameters
    ----------
    attribution
        ``(inputs, target) -> attribution``. It is called once for each draw, with the whole batch:
        memory does not grow with `draws`.
    draws
        Number n of draws.
    stdev
        Standard deviation σ of the noise, as a part of the sample's range.
    seed
        Of the noise.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, in the attribution's unit. Without noise it is the
        attribution itself, exactly.

    Raises
    ------
    TypeError, ValueError
        If the attribution cannot be called, or an option is out of range.

    References
    ----------
    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise". arXiv:1706.03825

    Examples
    --------
    >>> import ifa, torch
    >>> ifa.attribute.smooth(ifa.attribute.gradient(torch.nn.Linear(2, 1)), draws=10)
    smooth(gradient(Linear, score=logit), draws=10, stdev=0.15, seed=0)
    """
    return _noisy("smooth", attribution, draws, stdev, seed)


def squared(
    attribution: Attribute, *, draws: int = 25, stdev: float = 0.15, seed: int = 0
) -> Transformed:
    r"""Average the square of an attribution over noisy inputs.

    .. math:: b = \frac{1}{n} \sum_{i=1}^{n} a(x + \delta_i)^2

    Parameters
    ----------
    attribution, draws, stdev, seed
        As in `ifa.attribute.smooth`.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, in its unit squared; never negative. Its sign is
        lost: this is not `smooth`.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.smooth`.

    References
    ----------
    Hooker et al. 2019, "A benchmark for interpretability methods in deep neural networks".
    arXiv:1806.10758

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> ifa.attribute.squared(ifa.attribute.gradient(net))(torch.rand(1, 2), target=0)
    tensor([[9., 1.]])
    """
    return _noisy("squared", attribution, draws, stdev, seed)


def variance(
    attribution: Attribute, *, draws: int = 25, stdev: float = 0.15, seed: int = 0
) -> Transformed:
    r"""Take the variance of an attribution over noisy inputs.

    .. math:: b = \frac{1}{n} \sum_{i=1}^{n} \bigl(a(x + \delta_i) - \bar a\bigr)^2

    Parameters
    ----------
    attribution, draws, stdev, seed
        As in `ifa.attribute.smooth`.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, in its unit squared; never negative, and 0 where
        noise changes nothing. The divisor is n.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.smooth`.

    References
    ----------
    Adebayo et al. 2018, "Local explanation methods for deep neural networks lack sensitivity to
    parameter values". arXiv:1810.03307

    Examples
    --------
    >>> import ifa, torch
    >>> steady = ifa.attribute.gradient(torch.nn.Linear(2, 1))
    >>> ifa.attribute.variance(steady)(torch.rand(1, 2), target=0)
    tensor([[0., 0.]])
    """
    return _noisy("variance", attribution, draws, stdev, seed)


def _noisy(name: str, attribution: Attribute, draws: int, stdev: float, seed: int) -> Transformed:
    check_noise(f"ifa.attribute.{name}", draws, stdev, seed)
    change = partial(_over_noise, name=name, draws=draws, stdev=stdev, seed=seed)
    return Transformed(name, attribution, change, f"{draws=}, {stdev=}, {seed=}")


def _over_noise(
    base: Attribute,
    inputs: Any,
    targets: Any,
    *,
    name: str,
    draws: int,
    stdev: float,
    seed: int,
) -> Any:
    def noisy(one: Tensor, added: Tensor) -> Tensor:
        flat = one.reshape(len(one), -1)
        width = stdev * (flat.amax(1) - flat.amin(1))
        return one + width.reshape(-1, *(1,) * (one.ndim - 1)) * added

    kept: list[tuple[Tensor, Tensor]] = []
    for draw in range(draws):
        found = base(over(noisy, inputs, noise_like(inputs, seed, draw)), targets)
        values = [wide(one.square() if name == "squared" else one) for one in floating(found)]
        kept = kept or [(torch.zeros_like(one), torch.zeros_like(one)) for one in values]
        kept = [_updated(*pair, one, draw + 1) for pair, one in zip(kept, values, strict=True)]
    chosen = [squares / draws if name == "variance" else mean for mean, squares in kept]
    pairs = zip(chosen, floating(found), strict=True)
    return filled(found, [one.to(like.dtype) for one, like in pairs])


def _updated(mean: Tensor, squares: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take one more value into a running mean, of equal values exactly the value, and variance."""
    change = value - mean
    mean = mean + change / count
    return mean, squares + change * (value - mean)
