"""Maps as files: where their volumes lie, each sample's own, resumed, and nothing overwritten."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from torch.utils.data import Subset

import ifa
from ifa.plot import write_overlays
from ifa.store.exports import file_names
from ifa.store.nifti import write_nifti
from ifa.testing import models

nibabel = pytest.importorskip("nibabel")

QUIET = {"progress": False}
# left is right in LAS; anisotropic; one with its axes in another order
AFFINES = {
    "RAS": np.array([[2.0, 0, 0, -7], [0, 2, 0, 5], [0, 0, 3, 1], [0, 0, 0, 1]]),
    "LAS": np.array([[-2.0, 0, 0, 70], [0, 2, 0, 5], [0, 0, 3, 1], [0, 0, 0, 1]]),
    "SPL": np.array([[0, 0, -2.0, 9], [0, -2, 0, 4], [3, 0, 0, -6], [0, 0, 0, 1]]),
}
SHAPES = {"RAS": (6, 5, 4), "LAS": (6, 5, 4), "SPL": (4, 5, 6)}  # (x, y, z) of the file


class First(torch.nn.Module):
    """The map of its layer is the input itself: activations times a gradient of one."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            self.layer.weight[:] = torch.tensor([1.0, 0.5]).reshape(2, 1, 1, 1, 1)
            self.layer.bias.zero_()

    def forward(self, inputs):
        return self.layer(inputs).flatten(2).sum(2) * torch.tensor([1.0, 1.0])


def scans(folder, code, count=5):
    paths = []
    for index in range(count):
        values = np.random.default_rng(index).random(SHAPES[code], dtype=np.float32)
        values[1, 2, 3] = 50.0 + index  # the planted voxel
        path = folder / f"case {index}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(values, AFFINES[code]), path)
        paths.append(str(path))
    return paths


def made(data, **options):
    return ifa.maps(First().eval(), data, layer="layer", targets=[0], shard=2, **QUIET, **options)


@pytest.mark.parametrize("code", AFFINES)
def test_maps_lie_where_their_volumes_lie(tmp_path, code):
    paths = scans(tmp_path, code)
    data = ifa.data.volumes(paths, [0, 1, 0, 1, 0])
    files = write_nifti(made(data), data, tmp_path / "out", **QUIET)
    assert [file.name for file in files] == [f"case_{n}.target-0.nii.gz" for n in range(5)]
    for path, file in zip(paths, files, strict=True):
        volume, level = nibabel.load(path), nibabel.load(file)
        assert level.shape == volume.shape
        assert level.get_data_dtype() == np.float32
        assert np.array_equal(level.affine, volume.affine)
        assert np.array_equal(level.get_qform(), volume.affine)
        assert level.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(level.get_fdata(), volume.get_fdata())  # the map is the input
        place = np.unravel_index(level.get_fdata().argmax(), level.shape)
        assert place == (1, 2, 3)
        world = nibabel.affines.apply_affine(level.affine, place)
        assert np.array_equal(world, nibabel.affines.apply_affine(AFFINES[code], (1, 2, 3)))


def test_maps_read_back_are_the_maps(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "LAS"), [0] * 5)
    tree = made(data)
    for grid in ("file", "input"):
        files = write_nifti(tree, data, tmp_path / grid, grid=grid, **QUIET)
        read = ifa.data.volumes(list(map(str, files)))
        for index in range(5):
            assert np.array_equal(read[index][0][0], tree["layer"]["map"][0, index])
            assert np.array_equal(read.geometry(index).affine, data.geometry(index).affine)


def test_a_resampled_volume_is_brought_back_to_its_files_grid(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "SPL"), [0] * 5, spacing=1.0)
    (first, *_) = files = write_nifti(made(data), data, tmp_path / "out", **QUIET)
    assert len(files) == 5
    volume, level = nibabel.load(tmp_path / "case 0.nii.gz"), nibabel.load(first)
    assert level.shape == volume.shape
    assert np.array_equal(level.affine, volume.affine)
    assert np.unravel_index(level.get_fdata().argmax(), level.shape) == (1, 2, 3)
    (finer, *_) = write_nifti(made(data), data, tmp_path / "finer", grid="input", **QUIET)
    finer = nibabel.load(finer)
    assert finer.shape == (12, 10, 12)
    place = np.unravel_index(finer.get_fdata().argmax(), finer.shape)
    world = [nibabel.affines.apply_affine(one.affine, p) for one, p in ((finer, place),)]
    planted = nibabel.affines.apply_affine(AFFINES["SPL"], (1, 2, 3))
    assert np.abs(world[0] - planted).max() <= 1.0  # of half a voxel of 3 mm


