"""Populations: how importances are distributed, and how they hang together."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.special import ndtr, stdtrit

from .runs import simulated_run

CHANNELS = 20  # unless another number is said
MEMBERS = 5  # samples of a cluster, channels of a block
ICC, WITHIN = 0.5, 0.8  # correlation in a cluster of samples, and in a block of channels

# what a standard normal number becomes, and the mean of that
LAWS = {
    "normal": (lambda z: z, 0.0),
    "t3": (lambda z: stdtrit(3, ndtr(z)), 0.0),
    "lognormal": (np.exp, np.exp(0.5)),
    "ReLU-like": (lambda z: np.maximum(z, 0), 1 / np.sqrt(2 * np.pi)),
}


class Setting(NamedTuple):
    """One population: `n` samples, of all targets together."""

    n: int = 30
    law: str = "normal"
    channels: int = CHANNELS
    targets: int = 1
    listed: bool = False  # every target explained of each sample
    blocks: bool = False
    clusters: bool = False
    given: bool = True  # whether the run says which samples belong together
    share: float = 0.0  # of the first of two targets; as many of each if 0

    def __str__(self) -> str:
        words = [self.law, f"n {self.n}"]
        if self.targets > 1:
            words.append(f"{self.targets} {'listed ' if self.listed else ''}targets")
        if self.share:
            words.append(f"{self.share:.0%} of one class")
        if self.channels != CHANNELS:
            words.append(f"{self.channels} channel{'s' * (self.channels > 1)}")
        if self.blocks:
            words.append("blocks")
        if self.clusters:
            words.append("clusters" if self.given else "clusters not given")
        return ", ".join(words)


def numbers(rng: np.random.Generator, of: Setting, columns: int) -> np.ndarray:
    """Standard normal (sample, column), with the setting's dependence between samples."""
    own = rng.standard_normal((of.n, columns))
    if not of.clusters:
        return own
    shared = rng.standard_normal((-(-of.n // MEMBERS), columns)).repeat(MEMBERS, 0)[: of.n]
    return np.sqrt(ICC) * shared + np.sqrt(1 - ICC) * own


def values(rng: np.random.Generator, of: Setting) -> np.ndarray:
    """Importances (sample, channel)."""
    z = numbers(rng, of, of.channels)
    if of.blocks:
        shared = numbers(rng, of, -(-of.channels // MEMBERS)).repeat(MEMBERS, 1)[:, : of.channels]
        z = np.sqrt(WITHIN) * shared + np.sqrt(1 - WITHIN) * z
    return LAWS[of.law][0](z)


def mean_of(of: Setting) -> float:
    return float(LAWS[of.law][1])


def target_of(of: Setting) -> np.ndarray:
    """Explained target of each sample; samples of one cluster have the same."""
    units = np.arange(of.n) // MEMBERS if of.clusters else np.arange(of.n)
    count = units[-1] + 1
    if of.share:
        return (units >= round(of.share * count)).astype(np.int64)
    return units % of.targets


def run_of(
    rng: np.random.Generator,
    of: Setting,
    importance: np.ndarray | None = None,
    *,
    name: str = "",
    score: np.ndarray | None = None,
    target: np.ndarray | None = None,
    label: np.ndarray | None = None,
) -> xr.DataTree:
    """Draw a run; `name` tells the samples of one run from those of another.

    `target` is what is predicted, and explained unless all targets are.
    """
    importance = values(rng, of) if importance is None else importance
    target = target_of(of) if target is None else target
    if of.listed:
        importance = np.broadcast_to(importance, (of.targets, *importance.shape[-2:]))
    if score is None:
        score = numbers(rng, of, importance[..., 0].size // of.n).T.reshape(importance.shape[:-1])
    label = target if label is None else label
    options: dict[str, Any] = {"ids": [f"{name}{n}" for n in range(of.n)]}
    if of.clusters and of.given:
        options["cluster"] = [f"{name}{n // MEMBERS}" for n in range(of.n)]
    targets = np.arange(max(of.targets, 2))[: None if of.share else of.targets]
    return simulated_run(importance, targets, label, target, score, **options)
