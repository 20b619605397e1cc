"""Volumes: what is drawn lies where letters and millimetres say, and is as wide as it is."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from pictures import pixels

import ifa
from ifa.plot.volumes import PLANES

SHAPE = (9, 12, 15)  # of x y z in RAS
RAS = np.array([[2.0, 0, 0, -11], [0, 3, 0, -14], [0, 0, 4, -31], [0, 0, 0, 1]])
LETTERS = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def phantom(orientation):
    """Return a volume (z, y, x) with a bright corner at the right, front and top; its affine."""
    volume = np.zeros(SHAPE)
    volume[7, 10, 13] = 1.0
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(orientation)))
    affine = RAS @ inv_ornt_aff(turn, SHAPE)
    for axis, (_, flip) in enumerate(turn):
        volume = np.flip(volume, axis) if flip < 0 else volume
    volume = np.transpose(volume, np.argsort(turn[:, 0]))
    bright = np.argwhere(volume)[0]
    np.testing.assert_allclose((affine @ [*bright, 1])[:3], (RAS @ [7, 10, 13, 1])[:3])
    return volume.T, affine


def bright_spot(axes, picture):
    """Return where the bright spot of axes is drawn, in parts of them and in their units."""
    figure = axes.figure
    rows, columns = picture.shape[:2]
    box = axes.get_position()
    top, left = round((1 - box.y1) * rows), round(box.x0 * columns)
    inside = picture[top : round((1 - box.y0) * rows), left : round(box.x1 * columns)]
    # the yellow of the map, not the white of letters
    y, x = np.nonzero((inside[..., 0] > 200) & (inside[..., 2] < 140))
    place = (left + x.mean() + 0.5) / columns, 1 - (top + y.mean() + 0.5) / rows
    shown = figure.transFigure.transform(place)
    return axes.transAxes.inverted().transform(shown), axes.transData.inverted().transform(shown)


@pytest.mark.parametrize(
    ("orientation", "radiological"),
    [("RAS", False), ("LPS", False), ("PIR", False), ("SLA", False), ("LAS", True)],
)
def test_a_corner_lies_where_the_letters_and_the_millimetres_say(orientation, radiological):
    volume, affine = phantom(orientation)
    drawn = ifa.plot.planes(volume, volume, geometry=affine, radiological=radiological, width=9)
    picture = pixels(drawn[0].figure, 60)
    truth = (RAS @ [7, 10, 13, 1])[:3]
    for axes, (across, up) in zip(drawn, ((0, 1), (0, 2), (1, 2)), strict=True):
        part, mm = bright_spot(axes, picture)
        sides = {text.get_text(): np.array(text.get_position()) for text in axes.texts}
        assert len(sides) == 4
        for letter, place in sides.items():
            axis, way = LETTERS[letter]
            screen = 0 if axis == across else 1
            assert axis in (across, up)
            assert (place[screen] > 0.5) == ((part[screen] > 0.5) == (way > 0))
        np.testing.assert_allclose(mm, truth[[across, up]], atol=0.6)
        for axis, where in ((axes.xaxis, mm[0]), (axes.yaxis, mm[1])):
            ticks = axis.get_majorticklocs()
            said = [float(text.get_text().replace("−", "-")) for text in axis.get_ticklabels()]
            np.testing.assert_allclose(said, ticks)
            assert min(ticks) - 25 < where < max(ticks) + 25
        assert axes.get_xlim()[0] < axes.get_xlim()[1] or (radiological and across == 0)
        fixed = ({0, 1, 2} - {across, up}).pop()
        assert f"{truth[fixed]:.1f} mm".replace("-", "−") in axes.get_title()
    assert drawn[0].xaxis_inverted() == drawn[1].xaxis_inverted() == radiological


def test_voxels_are_as_high_and_wide_as_they_are():
    volume, affine = phantom("RAS")
    for axes, (across, up) in zip(
        ifa.plot.planes(volume, volume, geometry=affine), ((0, 1), (0, 2), (1, 2)), strict=True
    ):
        axes.figure.draw_without_rendering()
        box = axes.get_window_extent()
        extents = np.array(SHAPE) * voxel_sizes(affine)
        np.testing.assert_allclose(box.height / box.width, extents[up] / extents[across], rtol=0.02)


def test_an_oblique_volume_keeps_its_proportions_and_its_millimetres():
    turn = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    volume, affine = phantom("RAS")
    oblique = rotation @ affine
    axial, *_ = ifa.plot.planes(volume, volume, geometry=oblique)
    axial.figure.draw_without_rendering()
    box = axial.get_window_extent()
    np.testing.assert_allclose(box.height / box.width, 36 / 18, rtol=0.02)
    _, mm = bright_spot(axial, pixels(axial.figure, 60))
    np.testing.assert_allclose(mm, (oblique @ [7, 10, 13, 1])[:2], atol=0.6)


def test_the_point_is_the_maps_largest_or_what_is_given():
    volume, affine = phantom("LPS")
    place = tuple(np.argwhere(volume)[0].tolist())
    for given in ({}, {"at": place}, {"mm": tuple((RAS @ [7.2, 10, 13, 1])[:3])}):
        drawn = ifa.plot.planes(volume, volume, geometry=affine, **given)
        said = [axes.get_title().split("\n")[1] for axes in drawn]
        assert said == [f"{n} = {p} of 0 … {s - 1}"
                        for n, p, s in zip("zyx", place, volume.shape, strict=True)]  # fmt: skip
    negative = -2 * volume + np.roll(volume, 3)
    drawn = ifa.plot.planes(volume, negative, signed=True, geometry=affine)
    assert drawn[0].get_title().split("\n")[1].startswith(f"z = {place[0]} ")


def test_without_a_geometry_voxels_are_counted():
    volume = torch.zeros(2, 4, 6, 8)
    volume[1, 1, 2, 5] = 1
    drawn = ifa.plot.planes(volume, volume[1], channels=1)
    assert [axes.get_title() for axes in drawn] == [
        "slice of z\nz = 1 of 0 … 3",
        "slice of y\ny = 2 of 0 … 5",
        "slice of x\nx = 5 of 0 … 7",
    ]
    assert not any(axes.texts for axes in drawn)
    assert drawn[0].get_xlabel() == "x (voxel)"
    _, place = bright_spot(drawn[0], pixels(drawn[0].figure, 60))
    np.testing.assert_allclose(place, [5, 2], atol=0.1)
    assert drawn[0].yaxis_inverted()


def test_a_coarse_map_covers_the_same_field_of_view():
    volume, affine = phantom("RAS")
    values = np.zeros((5, 4, 3))
    values[4, 3, 2] = 1
    axial, *_ = ifa.plot.planes(volume, values, geometry=affine)
    assert axial.get_title().split("\n")[1] == "z = 13 of 0 … 14"
    _, mm = bright_spot(axial, pixels(axial.figure, 60))
    np.testing.assert_allclose(mm, (RAS @ [7, 10, 13, 1])[:2], atol=0.6)


@pytest.mark.parametrize(("orientation", "axis"), [("RAS", "z"), ("LPI", "z"), ("SRA", "x")])
def test_slices_rise_in_the_body_and_are_named_by_the_inputs_index(orientation, axis):
    volume, affine = phantom(orientation)
    axes = ifa.plot.slices(volume, volume, geometry=affine, count=5)
    said = [one.get_title().split("\n") for one in axes]
    mm = [float(place.split(" mm")[0].replace("−", "-")) for _, place in said]
    assert mm == sorted(mm)
    for (index, _), place in zip(said, mm, strict=True):
        name, number = index.split(" of ")[0].split(" = ")
        assert name == axis
        position = np.array([0.0, 0, 0, 1])
        position["xyz".index(name)] = int(number)
        np.testing.assert_allclose((affine @ position)[2], place, atol=0.05)
    (one,) = ifa.plot.slices(volume, volume, geometry=affine, plane="sagittal", indices=[3])
    assert "= 3 of" in one.get_title()
    assert {text.get_text() for text in one.texts} == {"P", "A", "I", "S"}


def test_slices_have_contours_and_one_bar():
    volume, affine = phantom("RAS")
    axes = ifa.plot.slices(volume, volume, geometry=affine, indices=[13, 0], how="contours")
    assert [len(one.collections) for one in axes] == [1, 0]
    path = np.concatenate([p.vertices for p in axes[0].collections[0].get_paths() if len(p)])
    assert np.abs(path.mean(0) - (RAS @ [7, 10, 13, 1])[:2]).max() < 1.5
    assert len(axes[0].figure.axes) == 3


def test_the_geometry_of_data_is_taken(tmp_path):
    import nibabel

    volume, affine = phantom("LPS")
    nibabel.save(nibabel.Nifti1Image(volume.T.astype(np.float32), affine), tmp_path / "a.nii.gz")
    data = ifa.data.volumes([str(tmp_path / "a.nii.gz")], labels=[0])
    image = data[0][0]
    axial, *_ = ifa.plot.planes(image, image[0], geometry=data.geometry(0))
    _, mm = bright_spot(axial, pixels(axial.figure, 60))
    np.testing.assert_allclose(mm, (RAS @ [7, 10, 13, 1])[:2], atol=0.6)
    with pytest.raises(ValueError, match=r"expected an input of the geometry's shape"):
        ifa.plot.planes(image[:, 1:], image[0], geometry=data.geometry(0))


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR"])
def test_a_card_shows_a_volume_as_it_lies_in_the_body(orientation):
    from ifa.plot.portraits import Panel, drawn_of
    from ifa.plot.shades import Shades

    volume, affine = phantom(orientation)
    spacing = tuple(voxel_sizes(affine)[::-1].tolist())
    geometry = ifa.data.Geometry(affine, volume.shape, spacing, orientation, affine, volume.shape)
    panels = [Panel("map", Shades())]
    drawn = drawn_of("here", volume[None], [volume], panels, [], geometry=geometry)
    assert np.argwhere(drawn.maps[0]).tolist() == [[12 - 1 - 10, 7]]  # front on top
    assert drawn.aspect == 3 / 2
    axis = "xyz"[[*np.abs(affine[2, :3])].index(4)]
    index = np.argwhere(volume)[0]["zyx".index(axis)]
    assert drawn.notes == [f"{axis} = {index} of 0 … 14, 21.0 mm (S); A on top, R on the right"]
    other = drawn_of("here", volume[None, 1:], [volume], panels, [], geometry=geometry)
    assert other.notes[0] == "in voxels: of another size than its file"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": np.zeros((3, 4))}, "expected a map (z, y, x)"),
        ({"at": (99, 0, 0)}, "expected a point within"),
        ({"at": (0, 0, 0), "mm": (0, 0, 0)}, "expected at= or mm=, got both"),
        ({"mm": (0, 0, 0), "geometry": None}, "expected geometry= with mm="),
        ({"geometry": np.zeros((4, 4))}, "expected geometry to be"),
        ({"axes": plt.subplots(1, 2)[1]}, "expected 3 axes, got 2"),
        ({"how": "blobs"}, "expected how to be one of"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    volume, affine = phantom("RAS")
    given = {"image": volume, "values": volume, "geometry": affine}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ifa.plot.planes(**given | change)
    assert f"ifa.plot.planes: {said}" in str(error.value)


def test_slices_that_are_not_there_are_refused():
    volume, _ = phantom("RAS")
    with pytest.raises(ValueError, match=r"ifa\.plot\.slices: expected indices below 15"):
        ifa.plot.slices(volume, volume, indices=[15])
    with pytest.raises(ValueError, match=r"ifa\.plot\.slices: expected plane to be one of"):
        ifa.plot.slices(volume, volume, plane="z")
    assert PLANES == ("axial", "coronal", "sagittal")
