"""The smallest set whose loss is shown to be within a tolerance, and those shown to lose more."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ifa.intervals import loss_bound

# (place of a size, samples) -> loss of each (full minus kept), and how much one can be of n times
# the mean
Loss = Callable[[int, np.ndarray], tuple[np.ndarray, float | None]]


def smallest(
    loss: Loss, sizes: int, samples: np.ndarray, codes: np.ndarray, tolerance: float, alpha: float
) -> int:
    """Return the place of the smallest size that is enough, going down from every channel.

    Sizes are tested in an order that the samples did not choose, and the first that is not shown to
    be enough ends it. So the chance that the returned one, or any on the way, loses more than the
    tolerance is at most `alpha`, with no price for the number of sizes: a fixed sequence of tests
    (Maurer, Hothorn & Lehmacher 1995). `samples` are those looked at; the last size is not tested.
    """
    found = sizes - 1
    while found:
        each, most = loss(found - 1, samples)
        if not loss_bound(each, codes=codes[samples], most=most, alpha=alpha) <= tolerance:
            break
        found -= 1
    return found


def fewest(
    loss: Loss, sizes: int, samples: np.ndarray, codes: np.ndarray, tolerance: float, alpha: float
) -> int:
    """Return the place of the smallest size that is not shown to lose more than the tolerance.

    As `smallest`, from the other end: sizes are tested upwards by a lower bound of the loss. So the
    chance that one below the returned place is enough is at most `alpha`.
    """
    found = 0
    while found < sizes - 1:
        each, most = loss(found, samples)
        if not -loss_bound(-each, codes=codes[samples], most=most, alpha=alpha) > tolerance:
            break
        found += 1
    return found


def folds_of(
    codes: np.ndarray, folds: int, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (those that choose, those that are measured): every cluster is measured once."""
    names = np.random.default_rng(seed).permutation(np.unique(codes))
    for part in np.array_split(names, min(folds, len(names))):
        measured = np.isin(codes, part)
        yield np.flatnonzero(~measured), np.flatnonzero(measured)


def candidates(channels: int, counts: Sequence[int], most: int) -> np.ndarray:
    """Return the sizes that are looked at: about evenly spaced in ratio, and those asked for."""
    spaced = np.geomspace(1, channels, most).round().astype(int)
    sizes = np.arange(1, channels + 1) if channels <= most else spaced
    return np.unique(np.concatenate([sizes, np.asarray(counts, dtype=np.int64), [channels]]))
