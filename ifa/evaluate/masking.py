"""What metrics that run the network share: a batch, its maps and targets, and scores of variants.

A row is one sample with one of its targets. Rows are scored alone: neither their neighbours nor the
portions in which they run can change a result by more than the network's own rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ifa.baseline import Baseline, baseline_of, imputes
from ifa.chains import describe
from ifa.checks import check_count
from ifa.declared import declared
from ifa.evaluate.sharing import Batch, once
from ifa.network.gradients import score_all
from ifa.network.inputs import (
    at,
    baselines_of,
    check_batch,
    device_of,
    grid_place,
    joined,
    noise_like,
    over,
    put,
    real_grid_place,
    space_of,
    split,
    take,
    tensors_of,
)
from ifa.network.outputs import map_tensors
from ifa.network.scorers import Scorer
from ifa.noise import chunks
from ifa.score.rows import classes_at
from ifa.types import Inputs, Output, Score, Target

# How many numbers a portion of inputs has by default, and how many inputs at most: fewer on a CPU,
# where activations are to stay in the cache, and in memory that the process has already.
_PORTION, _PORTION_ON_CPU = (2**22, 256), (2**21, 96)

T = TypeVar("T")


class Case:
    r"""Checked inputs, maps and targets, and the network that scores variants of the inputs.

    Parameters
    ----------
    where
        What an error names: the public function.
    model, score, output
        As in `ifa.tap`.
    inputs : (sample, \*input)
        A batch: a tensor, or a tree of them, of which the one with the grid is masked.
    maps : (\*target's shape, \*space) or (\*target's shape, block, \*space)
        At the input's size; of a tree that of the tensor with the grid is taken.
    target
        As a metric gets it; None is the prediction.
    baseline
        What stands for "nothing there": also an imputation, where positions are hidden.
    chunk
        How many inputs run at once; None for a default by their size.
    grid_of
        Which tensor has the grid, see `ifa.tap`.
    """

    def __init__(
        self,
        where: str,
        model: nn.Module,
        inputs: Inputs,
        maps: Any,
        target: Target,
        score: Score,
        baseline: Baseline,
        chunk: int | None,
        output: Output,
        grid_of: str | int | None = None,
    ):
        check_inputs(where, inputs, grid_of)
        self.where, self.every = where, map_tensors(inputs, Tensor.detach)
        self.place = grid_place(where, inputs, grid_of)
        self.inputs = at(self.every, self.place)  # that which is masked
        self.chunk = chunk_of(where, chunk, inputs)
        self._batch = Batch(model, inputs, target)
        self._asked = score, output, self.chunk
        self._scorer = once(
            self._batch,
            ("scorer", where, score, output),
            lambda: Scorer(where, model, score, output),
        )
        target = targets_of(self._scorer, self.every, target, self.chunk)
        self.shape = tuple(target.shape)  # (sample,) or (target, sample)
        self._target = target.flatten()
        maps = maps if isinstance(maps, Tensor) else at(maps, self.place)
        self.maps = _rows_of(where, self.inputs, maps, self.shape)  # (row, block, *space)
        self.silent = says_nothing(self.maps)  # (row,)
        own: Any = at(baseline, self.place) if isinstance(baseline, Mapping | tuple) else baseline
        self._imputation: Any = own if imputes(own) else None
        if self._imputation is None:
            made = self.fixed(
                "baseline", baseline, make=lambda: baselines_of(where, baseline, self.every)
            )
            self._baseline = at(made, self.place)
        self._hiding = baseline, self.place

    @property
    def target(self) -> Tensor:
        """What is explained, (sample,) or (target, sample)."""
        return self._target.reshape(self.shape)

    def before(self) -> Tensor:
        """Score the inputs as they are: (row,)."""

        def scored() -> Tensor:
            each = [self.score(self.inputs[self.samples(rows)], rows) for rows, _ in self.spans(1)]
            return torch.cat(each)

        return self.fixed("before", make=scored)

    def emptied(self) -> Tensor:
        """Score inputs of which nothing is left: (row,)."""
        space = self.maps.shape[2:]

        def none(rows: Tensor, _: Tensor) -> Tensor:
            return torch.zeros(len(rows), 1, *space, dtype=torch.bool, device=rows.device)

        return self.hidden("emptied", make=lambda: self.shown(1, none))[:, 0]

    def fixed(self, *what: Any, make: Callable[[], T]) -> T:
        """Return what no map changes: of a batch that is shared it is made once."""
        return once(self._batch, (*what, *self._asked), make)

    def hidden(self, *what: Any, make: Callable[[], T]) -> T:
        """Return what no map changes, though it depends on what hidden positions become."""
        return self.fixed(*what, *self._hiding, make=make)

    def shown(self, variants: int, mask: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Score inputs of which only what a mask shows is left: (row, variant).

        `mask` takes rows and variants, both (portion,), to (portion, block, *space): boolean, or
        the share of the input that is left.
        """
        parts = [
            self.score(self.composed(rows, mask(rows, number)), rows)
            for rows, number in self.spans(variants)
        ]
        return self.gathered(parts, variants)

    def answered(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Score inputs of which only what a mask (row, ...) shows is left: (row,).

        And tell where the target is what the network then predicts, as 0 and 1; NaN where an output
        is no choice of one among several.
        """
        scores, hits = [], []
        for rows, _ in self.spans(1):
            shown = put(
                take(self.every, self.samples(rows)), self.place, self.composed(rows, mask[rows])
            )
            with torch.no_grad():
                output = self._scorer.run(shown)
            target = self._target[rows]
            scores.append(score_all(self.where, self._scorer.score, output, target).double())
            choice = isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1
            choice = choice and declared(self._scorer.score, "exclusive", True)
            asked = classes_at(self._scorer.score, target)
            hit = (output.argmax(1) == asked).double() if choice else torch.nan
            hits.append(torch.where(scores[-1].isnan(), torch.nan, hit))
        return torch.cat(scores), torch.cat(hits)

    def spans(self, variants: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield portions of all rows' variants, by rows and variants; all rows of one first."""
        rows = len(self.maps)
        for span in chunks(rows * variants, self.chunk):
            place = torch.arange(span.start, span.stop, device=self.inputs.device)
            yield place % rows, place // rows

    def samples(self, rows: Tensor) -> Tensor:
        """Return which sample each row is of."""
        return rows % len(self.inputs)

    def composed(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Return inputs where the mask is one, and the baseline where it is zero."""
        sample, large = self.samples(rows), self.expanded(mask)
        inputs = self.inputs[sample]
        if self._imputation is not None:
            return self._imputed(inputs, large)
        baseline = self._baseline[sample]
        if large.dtype == torch.bool:
            return torch.where(large, inputs, baseline)
        return torch.lerp(baseline, inputs, large.to(inputs))

    def _imputed(self, inputs: Tensor, shown: Tensor) -> Tensor:
        if shown.dtype != torch.bool:
            raise ValueError(
                f"{self.where}: expected positions that are shown or hidden with the imputation "
                f"{describe(self._imputation)}, got a soft mask. Give a threshold, or a baseline "
                "such as ifa.baseline.blur(4.0)."
            )
        made = self._imputation(inputs, shown)
        if not isinstance(made, Tensor) or made.shape != inputs.shape:
            came = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(
                f"{self.where}: expected the imputation {describe(self._imputation)} to return "
                f"inputs {tuple(inputs.shape)}, got {came}."
            )
        return torch.where(shown, inputs, made.to(inputs))

    def expanded(self, values: Tensor) -> Tensor:
        """Give every channel the values of its group: (n, block, *space) to (n, *input)."""
        size = tuple(self.inputs.shape[1:])
        channels = size[0] if len(size) > 1 else 1
        block = channels // values.shape[1]
        wide = values[:, :, None].expand(-1, -1, block, *values.shape[2:])
        return wide.reshape(len(values), *size)

    def baselines(self, rows: Tensor) -> Tensor:
        """Return the baseline of each row's sample."""
        if self._imputation is not None:  # which there is refused
            return baseline_of(self.where, self._imputation, self.inputs)
        return self._baseline[self.samples(rows)]

    def score(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Score inputs that stand for rows, other tensors of a tree beside them: float64."""
        whole = put(take(self.every, self.samples(rows)), self.place, inputs)
        return self.score_all(whole, rows)

    def score_all(self, inputs: Inputs, rows: Tensor) -> Tensor:
        """Score all that a network is given for rows: float64."""
        with torch.no_grad():
            return self._scorer.scores(inputs, self._target[rows]).double()

    def gathered(self, parts: Sequence[Tensor], variants: int) -> Tensor:
        """Join what was made of the portions: (row, variant)."""
        if not variants:
            return torch.empty(len(self.maps), 0, dtype=torch.float64, device=self.inputs.device)
        return torch.cat(list(parts)).reshape(variants, len(self.maps)).T

    def lifted(self, values: Tensor) -> Tensor:
        """Give the rows their axes back, (sample, ...) or (target, sample, ...)."""
        return values.reshape(*self.shape, *values.shape[1:])

    def known(self, values: Tensor, silent: Tensor | None = None) -> Tensor:
        """Lift values of rows, NaN where the map is constant or not finite."""
        silent = self.silent if silent is None else silent
        silent = silent.reshape(-1, *(1,) * (values.ndim - 1))
        return self.lifted(torch.where(silent, torch.nan, values))


def says_nothing(*maps: Tensor) -> Tensor:
    """Tell where maps of a row are constant, all together, or not finite: (row,)."""
    flat = torch.cat([part.flatten(1) for part in maps], 1)
    return ~flat.isfinite().all(1) | (flat.amax(1) == flat.amin(1))


def check_inputs(where: str, inputs: Any, grid_of: str | int | None = None) -> None:
    """Raise unless inputs are a batch, of real numbers where they are to be masked."""
    if not isinstance(inputs, Tensor):
        check_batch(where, inputs)
        real_grid_place(where, inputs, grid_of)
        return
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        came = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(
            f"{where}: expected inputs of a floating dtype, got {came}. "
            "Make the embedding the network's input."
        )
    if inputs.ndim < 2 or inputs.numel() == 0:
        raise ValueError(
            f"{where}: expected inputs (sample, *input), at least one, got {tuple(inputs.shape)}."
        )


def chunk_of(where: str, chunk: int | None, inputs: Inputs) -> int:
    """Return how many inputs run at once."""
    if chunk is None:
        numbers, most = _PORTION_ON_CPU if device_of(inputs).type == "cpu" else _PORTION
        return max(1, min(most, numbers // sum(one[0].numel() for one in tensors_of(inputs))))
    check_count(where, "chunk", chunk)
    return chunk


def targets_of(scorer: Scorer, inputs: Inputs, target: Target, chunk: int) -> Tensor:
    """Return checked targets; the prediction, if there are none, in portions."""
    if target is not None:
        return scorer.targets(inputs, target)
    return torch.cat([scorer.targets(part, None) for part in split(inputs, chunk)])


def drawn(inputs: Any, seed: int, draws: Tensor) -> Any:
    r"""Draw normal noise like the inputs for a portion, whose draws follow each other."""
    first, last = int(draws[0]), int(draws[-1])
    found = [noise_like(inputs, seed, draw) for draw in range(first, last + 1)]
    return over(lambda one: one[draws - first], joined(found))


def _rows_of(where: str, inputs: Tensor, maps: Any, lead: tuple[int, ...]) -> Tensor:
    """Return maps as (row, block, *space)."""
    shape = tuple(maps.shape) if isinstance(maps, Tensor) else None
    space = space_of(inputs)
    channels = inputs.shape[1] if inputs.ndim > 2 else 0
    plain, grouped = (*lead, *space), len(lead) + 1 + len(space)
    if isinstance(maps, Tensor) and shape == plain:
        rows = maps.reshape(-1, 1, *space)
    elif (
        isinstance(maps, Tensor)
        and channels
        and maps.ndim == grouped
        and (*maps.shape[: len(lead)], *maps.shape[len(lead) + 1 :]) == plain
        and maps.shape[len(lead)] > 0
        and channels % maps.shape[len(lead)] == 0
    ):
        rows = maps.reshape(-1, *maps.shape[len(lead) :])
    else:
        blocks = (
            f", or {(*lead, 'block', *space)} with a group for each block of " if channels else ""
        )
        raise ValueError(
            f"{where}: expected maps {plain} at the inputs' size"
            f"{blocks}{f'equally many of the {channels} channels' if channels else ''}, one for "
            f"each sample and target, got {shape or type(maps).__name__}. Bring maps of a layer "
            "to the inputs' size with ifa.resize."
        )
    rows = rows.detach().to(inputs.device)
    return rows if rows.is_floating_point() else rows.double()
