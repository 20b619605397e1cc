"""Scenes with planted objects, and a small detector that returns a list, one for each image."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ifa.progress import Progress, reporting

Found = dict[str, Tensor]  # boxes (box, 4), labels (box,), of a detector also scores (box,)

_SIZE = 32
_STRIDE = 4


def scenes(*, samples: int = 640, seed: int = 0) -> list[tuple[Tensor, Found, str]]:
    """Simulate images of discs and crosses in noise, with their boxes: no real data.

    Parameters
    ----------
    samples
        How many images.
    seed
        Of places, sizes and noise.

    Returns
    -------
    list of (image, objects, id)
        Image (1, 32, 32) float32; objects ``{"boxes": (box, 4), "labels": (box,)}``, one to three
        that do not touch, ``(left, top, right, bottom)`` in pixels from the image's upper left
        corner, label 0 for a disc and 1 for a cross; an id such as ``"scene-007"``.

    Examples
    --------
    >>> image, objects, name = scenes(samples=2)[1]
    >>> image.shape, objects["boxes"].shape[1], name
    (torch.Size([1, 32, 32]), 4, 'scene-001')
    """
    rng = np.random.default_rng(seed)
    items = []
    for number in range(samples):
        image = 0.15 * rng.standard_normal((_SIZE, _SIZE))
        boxes: list[np.ndarray] = []
        labels: list[int] = []
        for _ in range(int(rng.integers(1, 4))):
            size = int(rng.integers(7, 12))
            left, top = rng.integers(0, _SIZE - size + 1, 2)
            box = np.array([left, top, left + size, top + size])
            if any(
                (box[:2] <= other[2:]).all() and (other[:2] <= box[2:]).all() for other in boxes
            ):
                continue
            labels.append(int(rng.integers(2)))
            boxes.append(box)
            image[top : top + size, left : left + size] += _drawn(labels[-1], size)
        found = {
            "boxes": torch.from_numpy(np.stack(boxes)).float(),
            "labels": torch.tensor(labels),
        }
        items.append((torch.from_numpy(image).float()[None], found, f"scene-{number:03d}"))
    return items


def _drawn(label: int, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    if label == 0:
        return (np.hypot(x, y) <= size / 2).astype(float)
    return (np.minimum(abs(x), abs(y)) < size / 5).astype(float)


class Detector(nn.Module):
    """Three convolutions and two heads on a grid of 8 × 8. Build it with `scenes_detector`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU())
        self.conv3 = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())
        self.score_head = nn.Conv2d(24, 2, 1)
        self.box_head = nn.Conv2d(24, 4, 1)

    def grid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return at every place of the grid the logits of labels, (sample, place, 2), and a box."""
        hidden = self.conv3(self.conv2(self.conv1(images)))
        logits, sides = (
            self.score_head(hidden),
            _STRIDE * functional.softplus(self.box_head(hidden)),
        )
        y, x = (_STRIDE * (torch.arange(n).to(images) + 0.5) for n in hidden.shape[2:])
        centers = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))])
        boxes = torch.cat([centers - sides[:, :2], centers + sides[:, 2:]], 1)
        return logits.flatten(2).mT, boxes.flatten(2).mT

    def forward(self, images: Tensor) -> list[Found]:
        logits, boxes = self.grid(images)
        return [_kept(one.sigmoid(), box) for one, box in zip(logits, boxes, strict=True)]


def _kept(scores: Tensor, boxes: Tensor, least: float = 0.5, most: float = 0.3) -> Found:
    """Take boxes of a score above `least`, best first, that no better one overlaps."""
    places, labels = (scores > least).nonzero(as_tuple=True)
    order = scores[places, labels].argsort(descending=True, stable=True)
    places, labels = places[order], labels[order]
    overlaps = _overlaps(boxes[places].detach())
    kept: list[int] = []
    for number in range(len(places)):
        if not kept or float(overlaps[number, kept].max()) <= most:
            kept.append(number)
    places, labels = places[kept], labels[kept]
    return {"boxes": boxes[places], "scores": scores[places, labels], "labels": labels}


def _overlaps(boxes: Tensor) -> Tensor:
    """Return intersection over union of every two boxes."""
    one, other = boxes[:, None], boxes[None]
    sides = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(
        one[..., :2], other[..., :2]
    )
    shared, areas = sides.clamp(min=0).prod(-1), (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (areas[:, None] + areas - shared)


def scenes_detector() -> Detector:
    """Build a detector for `scenes`: ``conv3`` has 24 channels on a grid of 8 × 8.

    Returns
    -------
    torch.nn.Module
        (sample, 1, 32, 32) -> a list of ``{"boxes": (box, 4), "scores": (box,), "labels": (box,)}``
        for each image, as torchvision's detectors return it: boxes ``(left, top, right, bottom)``
        in pixels, of any number, best first, after non-maximum suppression.

    Examples
    --------
    >>> found = scenes_detector().eval()(torch.zeros(2, 1, 32, 32))
    >>> len(found), sorted(found[0])
    (2, ['boxes', 'labels', 'scores'])
    """
    return Detector()


def train_scenes(
    *, data: list[Any] | None = None, epochs: int = 20, seed: int = 0, progress: Progress = False
) -> Detector:
    """Train the detector: 3 s on one core.

    Parameters
    ----------
    data
        `scenes`, by default 640 of them.
    epochs
        How long.
    seed
        Of weights and order. Global random state is left as it was.
    progress
        True draws a bar, a callable gets ``(done, total)`` epochs.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, its parameters without gradients.
    """
    data = scenes(seed=seed) if data is None else data
    images = torch.stack([image for image, _, _ in data])
    wanted = [_wanted(objects) for _, objects, _ in data]
    heat, boxes = (torch.stack(parts) for parts in zip(*wanted, strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = scenes_detector()
        nn.init.constant_(model.get_parameter("score_head.bias"), -3.0)  # most places hold nothing
        optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        with torch.enable_grad(), reporting(progress, "train", epochs) as advance:
            for _ in range(epochs):
                for chosen in torch.randperm(len(images)).split(32):
                    optimizer.zero_grad()
                    _loss(*model.grid(images[chosen]), heat[chosen], boxes[chosen]).backward()
                    optimizer.step()
                schedule.step()
                advance(1)
    return model.eval().requires_grad_(False)


def _wanted(objects: Found) -> tuple[Tensor, Tensor]:
    """Return what the grid should hold: 1 at an object's middle, (place, 2), and boxes there."""
    side = _SIZE // _STRIDE
    heat, boxes = torch.zeros(side * side, 2), torch.zeros(side * side, 4)
    for box, label in zip(objects["boxes"], objects["labels"], strict=True):
        column, row = ((box[:2] + box[2:]) / 2 / _STRIDE).long().clamp(max=side - 1).tolist()
        heat[row * side + column, label] = 1
        boxes[row * side + column] = box
    return heat, boxes


def _loss(logits: Tensor, boxes: Tensor, heat: Tensor, wanted: Tensor) -> Tensor:
    objects = heat.amax(2)
    scored = functional.binary_cross_entropy_with_logits(
        logits, heat, pos_weight=logits.new_tensor(4.0)
    )
    placed = functional.smooth_l1_loss(boxes, wanted, reduction="none").sum(2)
    return 20 * scored + 0.3 * (placed * objects).sum() / objects.sum()
