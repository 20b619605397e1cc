"""What samples look like: images on one sheet, signals as lines, volumes as voxels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, interpolate

from ifa.network.inputs import at, grid_place, space_of
from ifa.plot.pictures import Look, desaturated, picture_of, said_of
from ifa.reports.packing import packed, quantized, sheet

_SIDE = {2: 224, 3: 64}  # pixels, voxels
_POINTS = 1200  # of a signal
_LANES = 32
BYTES = 6 * 2**20  # of all inputs together


class Shown(NamedTuple):
    """A sample's input as it is drawn, and how large it was."""

    values: np.ndarray
    space: tuple[int, ...]
    note: str


def drawn(where: str, inputs: Any, look: Look, grid_of: Any, rank: int) -> Shown | None:
    """Make of one input what is drawn; None if it has no grid with as many axes as maps have."""
    values = at(inputs, grid_place(where, inputs, grid_of))[0].detach().cpu()
    space = space_of(values[None])
    if len(space) != rank:
        return None
    if rank == 1:
        lanes = values.reshape(-1, space[0]).float().numpy()
        note = f"{_LANES} of {len(lanes)} lanes are drawn." if len(lanes) > _LANES else ""
        return Shown(_thinned(lanes[:_LANES]), space, note)
    picture = picture_of(where, values, rank, look)
    note = "; ".join(said_of(values.shape[0] if values.ndim > rank else 1, look, rank))
    if rank == 3:
        picture = desaturated(picture, rank)
    bits = np.rint(255 * _smaller(picture, rank)).astype(np.uint8)
    return Shown(bits, space, f"Inputs are drawn by the {note}." if note else "")


def _thinned(lanes: np.ndarray) -> np.ndarray:
    """Keep the smallest and largest value of each stretch, where there are too many points."""
    if lanes.shape[1] <= _POINTS:
        return lanes
    stretches = np.array_split(lanes, _POINTS // 2, axis=1)
    pairs = [np.stack([one.min(1), one.max(1)], 1) for one in stretches]
    return np.concatenate(pairs, axis=1)


def _smaller(picture: np.ndarray, rank: int) -> np.ndarray:
    """Shrink to the most that is drawn, by means over what falls together."""
    space = picture.shape[:rank]
    factor = _SIDE[rank] / max(space)
    if factor >= 1:
        return picture
    size: Any = tuple(max(1, round(extent * factor)) for extent in space)
    tensor = torch.from_numpy(np.ascontiguousarray(picture, np.float32))
    if rank == 3:
        return adaptive_avg_pool3d(tensor[None, None], size)[0, 0].numpy()
    stacked = tensor.reshape(*space, -1).permute(2, 0, 1)[None]
    shrunk: Tensor = interpolate(stacked, size=size, mode="bilinear", antialias=True)
    result = shrunk[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return result if picture.ndim > rank else result[..., 0]


def input_bytes(shown: Shown) -> int:
    """Estimate how many bytes a sample takes on the page."""
    if len(shown.space) == 1:
        return 2 * shown.values.size
    if len(shown.space) == 3:
        return shown.values.size
    high, wide = shown.values.shape[:2]
    return max(64, int(0.35 * high * wide))


def inputs_part(shown: Sequence[Shown], names: Sequence[str] | None) -> tuple[Any, list[str]]:
    """Lay the inputs of the shown samples out, and say what is not as it was."""
    first = shown[0]
    rank = len(first.space)
    notes = [first.note] if first.note else []
    said: dict[str, Any] = {"space": list(first.space), "drawn": list(first.values.shape)}
    values = np.stack([one.values for one in shown])
    if rank == 1:
        if first.values.shape[1] != first.space[0]:
            notes.append(
                f"Signals of {first.space[0]} points are drawn by the smallest and largest of each "
                f"of {first.values.shape[1] // 2} stretches."
            )
        return {"kind": "signal", "names": names, "lanes": quantized(values, 2, 16)} | said, notes
    if max(first.space) > max(first.values.shape[:rank]):
        was, now = (" × ".join(map(str, size)) for size in (first.space, first.values.shape[:rank]))
        notes.append(f"Inputs of {was} are drawn at {now}.")
    if rank == 3:
        return {"kind": "volume", "voxels": packed(values)} | said, notes
    laid, note = sheet(values, BYTES)
    return {"kind": "image", "sheet": laid} | said, notes + [note] * bool(note)
