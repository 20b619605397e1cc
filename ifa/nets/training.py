"""Training a small network on a small data set, in seconds and with a seed."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from ifa.checks import check_choice
from ifa.network.inputs import take
from ifa.network.outputs import pick
from ifa.progress import Progress, reporting
from ifa.store.items import Batch, class_labels, collate, flag_labels, real_labels
from ifa.types import Output

_WHERE = "ifa.nets.train"
Network = TypeVar("Network", bound=nn.Module)

# What is made small: of (sample, output) and labels of the same shape, or (sample,) for classes.
_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": cross_entropy,
    "binary": binary_cross_entropy_with_logits,
    "multilabel": binary_cross_entropy_with_logits,
    "regression": mse_loss,
}


def train(
    network: Callable[[], Network],
    data: Sequence[Any],
    *,
    task: Literal["classification", "binary", "multilabel", "regression"] = "classification",
    output: Output = None,
    epochs: int = 15,
    batch_size: int = 64,
    rate: float = 3e-3,
    seed: int = 0,
    progress: Progress = False,
) -> Network:
    """Train a small network on a small data set that fits in memory.

    Parameters
    ----------
    network
        Makes what is trained, such as `digits_cnn`.
    data
        ``(input, label)`` or ``(input, label, id)``, labels as `ifa.analyze` takes them.
    task
        What labels are, as in `ifa.analyze`. The loss is the cross-entropy, of binary and
        multilabel tasks that of each logit, or for regression the mean squared error.
    output
        Picks the output out of what the network returns, as in `ifa.tap`.
    epochs, batch_size, rate
        How long, in what portions, and the largest learning rate of a cosine schedule.
    seed
        Of the weights and of the order of samples. Global random state is left as it was.
    progress
        True draws a bar, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    torch.nn.Module
        The trained network in evaluation mode, its parameters without gradients.
    """
    check_choice(_WHERE, "task", task, tuple(_LOSSES))
    batch = collate(_WHERE, data, range(len(data)))
    loss = _LOSSES[task]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
        labels = _labels(task, batch, pick(model.eval()(take(batch.inputs, slice(2))), output))
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        with torch.enable_grad(), reporting(progress, "train", epochs) as advance:
            for _ in range(epochs):
                for chosen in torch.randperm(len(labels)).split(batch_size):
                    optimizer.zero_grad()
                    found = pick(model(take(batch.inputs, chosen)), output)
                    loss(found, labels[chosen]).backward()
                    optimizer.step()
                schedule.step()
                advance(1)
    return model.eval().requires_grad_(False)


def _labels(task: str, batch: Batch, like: Tensor) -> Tensor:
    """Read labels, of all tasks but classification shaped and typed like outputs."""
    outputs = (*like.shape[1:], 1)[0]
    if task == "classification":
        return class_labels(_WHERE, batch, 0, outputs)
    if task == "regression":
        labels = real_labels(_WHERE, batch, 0, outputs)
    else:
        labels = flag_labels(_WHERE, batch, 0, outputs)
    return labels.to(like.dtype).reshape(-1, *like.shape[1:])
