"""What of the importance no atom of a basis holds."""

from typing import NamedTuple

import torch
from torch import Tensor

from ifa.reduce.kept import Observed, Shape, Statistic, Variable, in_cells
from ifa.reduce.moments import WeightedState, WeightedValues, weighted_moments
from ifa.types import Reduction


class Residual(NamedTuple):
    """The statistic, by group and target."""

    residual: Tensor  # mean over accepted samples
    explained: Tensor  # share of the sum of mean importances that atoms hold


def _residual(shape: Shape) -> Reduction:
    plain = in_cells(weighted_moments(), shape, "target", _both)

    def finalize(state: WeightedState) -> Residual:
        held, residual = plain.finalize(state).mean.unbind(-1)
        return Residual(residual, held / (held + residual))

    return plain._replace(finalize=finalize)


def _both(batch: Observed) -> WeightedValues:
    held = batch.importance.sum(1, dtype=torch.float64)
    return WeightedValues(torch.stack([held, batch.residual], 1), batch.weight)


RESIDUAL = Statistic(
    _residual,
    {
        "residual": Variable(
            "residual",
            ("group", "target"),
            "mean importance that no atom holds, over accepted samples",
            "score",
        ),
        "explained": Variable(
            "explained",
            ("group", "target"),
            "share of the mean importance of accepted samples that atoms hold",
        ),
    },
    by="target",
)
