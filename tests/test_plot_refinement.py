"""The picture of the refinement pipeline: what is drawn is what was computed."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pictures import assert_readable

import ifa


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def refined(space):
    image = ifa.nets.simulated(space)[1][0]
    low = torch.rand([4, 5, 3][:space])
    return image, ifa.refine.pipeline(image, low, image[0])


@pytest.mark.parametrize("space", [1, 2, 3])
def test_every_step_is_drawn_and_can_be_read(space):
    image, found = refined(space)
    axes = ifa.plot.refinement(found, image=image)
    assert axes.shape == (3, 4)
    assert_readable(axes[0, 0].figure)
    titles = [one.get_title().splitlines()[0] for one in axes.ravel()]
    assert len(set(titles)) == 12
    assert f"{int(found.seeds)} of {len(found.focal_points)}" in axes[1, 3].get_title()


def test_the_arrays_are_those_of_the_record():
    _, found = refined(2)
    axes = ifa.plot.refinement(found)
    assert not axes[0, 0].axison
    drawn = [axes[0, 1], axes[0, 2], axes[0, 3], axes[1, 0], axes[1, 1], axes[2, 0], axes[2, 2]]
    names = ("low", "low_resized", "roi", "blurred", "edges", "segmented", "merged")
    for one, name in zip(drawn, names, strict=True):
        assert np.array_equal(one.images[0].get_array(), getattr(found, name)), name
    points = axes[1, 3].collections[0].get_offsets() - 0.5
    assert np.array_equal(points[:, ::-1], found.focal_points)


def test_the_histogram_is_of_the_region_and_has_both_bounds():
    _, found = refined(2)
    axes = ifa.plot.refinement(found)[1, 2]
    assert sum(bar.get_height() for bar in axes.containers[0]) == int(found.roi.sum())
    lines = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(lines, found.bounds)


def test_of_a_volume_one_slice_is_drawn_everywhere():
    image, found = refined(3)
    axes = ifa.plot.refinement(found, image=image)
    depth = int(found.merged.amax((1, 2)).argmax())
    assert np.array_equal(axes[2, 2].images[0].get_array(), found.merged[depth])
    assert np.array_equal(axes[0, 0].images[0].get_array(), image[0, depth].double())


def test_what_is_refused():
    _, found = refined(2)
    with pytest.raises(TypeError, match=r"what ifa\.refine\.pipeline returned"):
        ifa.plot.refinement(found.merged)
    with pytest.raises(ValueError, match="expected 12 axes"):
        ifa.plot.refinement(found, axes=plt.subplots(2, 2)[1])
