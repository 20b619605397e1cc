"""Make the picture that the documentation opens with: python docs/make_opening.py PICTURE.

Coins of a photograph lie on bricks, grass and gravel, at any strength, and a network learns whether
there is one.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter, label
from skimage import data, filters, measure
from torch import nn

import ifa

SIZE = 96
GROUNDS = ("brick", "grass", "gravel")
SHOWN = (1.0, 0.5, 0.25, 0.0)  # how strong the coin is


def coins() -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut the coins out of their photograph: each with a soft mask of where it is."""
    whole = data.coins() / 255.0
    marked = label(whole > filters.threshold_otsu(whole))[0]
    found = []
    for region in measure.regionprops(marked):
        top, left, bottom, right = region.bbox
        if min(bottom - top, right - left) > 30 and region.area < 5000:
            cut = np.s_[top:bottom, left:right]
            found.append((whole[cut], gaussian_filter(region.image_convex.astype(float), 1.5)))
    return found


def scene(rng: np.random.Generator, half: int, strength: float, name: str | None = None):
    """Lay one coin on a ground; `half` is the half of the photographs that both come from."""
    whole = getattr(data, name or str(rng.choice(GROUNDS)))() / 255.0
    top = rng.integers(whole.shape[0] - SIZE)
    left = half * 256 + rng.integers(256 - SIZE)
    image = whole[top : top + SIZE, left : left + SIZE].copy()
    some = coins()[half::2]
    coin, mask = some[rng.integers(len(some))]
    y, x = (rng.integers(SIZE - extent) for extent in coin.shape)
    place = np.s_[y : y + coin.shape[0], x : x + coin.shape[1]]
    image[place] += strength * mask * (coin - image[place])
    return torch.from_numpy(image[None]).float()


def population(half: int, count: int, seed: int) -> list[tuple[torch.Tensor, int, str]]:
    """Draw scenes, every other one with a coin."""
    rng = np.random.default_rng(seed)
    strengths = [float(rng.uniform(0.2, 1.0)) * (n % 2) for n in range(count)]
    return [(scene(rng, half, one), n % 2, f"{half}-{n}") for n, one in enumerate(strengths)]


def network() -> nn.Module:
    """Return a convolutional network whose last grid is 24 x 24."""

    def block(inside: int, outside: int, stride: int) -> nn.Module:
        convolution = nn.Conv2d(inside, outside, 5, stride, 2, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())

    body = nn.Sequential(block(1, 16, 2), block(16, 32, 2), block(32, 32, 1))
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))


def main(picture: Path) -> None:
    """Train on one half of the photographs, and draw maps of the other."""
    net = ifa.nets.train(network, population(0, 600, 0), epochs=12, progress=True).eval()
    held_out = population(1, 200, 1)
    options = {"layer": "0.2", "targets": [1]}
    statistics = ifa.analyze(net, held_out, **options)
    right = sum(int(net(one[None]).argmax()) == which for one, which, _ in held_out)
    print(f"accuracy {right / len(held_out):.3f}")
    images = torch.stack([scene(np.random.default_rng(5), 1, one, "gravel") for one in SHOWN])
    target = torch.ones(len(SHOWN), dtype=torch.long)
    common = ifa.explain(net, images, target, layer="0.2", scale=statistics)
    single = torch.stack([one / one.max().clamp_min(1e-12) for one in common])
    logits = net(images).detach()
    titles = [
        f"coin at {one:.0%}\nlogit {float(logit[1] - logit[0]):+.1f}"
        if one
        else f"no coin\nlogit {float(logit[1] - logit[0]):+.1f}"
        for one, logit in zip(SHOWN, logits, strict=True)
    ]
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    rows = {"scaled\none by one": single, "common\nscale": common}
    ifa.plot.gallery(images, rows, titles=titles, axes=figure.subplots(3, len(SHOWN)))
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
