"""Pictures of pixels in figures: whole in vector graphics, true to their colors on screens."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.image import AxesImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Raster(AxesImage):
    """Pixels: each stays a square where they are enlarged, and a mean where they are shrunk.

    Vector graphics hold all of them, whatever the resolution of the figure.
    """

    def can_composite(self) -> bool:
        """Tell that vector graphics must not merge it with others, at the figure's resolution."""
        return False

    def _check_unsampled_image(self) -> bool:
        return True

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
        """Return the pixels of a renderer."""
        box = self.get_window_extent(renderer)
        rows, columns = self.get_size()
        whole = magnification * box.height >= rows and magnification * box.width >= columns
        self.set_interpolation("nearest" if whole else "auto")
        return super().make_image(renderer, magnification, unsampled)


def draw_raster(axes: "Axes", picture: np.ndarray, extent: Any, aspect: Any = "equal") -> None:
    """Draw RGB of eight bits, (row, column, 3); the first row is where the extent's last end is."""
    axes.set_aspect(aspect)
    raster = Raster(axes)
    raster.set_data(picture)
    raster.set_clip_path(axes.patch)
    raster.set_extent(extent)
    axes.add_image(raster)
