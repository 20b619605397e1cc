"""Maps as files: where their volumes lie, each sample's own, resumed, and nothing overwritten."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

import ifa
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
