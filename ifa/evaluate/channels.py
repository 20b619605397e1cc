"""A network of which a layer keeps only some of its channels."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifa.basis.dictionaries import Dictionary, check_dictionary, decode, encode
from ifa.checks import check_choice
from ifa.stages import as_tensor, by_output
from ifa.taps.laid_heads import lay
from ifa.types import Grid, Inputs, Output

Hidden = float | Tensor | Literal["mean"]
# What lies above a layer, of its activations or of their codes.
Above = Callable[[Tensor], Any]


def in_basis(
    where: str, activations: Tensor, head: Above, basis: Dictionary | None
) -> tuple[Tensor, Above]:
    """Read a layer in a basis: codes in the place of activations, and what lies above of codes.

    So a mask over channels becomes one over atoms. What no atom holds stays at its mean.
    """
    if basis is None:
        return activations, head
    check_dictionary(where, basis, activations.shape[1])
    with torch.no_grad():
        codes = vmap(encode, (None, 0))(basis, activations)
    return codes, partial(_decoded, head, basis)


def _decoded(head: Above, basis: Dictionary, codes: Tensor) -> Any:
    return head(vmap(decode, (None, 0))(basis, codes))


class Channels:
    """A network cut at a layer once, to be run with many masks of the layer's channels."""

    def __init__(
        self,
        where: str,
        model: nn.Module,
        layer: str | None,
        example: Inputs,
        output: Output = None,
        grid: Grid | None = None,
        grid_of: str | int | None = None,
    ):
        laid: Any = {"output": output, "grid": grid, "grid_of": grid_of}
        self._where, self._cut = where, lay(where, model, layer, example, **laid)
        self.layer = self._cut.layer

    def below(self, inputs: Inputs) -> tuple[Tensor, Above]:
        """Run what lies below the layer, once for all masks."""
        return self._cut(inputs)

    def masked(
        self,
        activations: Tensor,
        head: Above,
        mask: Any,
        target: Tensor | None = None,
        *,
        keep: bool = True,
        baseline: Hidden = 0.0,
    ) -> Tensor:
        """Run what lies above the layer with some of its channels."""
        space = (1,) * (activations.ndim - 2)
        table = self._rows(mask, activations.shape[1], target).to(activations.device)
        chosen = table if keep else ~table
        hidden = self._hidden(activations, baseline)

        def run(rows: Tensor) -> Tensor:
            with torch.no_grad():
                return head(torch.where(rows.reshape(*rows.shape, *space), activations, hidden))

        if chosen.ndim == 1:
            return run(chosen[None])
        if target is not None:
            return run(chosen[target.to(chosen.device)])
        outputs = [run(row[None]) for row in chosen]
        if outputs[0].ndim != 2 or outputs[0].shape[1] != len(chosen):
            raise ValueError(
                f"{self._where}: expected one row of the mask for each output, got {len(chosen)} "
                f"rows for outputs {tuple(outputs[0].shape)}. Give target=, or one mask."
            )
        return torch.stack([output[:, index] for index, output in enumerate(outputs)], dim=1)

    def _rows(self, mask: Any, channels: int, target: Tensor | None) -> Tensor:
        """Return a mask as a boolean tensor whose rows, if it has them, are the outputs."""
        plain = as_tensor(self._where, "a mask", mask)
        if plain.dtype != torch.bool or plain.ndim not in (1, 2) or plain.shape[-1] != channels:
            raise ValueError(
                f"{self._where}: expected a boolean mask ({channels},) or (output, {channels}), "
                f"got {plain.dtype} {tuple(plain.shape)}. Make one with ifa.select."
            )
        if plain.ndim == 1:
            return plain
        table = by_output(self._where, "a mask", mask)  # NaN where no row is given
        known = (~table.isnan().any(1)).tolist()
        wanted = range(len(known)) if target is None else target.unique().tolist()
        missing = [index for index in wanted if not (0 <= index < len(known) and known[index])]
        if missing:
            raise ValueError(
                f"{self._where}: expected a row of the mask for each output that is asked for, got "
                f"none for {missing}. Analyze these targets too, or give one mask for all."
            )
        return table.nan_to_num().bool()

    def _hidden(self, activations: Tensor, baseline: Hidden) -> Tensor:
        """What stands for a channel that is not there: a scalar, or (channel, *space)."""
        if isinstance(baseline, str):
            check_choice(self._where, "baseline", baseline, ("mean",))
            baseline = activations.transpose(0, 1).flatten(1).mean(1, dtype=torch.float64)
        values = torch.as_tensor(baseline, device=activations.device).to(activations.dtype)
        if values.ndim and values.shape != activations.shape[1:2]:
            raise ValueError(
                f"{self._where}: expected baseline to be 'mean', a number or one for each of "
                f"{activations.shape[1]} channels, got {tuple(values.shape)}."
            )
        return values.reshape(values.shape + (1,) * (activations.ndim - 2) * values.ndim)
