"""Training a small network on a small data set, in seconds and with a seed."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ifa.progress import Progress, reporting
from ifa.store.items import collate

Network = TypeVar("Network", bound=nn.Module)


def train(
    network: Callable[[], Network],
    data: Sequence[Any],
    *,
    epochs: int = 15,
    batch_size: int = 64,
    rate: float = 3e-3,
    seed: int = 0,
    progress: Progress = False,
) -> Network:
    """Train a small classifier on a small data set that fits in memory.

    Parameters
    ----------
    network
        Makes what is trained, such as `digits_cnn`.
    data
        ``(input, label)`` or ``(input, label, id)``, labels output indices.
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
    batch = collate("ifa.nets.train", data, range(len(data)))
    labels = torch.tensor([int(label) for label in batch.labels])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        with torch.enable_grad(), reporting(progress, "train", epochs) as advance:
            for _ in range(epochs):
                for chosen in torch.randperm(len(labels)).split(batch_size):
                    optimizer.zero_grad()
                    cross_entropy(model(batch.inputs[chosen]), labels[chosen]).backward()
                    optimizer.step()
                schedule.step()
                advance(1)
    return model.eval().requires_grad_(False)