def test_the_header_says_unit_and_limits(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "RAS"), [0] * 5)
    statistics = ifa.analyze(First().eval(), data, layer="layer", targets=[0], **QUIET)
    low, high = ifa.scale_from(statistics)
    for options, said in (
        ({}, "ifa map, unit logit; fullcam of layer"),
        ({"scale": statistics}, f"0..1 = {low:.4g}..{high:.4g} logit; fullcam of layer"),
        ({"scale": statistics, "how": "tanh", "widen": 1.5}, "0.05..0.95 ="),
    ):
        out = tmp_path / str(len(options))
        file, *_ = write_nifti(made(data, **options), data, out, **QUIET)
        header = nibabel.load(file).header
        assert said in header["descrip"].item().decode()
        assert float(header["cal_max"]) == pytest.approx({0: 0, 1: 1, 3: 0.95}[len(options)])


def test_layers_blocks_and_subsets_have_files(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "LAS"), [0] * 5)
    part = Subset(data, [4, 1])
    tree = ifa.maps(First().eval(), part, layer=["layer"], blocks=2, rectify=False, **QUIET)
    files = write_nifti(tree, part, tmp_path / "out", **QUIET)
    assert [file.name for file in files] == ["case_4.nii.gz", "case_1.nii.gz"]
    level, volume = nibabel.load(files[0]), nibabel.load(tmp_path / "case 4.nii.gz")
    assert level.shape == (*volume.shape, 2)
    assert np.array_equal(level.affine, volume.affine)
    share = level.get_fdata() / volume.get_fdata()[..., None]
    parts = share.reshape(-1, 2).mean(0)
    np.testing.assert_allclose(share, np.broadcast_to(parts, share.shape), rtol=1e-5)


def test_writing_goes_on_where_it_was_and_overwrites_nothing(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "LAS"), [0] * 5)
    made(data, store=tmp_path / "maps")
    write = partial(write_nifti, tmp_path / "maps", data)
    whole = write(tmp_path / "whole", **QUIET)

    class Killed(Exception):
        pass

    def killed(done, total):
        assert total == 5
        if done > 2:
            raise Killed

    with pytest.raises(Killed):
        write(tmp_path / "out", progress=killed)
    first = tmp_path / "out" / whole[0].name
    stamp = first.stat().st_mtime_ns
    (tmp_path / "out" / f".{first.name}.0.tmp").write_text("left behind")
    files = write(tmp_path / "out", **QUIET)
    assert first.stat().st_mtime_ns == stamp
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in whole]
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(
        one.name for one in (tmp_path / "whole").iterdir()
    )
    with pytest.raises(ValueError, match="begun with these very maps and options, got files of"):
        write(tmp_path / "out", grid="input", **QUIET)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / first.name).write_text("mine")
    with pytest.raises(ValueError, match="a folder with other files in it"):
        write(tmp_path / "mine", **QUIET)
    assert (tmp_path / "mine" / first.name).read_text() == "mine"


def test_what_is_not_of_one_another_is_refused(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "LAS"), [0] * 5)
    tree, out = made(data), tmp_path / "out"
    with pytest.raises(TypeError, match=r"expected what ifa\.maps returned"):
        write_nifti(ifa.analyze(First().eval(), data, layer="layer", **QUIET), data, out)
    with pytest.raises(ValueError, match="the 5 samples that the maps are of, got 2"):
        write_nifti(tree, Subset(data, [0, 1]), out)
    others = ifa.data.volumes(data.ids[::-1], [0] * 5)
    with pytest.raises(ValueError, match=r"sample 0 to be '.*case 0.nii.gz', .* got '.*case 4"):
        write_nifti(tree, others, out)
    others = Subset(data, [0, 1, 2, 4, 3])
    with pytest.raises(ValueError, match=r"sample 3 to be '.*case 3"):
        write_nifti(tree, others, out)
    with pytest.raises(TypeError, match="data that know where voxels lie, got list"):
        write_nifti(tree, [*data], out)
    with pytest.raises(ValueError, match=r"the inputs' size, \(4, 5, 6\), .* got \(2, 2, 2\)"):
        write_nifti(made(data, size=(2, 2, 2)), data, out, **QUIET)
    images = models.pooled_linear(2)
    flat = ifa.maps(images, [(models.inputs(images, 1)[0], 0)], layer="conv1", **QUIET)
    with pytest.raises(ValueError, match="expected maps of volumes"):
        write_nifti(flat, Subset(data, [0]), out)


