"""What a reader sees of a figure: every text whole, none over another, and pixels read back."""

import io
from itertools import combinations
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text


class Box(NamedTuple):
    """The rectangle of a text, turned about its middle, in pixels."""

    middle: np.ndarray
    size: np.ndarray
    angle: float
    text: str
    axes: Axes | None
    inside: bool  # whether it may lie in its axes

    def corners(self):
        """Return the corners (4, 2)."""
        half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.size / 2
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return self.middle + half @ np.array([[cosine, sine], [-sine, cosine]])


def assert_readable(figure, slack=1.0):
    """Fail unless every text of a figure lies inside it, over no other text and no other axes.

    Titles, labels and ticks lie outside of their own axes as well; what is written or explained
    inside of axes may lie there. `slack` is in pixels. Solves the figure's layout.
    """
    figure.draw_without_rendering()  # a bare figure's canvas draws nothing
    boxes = [*_boxes(figure)]
    edge = figure.bbox
    wrong = [
        f"outside of the figure: {box.text!r}"
        for box in boxes
        if (box.corners() < (edge.x0 - slack, edge.y0 - slack)).any()
        or (box.corners() > (edge.x1 + slack, edge.y1 + slack)).any()
    ]
    shapes = [(box, box.corners()) for box in boxes]
    wrong += [
        f"one over the other: {one.text!r}, {other.text!r}"
        for (one, corners), (other, theirs) in combinations(shapes, 2)
        if _near(corners, theirs) and _overlap(corners, theirs, slack)
    ]
    for axes in figure.axes:
        if axes.get_visible():
            x0, y0, x1, y1 = axes.get_window_extent().extents
            frame = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            wrong += [
                f"over axes {axes.get_title() or figure.axes.index(axes)!r}: {box.text!r}"
                for box, corners in shapes
                if _near(corners, frame)
                and not _its_own(box, axes)
                and _overlap(corners, frame, slack)
            ]
    assert not wrong, "\n".join([f"{figure.get_size_inches()} inches", *wrong])


def pixels(figure, dpi=None):
    """Render a figure: (row, column, 3) of eight bits."""
    from PIL import Image

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi or figure.dpi)
    return np.asarray(Image.open(content).convert("RGB"))


def colour_at(picture, axes, x, y):
    """Return the colour of a rendered figure at a point of the axes, in their own units."""
    figure = axes.figure.figure if hasattr(axes.figure, "figure") else axes.figure
    across, up = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
    rows, columns = picture.shape[:2]
    return picture[int((1 - up) * rows), int(across * columns)].astype(int)


def _boxes(figure):
    for text, axes, inside in _texts(figure):
        if not text.get_visible() or not text.get_text().strip():
            continue
        middle = text.get_window_extent().get_points().mean(0)
        angle = text.get_rotation()
        text.set_rotation(0)
        size = text.get_window_extent().size
        text.set_rotation(angle)
        yield Box(middle, size, np.deg2rad(angle), text.get_text(), axes, inside)


def _texts(figure):
    """List all texts, the axes that they belong to, and whether they may lie in these."""
    for part in (figure, *_subfigures(figure)):
        of_part = [*part.texts, *(text for one in part.legends for text in one.findobj(Text))]
        yield from ((text, None, True) for text in of_part)
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        legend = axes.get_legend()
        within = [*axes.texts, *(text for table in axes.tables for text in table.findobj(Text))]
        within += legend.findobj(Text) if legend else []
        yield from ((text, axes, True) for text in within)
        beside = [axes.title, axes._left_title, axes._right_title]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            if axis.get_visible():
                ticks = axis._update_ticks()  # those within the limits
                beside += [axis.label, axis.offsetText, *(tick.label1 for tick in ticks)]
                beside += [tick.label2 for tick in ticks]
        yield from ((text, axes, False) for text in beside)


def _subfigures(figure):
    for part in figure.subfigs:
        yield part
        yield from _subfigures(part)


def _its_own(box, axes):
    """Tell whether axes are those in which a text may lie, or a twin of them."""
    if box.axes is None or not box.inside:
        return False
    return np.allclose(box.axes.get_position().bounds, axes.get_position().bounds)


def _near(one, other):
    """Tell whether the upright rectangles that hold two shapes overlap, which is quick."""
    (x0, y0), (x1, y1) = one.min(0), one.max(0)
    (u0, v0), (u1, v1) = other.min(0), other.max(0)
    return x0 < u1 and u0 < x1 and y0 < v1 and v0 < y1


def _overlap(one, other, slack):
    """Tell whether two convex shapes overlap by more than the slack along every direction."""
    for shape in (one, other):
        for edge in np.roll(shape, -1, axis=0) - shape:
            length = np.hypot(*edge)
            if length == 0:
                return False
            normal = np.array([-edge[1], edge[0]]) / length
            first, second = one @ normal, other @ normal
            if min(first.max(), second.max()) - max(first.min(), second.min()) <= slack:
                return False
    return True
