"""Training some of a network's parameters; all others stay as they are, bit for bit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifa.checks import check_choice, check_count
from ifa.progress import Progress, reporting
from ifa.refine.decoders import Full
from ifa.refine.epochs import Augment, Loss, Plan, Recipe, Run, digest_of
from ifa.refine.halves import Half
from ifa.refine.losses import agreeing, classified, rebuilt
from ifa.refine.trunks import Params, checked_params
from ifa.store.items import collate


class Trained(NamedTuple):
    """Parameters of the best epoch, and how the loss went."""

    params: dict[str, Tensor]
    losses: Tensor  # (epoch,), float64, of the training samples as they were seen
    held_out: Tensor  # (epoch,), float64, of the samples held out; NaN without any
    best: Tensor  # (), int64, the epoch that the parameters are of


def trained(
    model: Half | Full,
    params: Params | None,
    data: Sequence[Any],
    *,
    loss: Loss | None = None,
    keys: Callable[[str], bool] | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    rate: float | None = None,
    recipe: Recipe = "cosine",
    augment: Augment | None = None,
    held_out: float = 0.1,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: Progress = False,
) -> Trained:
    r"""Train some parameters of a half or full network; the others stay as they are, bit for bit.

    A part of `data` is held out, and the parameters of the epoch with the least loss there are
    returned. Give training data: what is tested on later has no say. Modules of which nothing is
    trained run in evaluation mode, and their buffers are never written.

    Parameters
    ----------
    model, params
        From `half` or `full`. Neither is changed.
    data
        ``(input, label)`` or ``(input, label, id)``, that fit in memory.
    loss
        Of what the network computes (`logits`, `low`; `high`, `pooled` and `image`), the
        inputs and the labels, to one number; if None cross entropy of a half; of a full network the
        squared error of the image, with the disagreement of the pooled channels if it is tied.
    keys
        Of a parameter's name, whether it is trained. Asked with a module's name and a dot, whether
        that module trains: normalizes by its batch and writes its buffers. If None what begins with
        ``decoder.`` of a full network, ``head.`` of a half; ``lambda name: True`` is everything.
    epochs, batch_size
        How long and in what portions.
    rate
        Largest learning rate; if None that of the recipe.
    recipe
        ``"cosine"``: AdamW, from 3e-3 down a cosine. ``"plateau"``: the public code's, Adadelta
        with rate 1, times √0.1 after ten epochs without a lesser training loss, at least 1e-5.
    augment
        Of a batch of inputs and a seed, see `affine`. What is rebuilt is what it returned.
    held_out
        Share of `data` that the best epoch is chosen by; 0 takes the last epoch.
    checkpoint
        A file that each epoch is written to, whole or not at all, and continued from: with the same
        bits as if nothing had happened. One of another training is refused: of another network,
        parameters, data, loss, augmentation or option.
    seed
        Of the order, the split, the augmentation. Global random state is left as it was.
    progress
        True draws a bar, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    Trained
        `params`, of which those not trained are the very tensors that were given.

    Raises
    ------
    TypeError, ValueError
        If the model is neither, an option or a label is out of range, nothing is trained, a loss
        is not finite, the checkpoint is another training's, or there is one and the loss or the
        augmentation cannot be told from others, such as one that holds a generator.

    Examples
    --------
    >>> import ifa
    >>> data = ifa.nets.simulated(1, samples=12)
    >>> net, example = ifa.nets.simulated_cnn(1).eval(), data[0][0][None]
    >>> model, params = ifa.refine.half(net, None, "conv2", example, outputs=3)
    >>> done = ifa.refine.trained(model, params, data, epochs=1)
    >>> done.params["net.head.weight"] is params["net.head.weight"]
    True
    """
    where = "ifa.refine.trained"
    plan = _planned(
        where, model, loss, keys, epochs, batch_size, rate, recipe, augment, held_out, seed
    )
    check_count(f"{where}, data", "samples", len(data))
    batch = collate(where, data, range(len(data)), digest=checkpoint is not None)
    labels = torch.as_tensor(np.asarray(batch.labels))
    if plan.loss in (classified, rebuilt):
        _check_labels(where, labels, model.head.linear.out_features)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        run = Run(where, model, checked_params(where, model, params), plan)
        kept, chosen = _split(len(labels), held_out, seed)
        if checkpoint is not None:
            run.resume(Path(checkpoint), digest_of(run, batch, held_out))
        with reporting(progress, "train", epochs) as advance:
            advance(run.done)
            while run.done < epochs:
                run.epoch(batch.inputs, labels, kept, chosen)
                if checkpoint is not None:
                    run.write(Path(checkpoint))
                advance(1)
    # those not trained are the tensors that were given, and not only equal
    tensors = {**(run.frozen if params is None else params), **run.kept}
    losses, held = (torch.tensor(one, dtype=torch.float64) for one in (run.losses, run.held))
    return Trained(tensors, losses, held, torch.tensor(run.best))


def _planned(
    where: str,
    model: Any,
    loss: Loss | None,
    keys: Callable[[str], bool] | None,
    epochs: int,
    batch_size: int,
    rate: float | None,
    recipe: Recipe,
    augment: Augment | None,
    held_out: float,
    seed: int,
) -> Plan:
    if not isinstance(model, Half | Full):
        raise TypeError(
            f"{where}: expected what ifa.refine.half or ifa.refine.full returned, got "
            f"{type(model).__name__}. Make it of the network first."
        )
    check_count(where, "epochs", epochs)
    check_count(where, "batch_size", batch_size)
    check_choice(where, "recipe", recipe, ("cosine", "plateau"))
    if not 0 <= held_out < 1:
        raise ValueError(f"{where}: expected held_out from 0 to below 1, got {held_out!r}.")
    prefix = "decoder." if isinstance(model, Full) else "head."
    usual = (agreeing if model.tied else rebuilt) if isinstance(model, Full) else classified
    chosen = keys or (lambda name: name.startswith(prefix))
    own = {"cosine": 3e-3, "plateau": 1.0}[recipe] if rate is None else float(rate)
    return Plan(loss or usual, chosen, epochs, batch_size, own, recipe, augment, seed)


def _check_labels(where: str, labels: Tensor, outputs: int) -> None:
    whole = not labels.is_floating_point() and labels.ndim == 1
    if not whole or not ((labels >= 0) & (labels < outputs)).all():
        ends = f" from {labels.min()} to {labels.max()}" if labels.dtype != torch.bool else ""
        raise ValueError(
            f"{where}: expected labels as whole numbers in 0..{outputs - 1}, one for each sample, "
            f"got {labels.dtype} {tuple(labels.shape)}{ends}. Number the classes so, or give a "
            "loss=."
        )


def _split(samples: int, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return which samples are trained on, and which choose the epoch."""
    order = torch.from_numpy(np.random.default_rng((seed, 0)).permutation(samples))
    few = min(samples - 1, max(1, round(held_out * samples))) if held_out else 0
    return order[few:], order[:few]