def test_file_names_are_safe_and_unique():
    assert file_names(["/a/b/x.nii.gz", "/a/b/y.nii.gz"]) == ["x", "y"]
    assert file_names(["a/x.png", "b/x.png"]) == ["a-x", "b-x"]
    assert file_names(["x.png", "X.jpg", "y"]) == ["x-0", "X-1", "y"]
    assert file_names(["x", "x?", "x-0"]) == ["0-x", "1-x", "2-x-0"]
    assert file_names(["../..", "", "a b/..", "ü:*"]) == ["sample-0", "sample-1", "a_b", "ü"]
    long = file_names(["n" * 400, "n" * 401])
    assert len({*long}) == 2
    assert max(map(len, long)) < 200


def test_the_folder_says_which_file_is_whose(tmp_path):
    data = ifa.data.volumes(scans(tmp_path, "LAS"), [0] * 5)
    write_nifti(made(data), data, tmp_path / "out", **QUIET)
    said = json.loads((tmp_path / "out" / "made_by.json").read_text())
    assert said["what"] == "ifa: maps as NIfTI"
    assert said["files"][3] == ["case_3.target-0.nii.gz"]
    assert said["ids"][3] == data.ids[3]


# Pictures


def population(space, count=7):
    model = models.pooled_linear(space)
    inputs = models.inputs(model, count)
    return model, [(one, n % 3, f"k/{n}.png") for n, one in enumerate(inputs)]


def drawn(path):
    picture = Image.open(path)
    pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # something is drawn
    return picture


@pytest.mark.parametrize("space", [1, 2, 3])
def test_a_picture_of_each_sample(tmp_path, space):
    model, data = population(space, 3)
    tree = ifa.maps(model, data, layer="conv2", **QUIET)
    files = write_overlays(tree, data, tmp_path / "png", dpi=50, **QUIET)
    assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
    for file in files:
        drawn(file)
    (vector, *_) = write_overlays(
        tree, data, tmp_path / "svg", form="svg", names=["a", "b", "c", "d"], **QUIET
    )
    assert vector.suffix == ".svg"
    assert b"<svg" in vector.read_bytes()


def test_what_is_said_of_a_sample_and_its_scale(monkeypatch, tmp_path):
    import ifa.plot.sheets as sheets

    model, data = population(2, 4)
    data = [(one, int(model(one[None]).argmax()), name) for one, _, name in data]
    statistics = ifa.analyze(model, data, layer=["conv1", "conv2"], **QUIET)
    tree = ifa.maps(model, data, layer=["conv1", "conv2"], scale=statistics, **QUIET)
    figures = []
    card = sheets.card
    monkeypatch.setattr(sheets, "card", lambda *a: figures.append(card(*a)) or figures[-1])
    names = ["no $x$", "a_b", "c", "d"]
    write_overlays(tree, data, tmp_path / "o", names=names, dpi=50, **QUIET)
    assert len(figures) == 4
    for index, figure in enumerate(figures):
        said = "\n".join(text.get_text() for text in figure.findobj(Text))
        name, score = names[data[index][1]], float(tree["score"][index])
        assert f"predicted: {name} ({score:.3g} logit)" in said
        assert f"expected: {name}" in said
        assert data[index][2] in said
        for layer in ("conv1", "conv2"):
            low, high = ifa.scale_from(statistics[layer])
            assert f"0 = {low:.3g}, 1 = {high:.3g} logit" in said.replace("\n", " ")
        for column, layer in ((1, "conv1"), (2, "conv2")):
            below = figure.axes[3 + column]
            values = tree[layer]["map"][index].values
            grey = np.full((1, *values.shape), 128, dtype=np.uint8)  # in the colors of the bar
            drawn_array = np.asarray(below.images[-1].get_array())
            assert np.array_equal(drawn_array, ifa.plot.blend(grey, values))


