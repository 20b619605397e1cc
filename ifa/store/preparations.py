"""From a picture to a network's input: the way a folder or a library says it was trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifa.store.libraries import folder_of, library, timm_settings
from ifa.store.sources import imported

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures, by channels
_DEEP = ("I", "F")  # how modes of more than eight bits begin: Pillow would clip them


def preparation(where: str, how: str, factory: str, config: dict[str, Any]) -> Callable[[Any], Any]:
    """Return what prepares a picture for a network that `factory` and `config` name."""
    kind, _, place = how.partition(":")
    if kind not in ("hf", "timm"):
        function = _function(how, where)
        if not callable(function):
            raise TypeError(
                f"{where}: expected {how!r} to prepare a picture, got {type(function).__name__}. "
                "Write a function of a PIL image that returns a tensor."
            )
        return Own(how)
    if not place:
        same, _, place = factory.partition(":")
        if same != kind:
            raise ValueError(
                f"{where}: expected a network '{kind}:…' to take the preparation {how!r} from, got "
                f"{factory!r}. Say whose: '{kind}:…', or give a function: module:name."
            )
    else:
        config = {}
    if kind == "timm":
        return _of_timm(where, place, config)
    folder = folder_of(where, place)
    if not (folder / "preprocessor_config.json").is_file():
        raise FileNotFoundError(
            f"{where}: expected {folder} to hold a preprocessor_config.json, got none. Save the "
            "network's image processor there, or give a function: module:name."
        )
    return Processor(str(folder))


def _converted(picture: Any, channels: int) -> Any:
    """Return a picture of so many channels, of eight bits."""
    if not hasattr(picture, "convert"):
        raise TypeError(
            "ifa.ModelRef.preparation: expected a picture of PIL, got "
            f"{type(picture).__name__}. Arrays and volumes are prepared by a function: module:name."
        )
    if picture.mode.startswith(_DEEP):
        raise ValueError(
            "ifa.ModelRef.preparation: expected pictures of eight bits, got mode "
            f"{picture.mode!r}, whose values would be clipped. Give a function: module:name."
        )
    return picture.convert(_MODES[channels])


@dataclass(frozen=True)
class Own:
    """A function by reference, which other processes import by themselves."""

    reference: str

    @property
    def normalization(self) -> tuple[Any, Any] | None:
        """Return mean and deviation of each channel, where the function says them."""
        return getattr(_function(self.reference, "ifa.ModelRef.preparation"), "normalization", None)

    def __call__(self, picture: Any) -> Any:
        """Return what the function does."""
        return _function(self.reference, "ifa.ModelRef.preparation")(picture)


@lru_cache(maxsize=4)
def _function(reference: str, where: str) -> Any:
    return imported(reference, where)


@dataclass(frozen=True)
class Processor:
    """The image processor in a folder of transformers, run by Pillow wherever it is."""

    folder: str

    @property
    def normalization(self) -> tuple[Any, Any] | None:
        """Return mean and deviation of each channel."""
        processor = _processor(self.folder)
        if not getattr(processor, "do_normalize", False):
            return None
        return processor.image_mean, processor.image_std

    def __call__(self, picture: Any) -> Any:
        """Return pixels (channel, row, column), or all that the processor gives, as a batch."""
        processor = _processor(self.folder)
        mean = getattr(processor, "image_mean", None)
        channels = len(mean) if isinstance(mean, list | tuple) else 3
        given = processor(_converted(picture, channels), return_tensors="pt")
        return given["pixel_values"][0] if list(given) == ["pixel_values"] else dict(given)


@lru_cache(maxsize=4)
def _processor(folder: str) -> Any:
    # Pillow's processors: torchvision's give other bits, and are not everywhere
    return library("ifa.ModelRef.preparation", "transformers").AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, backend="pil"
    )


@dataclass(frozen=True)
class Photograph:
    """timm's transform for evaluation: resize, crop the middle, normalize."""

    size: tuple[int, int]  # rows, columns
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    crop: float  # part of each edge that is kept
    squash: bool  # rows and columns are resized each by itself
    interpolation: str

    @property
    def normalization(self) -> tuple[Any, Any]:
        """Return mean and deviation of each channel."""
        return self.mean, self.deviation

    def __call__(self, picture: Any) -> Tensor:
        """Return pixels (channel, row, column)."""
        from PIL import Image

        picture = _converted(picture, len(self.mean))
        rows, columns = self._resized(picture.height, picture.width)
        resample = Image.Resampling[self.interpolation.upper()]
        picture = picture.resize((columns, rows), resample)
        top, left = map(_before, (rows, columns), self.size)
        picture = picture.crop((left, top, left + self.size[1], top + self.size[0]))
        pixels = torch.from_numpy(np.array(picture)).float().div(255)
        pixels = pixels.reshape(*self.size, len(self.mean)).permute(2, 0, 1)
        mean, deviation = (
            torch.tensor(each)[:, None, None] for each in (self.mean, self.deviation)
        )
        return (pixels - mean) / deviation

    def _resized(self, rows: int, columns: int) -> tuple[int, int]:
        height, width = (math.floor(size / self.crop) for size in self.size)
        if self.squash:
            return height, width
        if height == width:  # the shorter edge, as torchvision rounds the longer one
            short = min(rows, columns)
            return int(height * rows / short), int(width * columns / short)
        ratio = min(rows / height, columns / width)
        return round(rows / ratio), round(columns / ratio)


def _before(edge: int, kept: int) -> int:
    """Return where the middle of an edge begins: before it, for one that is padded."""
    return round((edge - kept) / 2) if edge >= kept else -((kept - edge) // 2)


def _of_timm(where: str, name: str, config: dict[str, Any]) -> Photograph:
    """Read the settings that timm's own ``resolve_data_config`` would."""
    settings = timm_settings(where, name)
    size = config.get("img_size") or settings.input_size[1:]
    channels = config.get("in_chans", settings.input_size[0])
    if channels != len(settings.mean):
        raise ValueError(
            f"{where}: expected timm to know mean and deviation of {channels} channels, got those "
            f"of {len(settings.mean)} for {name!r}. Give a function: module:name."
        )
    if settings.crop_mode not in ("center", "squash"):
        raise ValueError(
            f"{where}: expected a network of timm whose pictures are cropped 'center' or 'squash', "
            f"got {settings.crop_mode!r} for {name!r}. Give a function: module:name."
        )
    return Photograph(
        size=(size, size) if isinstance(size, int) else tuple(size),
        mean=tuple(settings.mean),
        deviation=tuple(settings.std),
        crop=settings.crop_pct,
        squash=settings.crop_mode == "squash",
        interpolation=settings.interpolation,
    )
