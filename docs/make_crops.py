"""Make 150 pictures in 5 classes from those of scikit-image: python docs/make_crops.py photos."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

CLASSES = ("brick", "coins", "grass", "gravel", "page")
EACH, SIZE = 30, 32


def main(folder: Path) -> None:
    """Write crops at random places, one folder for each class."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        whole = getattr(data, name)()
        home = folder / name
        home.mkdir(parents=True)
        for index in range(EACH):
            y, x = (rng.integers(extent - SIZE) for extent in whole.shape)
            Image.fromarray(whole[y : y + SIZE, x : x + SIZE]).save(home / f"{index:02d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