def test_maps_without_a_scale_have_the_limits_of_their_population():
    from ifa.plot.sheets import _shades

    model, data = population(2, 9)
    for rectify in (True, False):
        tree = ifa.maps(model, data, layer="conv2", rectify=rectify, shard=2, **QUIET)
        found = _shades(tree, "conv2")
        assert found.high == pytest.approx(float(abs(tree["conv2"]["map"]).max()))
        assert found.signed is not rectify
        assert found.label == "map (logit)"


def test_targets_blocks_and_methods_are_drawn_side_by_side(tmp_path):
    model, data = population(2, 4)
    make = partial(ifa.maps, model, data, layer="conv2", targets=(0, 2), rectify=False, **QUIET)
    trees = {
        "fullcam": make(blocks=1),
        "gradcam": make(weight=ifa.weight.gradcam),
    }
    (one, *_) = write_overlays(trees, data, tmp_path / "cards", dpi=40, **QUIET)
    across, _ = drawn(one).size
    (alone, *_) = write_overlays(trees["gradcam"], data, tmp_path / "alone", dpi=40, **QUIET)
    assert across > 1.5 * drawn(alone).size[0]
    sheets = write_overlays(trees, data, tmp_path / "sheets", montage=3, dpi=40, **QUIET)
    assert [sheet.name for sheet in sheets] == ["montage-00.png", "montage-01.png"]
    for sheet in sheets:
        drawn(sheet)


def test_signals_of_several_channels_normalized_rgb_and_six_channels_are_drawn(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number, shape in enumerate([(6, 20), (3, 8, 8), (6, 8, 8), (2, 4, 5, 6)]):
        inputs = torch.randn(2, *shape, generator=generator) * 3
        convolution = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[len(shape) - 1]
        model = torch.nn.Sequential(convolution(shape[0], 3, 3), torch.nn.Flatten()).eval()
        data = [(one, 0) for one in inputs]
        tree = ifa.maps(model, data, layer="0", **QUIET)
        for file in write_overlays(tree, data, tmp_path / str(number), dpi=40, **QUIET):
            drawn(file)


def test_drawing_goes_on_where_it_was_with_the_same_bits(tmp_path):
    model, data = population(2)
    tree = ifa.maps(model, data, layer="conv2", shard=2, **QUIET)
    for form in ("png", "svg"):
        write = partial(write_overlays, tree, data, form=form, dpi=40)
        whole = write(tmp_path / f"whole-{form}", **QUIET)

        class Killed(Exception):
            pass

        def killed(done, total):
            if done > 2:
                raise Killed

        with pytest.raises(Killed):
            write(tmp_path / form, progress=killed)
        kept = len(list((tmp_path / form).glob(f"*.{form}")))
        assert 0 < kept < 7
        files = write(tmp_path / form, **QUIET)
        assert [file.read_bytes() for file in files] == [file.read_bytes() for file in whole]
    with pytest.raises(ValueError, match="begun with these very maps and options, got files of"):
        write_overlays(tree, data, tmp_path / "png", dpi=41, **QUIET)
    for back in (((0.0, 0.0), 1.0), (torch.ones(2), 1.0), torch.sigmoid):
        with pytest.raises(
            ValueError, match="begun with these very maps and options, got files of"
        ):
            write_overlays(tree, data, tmp_path / "png", dpi=40, denormalize=back, **QUIET)
    others = [(one + 1, label, name + "!") for one, label, name in data]
    with pytest.raises(ValueError, match=r"sample 0 to be 'k/0.png', of which the map is"):
        write_overlays(tree, others, tmp_path / "others", **QUIET)


def test_regression_is_written_in_numbers(tmp_path):
    inputs = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.Linear(48, 1)
    ).eval()
    data = [(one, 0.5 * n) for n, one in enumerate(inputs)]
    tree = ifa.maps(model, data, layer="0", task="regression", **QUIET)
    drawn(write_overlays(tree, data, tmp_path / "o", dpi=40, **QUIET)[0])


def test_the_page_on_maps_runs(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "how-to" / "maps.md"
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.S)), {})
    assert "True ifa map, 0..1 = " in capsys.readouterr().out
    assert len(list(Path("pictures").glob("*.png"))) == 12
    assert len(list(Path("sheets").glob("*.svg"))) == 2
