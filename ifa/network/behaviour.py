"""What a network computes on some samples, as a few numbers that two networks are compared by."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Onto how many vectors of signs everything is projected.
DIRECTIONS = 8
_AT_ONCE = 2**16
# Which share of their norm the gradients of one network may differ by on other kernels.
_FLIPS = 0.05


class Sketch:
    r"""A norm and projections of tensors, one after the other, on seeded vectors of ±1.

    Of :math:`x`, all that was added, :math:`(\lVert x \rVert_2, s_1 \cdot x, \dots, s_8 \cdot x)`
    in float64: two that differ by :math:`d` differ by about :math:`\lVert d \rVert_2` in each.
    """

    def __init__(self) -> None:
        self._signs = np.random.Generator(np.random.PCG64(0))
        self._square, self._sums, self._lost = 0.0, np.zeros(DIRECTIONS), 0

    def add(self, values: Tensor) -> None:
        """Add a batch."""
        values = values.detach().cpu()
        flat = (
            torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
        ).reshape(-1)
        for part in flat.split(_AT_ONCE):
            numbers = part.double().numpy()
            finite = np.isfinite(numbers)
            self._lost += int((~finite).sum())
            numbers = np.where(finite, numbers, 0.0)
            drawn = self._signs.integers(0, 256, len(numbers), dtype=np.uint8)
            signs = np.unpackbits(drawn[:, None], axis=1)
            self._sums += 2 * (numbers @ signs) - numbers.sum()
            self._square += float(numbers @ numbers)

    def numbers(self) -> list[float]:
        """Return how many values were not finite, the norm of the others, and their projections."""
        return [self._lost, math.sqrt(self._square), *self._sums.tolist()]


def behaviour_of(
    samples: int, dtype: torch.dtype, output: Sketch, layers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write what was sketched as JSON: of the output, and of each layer by kind."""
    return {
        "samples": samples,
        "dtype": str(dtype if dtype.is_floating_point else torch.float32).removeprefix("torch."),
        "output": output.numbers(),
        "layers": dict(layers or {}),
    }


def behaviour_difference(
    run: Mapping[str, Any], now: Mapping[str, Any], *, alike: bool = False
) -> list[str]:
    r"""Say in words where two behaviours differ; nothing if they do not.

    Two numbers are the same within :math:`\sqrt{\varepsilon} \lVert x \rVert_2`, where
    :math:`\varepsilon` is that of the dtype that was computed in: rounding on another machine is
    far below it (in float32 it is 3e-4 of the norm), an activation or scale of another kind far
    above. Not seen is what acts on other inputs only, or on less than this share of a layer.

    Gradients are no continuous function of what they are computed from: where rounding moves the
    input of a ReLU over 0, or another maximum is pooled, a whole path is lost or won. Measured on
    small ResNets by other kernels (oneDNN or not, float64): outputs and activations differ by up to
    3e-6 of their norm, gradients by up to 2e-3. So those of networks that agree in all else, and
    the weights that are made of them, may differ by 5 % of the norm; a hook, a detached path or
    another backward is far above that.

    Parameters
    ----------
    run, now
        As `behaviour_of` writes them.
    alike
        Whether weights, settings, hooks and code are the same.
    """
    if (run["samples"], run["dtype"]) != (now["samples"], now["dtype"]):
        return [
            f"behaviour on {run['samples']} samples in {run['dtype']}, not on {now['samples']} in "
            f"{now['dtype']}"
        ]
    share = math.sqrt(torch.finfo(getattr(torch, run["dtype"])).eps)
    places = [] if _agree(run["output"], now["output"], share) else ["the output"]
    mine, its = run["layers"], now["layers"]
    for layer in sorted({*mine, *its}):
        a, b = mine.get(layer, {}), its.get(layer, {})
        wide = max(share, _FLIPS) if alike else share
        bounds = {"gradients": wide, "weights": wide}
        if {*a} != {*b} or not all(_agree(a[k], b[k], bounds.get(k, share)) for k in a):
            places.append(f"layer {layer!r}")
    if not places:
        return []
    few = [*places[:4], f"{len(places) - 4} more"] if len(places) > 5 else places
    verb = "differ" if len(places) > 1 else "differs"
    return [f"behaviour: {' and '.join(few)} {verb} on the {run['samples']} probed samples"]


def _agree(a: list[float], b: list[float], share: float) -> bool:
    bound = share * max(a[1], b[1])
    return a[0] == b[0] and all(abs(x - y) <= bound for x, y in zip(a[1:], b[1:], strict=True))
