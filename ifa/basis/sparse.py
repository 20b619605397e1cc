"""A sparse autoencoder of a layer's positions, trained here."""

from typing import Any

import torch
from torch import Tensor

from ifa.basis.dictionaries import Dictionary
from ifa.basis.fits import halves, unexplained
from ifa.checks import check_count, check_size


def sparse_autoencoder(
    activations: Any,
    *,
    atoms: int,
    active: int = 8,
    epochs: int = 20,
    batch_size: int = 256,
    rate: float = 1e-2,
    held_out: float = 0.25,
    seed: int = 0,
) -> Dictionary:
    r"""Train atoms of which few are active at every position: a top-k sparse autoencoder.

    .. math:: U = \operatorname{top}_k\bigl(\max(0, E (A - \bar A))\bigr), \qquad
        \hat A = \bar A + \sum_k U_k D_k

    by Adam, on the squared error, atoms of unit length; the encoder begins as the atoms. An atom
    that was active nowhere in an epoch begins anew, as what is left of a row. There may be more
    atoms than channels.

    Parameters
    ----------
    activations : (sample, channel, \*space)
        Every position is a row.
    atoms, active
        How many there are, and how many at most are not 0 at a position.
    epochs, batch_size, rate
        How long, in what portions, and the learning rate, which falls to a tenth.
    held_out
        Share of the samples that are not trained on, for `Dictionary.unexplained`.
    seed
        Of the first atoms, of the order, and of which samples are held out.

    Returns
    -------
    Dictionary
        In float64.

    Raises
    ------
    ValueError
        If an option is not as above, an activation is not finite, or there are fewer than two
        samples.

    References
    ----------
    Makhzani & Frey 2014, "k-sparse autoencoders". arXiv:1312.5663. Gao et al. 2024, "Scaling and
    evaluating sparse autoencoders". arXiv:2406.04093

    Examples
    --------
    >>> import ifa, torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = torch.eye(4)[torch.randint(4, (200,), generator=generator)]
    >>> found = ifa.basis.sparse_autoencoder(rows, atoms=6, active=1, epochs=50, rate=0.05)
    >>> float(found.unexplained) < 0.1
    True
    """
    where = "ifa.basis.sparse_autoencoder"
    for name, count in {"atoms": atoms, "epochs": epochs, "batch_size": batch_size}.items():
        check_count(where, name, count)
    check_count(where, "active", active)
    check_size(where, "rate", rate)
    if active > atoms:
        raise ValueError(f"{where}: expected active of at most {atoms} atoms, got {active}.")
    train, test = halves(where, activations, held_out, seed)
    mean = train.mean(0)
    rows = (train - mean).float()
    scale = float(rows.square().sum(1).mean().sqrt()) or 1.0
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        made, reads = _trained(
            rows / scale, atoms, active, epochs, batch_size, rate, generator=generator
        )
    made, reads = made.double(), reads.double()
    found = Dictionary(made, reads, mean, -reads @ mean, torch.tensor(active))
    return found._replace(unexplained=unexplained(found, test))


def _trained(
    rows: Tensor,
    atoms: int,
    active: int,
    epochs: int,
    batch_size: int,
    rate: float,
    *,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return atoms and encoder, of rows about their mean."""
    begin = _unit(torch.randn(atoms, rows.shape[1], generator=generator))
    made, reads = (begin.clone().requires_grad_() for _ in range(2))
    optimizer = torch.optim.Adam([made, reads], rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / epochs))
    for epoch in range(epochs):
        used = torch.zeros(atoms, dtype=torch.bool)
        for part in torch.randperm(len(rows), generator=generator).split(batch_size):
            batch = rows[part]
            codes = _codes(batch, reads, active)
            loss = (batch - codes @ made).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            used |= (codes > 0).any(0)
            with torch.no_grad():
                made.copy_(_unit(made))
        schedule.step()
        if epoch < epochs - 1 and not used.all():
            _begin_anew(rows, made, reads, ~used, active, generator)
    return made.detach(), reads.detach()


def _codes(rows: Tensor, reads: Tensor, active: int) -> Tensor:
    codes = (rows @ reads.T).relu()
    top = codes.topk(active, 1)
    return torch.zeros_like(codes).scatter(1, top.indices, top.values)


@torch.no_grad()
def _begin_anew(
    rows: Tensor,
    made: Tensor,
    reads: Tensor,
    dead: Tensor,
    active: int,
    generator: torch.Generator,
) -> None:
    """Give atoms that nothing uses the direction of what is left of a row."""
    chosen = torch.randint(len(rows), (int(dead.sum()),), generator=generator)
    left = rows[chosen] - _codes(rows[chosen], reads, active) @ made
    made[dead] = reads[dead] = _unit(left)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
