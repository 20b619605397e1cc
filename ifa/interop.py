"""Interoperation: our maps for Quantus, and captum's attributions as maps. Neither is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifa.network.inputs import refuse_inference_mode
from ifa.network.outputs import pick
from ifa.network.replicas import refuse_random_or_coupled
from ifa.network.targets import as_targets, predicted
from ifa.types import Target

Attribution = Callable[..., Tensor]

__all__ = ["captum", "quantus"]


def quantus(explain: Callable[..., Tensor]) -> Callable[..., np.ndarray]:
    r"""Make an `explain_func` for the metrics of Quantus.

    Parameters
    ----------
    explain
        ``(model, inputs, target) -> maps``, such as ``partial(ifa.explain, layer="layer4")``; maps
        are at the inputs' size, or shaped like the inputs.

    Returns
    -------
    callable
        ``(model, inputs, targets, **kwargs) -> attributions`` of arrays: inputs (sample, channel,
        \*space) and targets (sample,) are taken to the model's device and dtype, attributions are
        (sample, 1, \*space) for maps, and (sample, channel, \*space) for attributions of
        channels. The keyword ``device`` that Quantus adds is understood; others, from its
        ``explain_func_kwargs``, go to `explain`.

    Raises
    ------
    ValueError
        When called, if the maps are not of the inputs' size.

    References
    ----------
    Hedström et al. 2023, "Quantus: an explainable AI toolkit for responsible evaluation of neural
    network explanations and beyond". JMLR 24(34):1–11

    Examples
    --------
    >>> import ifa, torch
    >>> from functools import partial
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    >>> explain_func = quantus(partial(ifa.explain, layer="0"))
    >>> explain_func(net, np.zeros((5, 3, 8, 9), np.float32), np.zeros(5, int)).shape
    (5, 1, 8, 9)
    """

    def explain_func(
        model: nn.Module,
        inputs: np.ndarray,
        targets: np.ndarray,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        first = next(model.parameters(), torch.empty(0))
        place = first.device if device is None else torch.device(device)
        batch = torch.as_tensor(np.asarray(inputs)).to(place, first.dtype)
        labels = torch.as_tensor(np.asarray(targets)).to(place).long()
        maps = explain(model, batch, labels, **kwargs).detach()
        if maps.shape == (batch.shape[0], *batch.shape[2:]):
            maps = maps[:, None]
        if maps.ndim != batch.ndim or maps.shape[2:] != batch.shape[2:]:
            raise ValueError(
                f"ifa.interop.quantus: expected maps at the size of inputs {tuple(batch.shape)}, "
                f"got {tuple(maps.shape)}. Resize them: ifa.explain(..., size='input')."
            )
        # numpy has no bfloat16
        return maps.to(torch.promote_types(maps.dtype, torch.float32)).cpu().numpy()

    return explain_func


def captum(attribution: Any, *, seed: int = 0, **options: Any) -> Attribution:
    r"""Make a function of inputs and target from an attribution of captum.

    Parameters
    ----------
    attribution
        An object of captum, such as ``captum.attr.IntegratedGradients(model)``, or its method
        ``attribute``.
    seed
        Of torch's and numpy's random numbers while it runs, for those that draw some. The global
        random state is left as it was.
    options
        What its method ``attribute`` takes besides inputs and target, such as ``n_steps=50``. A
        tensor or tuple is given as it is, for every batch.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution``, shaped like the inputs, or like the layer for
        captum's layer attributions. `target` is None for the prediction, an int, (sample,), or
        (target, sample), which adds a target axis. Neither the inputs nor the model are changed;
        captum's hooks are on the model while it runs, so not in two threads at once.

    Raises
    ------
    TypeError
        If it is no attribution of captum; when called, if it gives no single tensor.
    ValueError
        When called, if the model is in training mode, in which captum would update its buffers, or
        a target is out of range.
    RuntimeError
        Under `torch.inference_mode`.

    References
    ----------
    Kokhlikyan et al. 2020, "Captum: a unified and generic model interpretability library for
    PyTorch". arXiv:2009.07896

    Examples
    --------
    >>> import torch
    >>> from captum.attr import InputXGradient
    >>> net = torch.nn.Linear(3, 2)
    >>> captum(InputXGradient(net))(torch.ones(5, 3), target=1).shape
    torch.Size([5, 3])
    """
    where = "ifa.interop.captum"
    attribute = getattr(attribution, "attribute", attribution)
    forward = getattr(getattr(attribute, "__self__", None), "forward_func", None)
    if not callable(attribute) or not callable(forward):
        raise TypeError(
            f"{where}: expected an attribution of captum or its method attribute, got "
            f"{type(attribution).__name__}. Give e.g. captum.attr.Saliency(model)."
        )

    def attributed(inputs: Tensor, target: Target = None) -> Tensor:
        refuse_inference_mode(where)
        if isinstance(forward, nn.Module):
            refuse_random_or_coupled(forward, where)
        inputs = inputs.detach()
        with torch.no_grad():
            output = pick(forward(inputs.clone()))
        outputs = output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else None
        chosen = as_targets(where, target, len(inputs), outputs, inputs.device)
        chosen = predicted(where, output) if chosen is None else chosen
        # of an output (sample,) captum asks for no target
        single = isinstance(output, Tensor) and output.ndim == 1

        def run(row: Tensor) -> Tensor:
            own = inputs.clone().requires_grad_(inputs.is_floating_point())
            with torch.enable_grad(), _seeded(seed, inputs.device):
                found = attribute(own, target=None if single else row, **options)
            if not isinstance(found, Tensor):
                raise TypeError(
                    f"{where}: expected one tensor from {type(attribute.__self__).__name__}, got "
                    f"{type(found).__name__}. Leave out options such as return_convergence_delta."
                )
            return found.detach()

        return run(chosen) if chosen.ndim == 1 else torch.stack([run(row) for row in chosen])

    return attributed


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what captum draws from, the global random state, and put it back."""
    before = np.random.get_state()  # noqa: NPY002
    other = [] if device.type == "cpu" else [device]
    try:
        with torch.random.fork_rng(other, device_type=device.type):
            np.random.seed(seed)  # noqa: NPY002
            torch.default_generator.manual_seed(seed)
            if other:
                torch.get_device_module(device).manual_seed(seed)
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
