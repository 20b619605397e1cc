"""`ifa explain`: files in, overlays and labelled maps out, in one, two and three dimensions."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.text import Text
from PIL import Image
from sklearn.datasets import load_sample_images

import ifa
from ifa.cli import main
from ifa.data import read_inputs
from ifa.store import save_maps
from ifa.testing import models

NETWORKS = """
import torch
from torch import nn

def network(convolution, pool, channels):
    torch.manual_seed(0)
    body = convolution(channels, 4, 3, stride=2), nn.ReLU()
    return nn.Sequential(*body, pool(1), nn.Flatten(), nn.Linear(4, 3))

def signal(): return network(nn.Conv1d, nn.AdaptiveAvgPool1d, 1)
def picture(): return network(nn.Conv2d, nn.AdaptiveAvgPool2d, 3)
def volume(): return network(nn.Conv3d, nn.AdaptiveAvgPool3d, 1)
def bands(): return network(nn.Conv2d, nn.AdaptiveAvgPool2d, 4)
def normal(picture):
    import numpy as np
    return torch.tensor(np.array(picture)).permute(2, 0, 1) / 255 * 4 - 2
normal.normalization = 0.5, 0.25
def halved(picture): return picture.reduce(2)
def named(picture): return {"inputs": picture}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "explained_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("explained_networks", None)


@pytest.fixture
def photographs(home):
    paths = []
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        Image.fromarray(pixels[::8, ::8]).save(home / f"{name}.png")
        paths.append(f"{name}.png")
    return paths


def explain(*arguments):
    return main(["explain", *map(str, arguments)])


def test_photographs(home, photographs, capsys):
    assert explain("explained_networks:picture", *photographs, "--out", "e", "--target", 1) == 0
    assert "e/overlays" in capsys.readouterr().out
    names = sorted(path.name for path in (home / "e/overlays").iterdir())
    assert names == ["china.png", "flower.png"]
    stored = xr.open_zarr(home / "e/maps.zarr")
    assert stored["map"].dims == ("sample", "y", "x")
    assert stored["id"].values.tolist() == photographs
    inputs = read_inputs([Path(name) for name in photographs])
    net = ifa.ModelRef("explained_networks:picture").load()
    expected = ifa.explain(net, inputs, 1, rectify=False)
    np.testing.assert_allclose(stored["map"].values, expected, rtol=1e-5, atol=1e-7)


def test_a_signal(home):
    np.save(home / "s.npy", np.sin(np.linspace(0, 9, 40))[None])
    assert explain("explained_networks:signal", "s.npy", "--out", "e") == 0
    assert xr.open_zarr(home / "e/maps.zarr")["map"].sizes == {"sample": 1, "t": 40}


def test_a_volume_keeps_its_axes_and_is_brought_to_ras(home):
    nibabel = pytest.importorskip("nibabel")
    source = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"
    shutil.copy(source, home / "brain.nii")
    assert explain("explained_networks:volume", "brain.nii", "--out", "e") == 0
    x, y, z = nibabel.load(source).shape
    assert xr.open_zarr(home / "e/maps.zarr")["map"].sizes == {"sample": 1, "z": z, "y": y, "x": x}
    assert nibabel.aff2axcodes(nibabel.load(source).affine) == tuple("LAS")
    voxel = np.asarray(nibabel.load(source).dataobj)[x - 1 - 3, 5, 7]
    assert read_inputs([home / "brain.nii"])[0, 0, 7, 5, 3] == voxel


def test_what_the_network_sees_can_be_prepared(home, photographs):
    arguments = "--out", "e", "--prepare", "explained_networks:halved"
    assert explain("explained_networks:picture", *photographs, *arguments) == 0
    assert xr.open_zarr(home / "e/maps.zarr")["map"].shape[1:] == (27, 40)


def test_pictures_of_several_sizes_are_prepared(home, photographs):
    (home / "prepares.py").write_text("def small(picture): return picture.resize((20, 12))\n")
    Image.new("RGB", (30, 50)).save("other.png")
    arguments = (*photographs, "other.png", "--out", "e", "--prepare", "prepares.py:small")
    assert explain("explained_networks:picture", *arguments) == 0
    assert xr.open_zarr(home / "e/maps.zarr")["map"].shape == (3, 12, 20)
    del sys.modules["prepares"]


@pytest.fixture
def cards(monkeypatch):
    """Keep what is drawn of each sample."""
    import ifa.plot.portraits as portraits

    drawn, card = [], portraits.card
    monkeypatch.setattr(
        portraits, "card", lambda one, panels: drawn.extend(one) or card(one, panels)
    )
    return drawn


def test_which_channels_are_drawn_is_said(home, cards, capsys):
    scene = np.random.default_rng(0).random((4, 9, 7), np.float32)
    np.save("scene.npy", scene)
    command = "explained_networks:bands", "scene.npy", "--out", "e"
    assert explain(*command, "--channels", "2,1,0", "--form", "pdf", "--dpi", 50) == 0
    assert Path("e/overlays/scene.pdf").read_bytes().startswith(b"%PDF")
    (drawn,) = cards
    np.testing.assert_allclose(drawn.image, np.moveaxis(scene[[2, 1, 0]], 0, -1), rtol=1e-6)
    assert drawn.notes == ["channels 2, 1, 0 of 4"]
    for options, said in (
        (("--channels", "2,x"), "expected --channels to be numbers with commas between, got '2,x'"),
        (("--mean", "1"), "expected --mean and --std, or neither, got one of them"),
        (("--form", "gif"), "expected --form to be one of 'png', 'svg', 'pdf', got 'gif'"),
    ):
        assert explain(*command[:2], "--out", "other", *options) == 1
        assert f"ifa explain: {said}" in capsys.readouterr().err
        assert not Path("other").exists()


def test_what_was_normalized_is_drawn_as_it_was(home, photographs, cards):
    pixels = np.asarray(Image.open(photographs[0])) / 255
    command = "explained_networks:picture", photographs[0]
    prepare = "--prepare", "explained_networks:normal"
    assert explain(*command, *prepare, "--out", "known") == 0
    given = "--mean", ".5,.5,.5", "--std", ".25,.25,.25"
    assert explain(*command, *prepare, *given, "--out", "given") == 0
    assert explain(*command, *prepare, "--mean", "0", "--std", "2", "--out", "wrong") == 0
    for drawn in cards[:2]:
        np.testing.assert_allclose(drawn.image, pixels, atol=1e-6)
    wrong = 8 * pixels - 4  # is not between 0 and 1
    stretched = (wrong - wrong.min()) / (wrong.max() - wrong.min())
    np.testing.assert_allclose(cards[2].image, stretched, atol=1e-6)


def test_what_is_prepared_is_one_tensor(home, photographs, capsys):
    arguments = "--out", "e", "--prepare", "explained_networks:named"
    assert explain("explained_networks:picture", *photographs, *arguments) == 1
    said = "prepare= to return one tensor, got dict for china.png"
    assert said in capsys.readouterr().err


def test_overlays_can_be_drawn_on_the_scale_of_a_run(home, photographs):
    net = ifa.ModelRef("explained_networks:picture").load()
    images = read_inputs([Path(name) for name in photographs])
    data = [(image, 0) for image in images]
    ifa.analyze(net, data, weight=ifa.weight.gradcam, store="run", progress=False)
    assert explain("explained_networks:picture", *photographs, "--out", "e", "--run", "run") == 0
    stored = xr.open_zarr(home / "e/maps.zarr")
    low, high = ifa.scale_from(ifa.open("run"))
    assert json.loads(stored.attrs["made_by"])["limits"] == [float(low), float(high)]


def test_a_grey_picture_has_the_channels_of_the_run(home, photographs, capsys):
    """A folder on the command line is read as RGB; the picture of it had one channel here."""
    net = ifa.ModelRef("explained_networks:picture").load()
    images = read_inputs([Path(name) for name in photographs])
    ifa.analyze(net, [(image, 0) for image in images], store="run", progress=False)
    Image.open("china.png").convert("L").save("grey.png")
    network = "explained_networks:picture"
    assert explain(network, "grey.png", "--out", "e") == 1
    assert explain(network, "grey.png", "--out", "f", "--run", "run") == 0
    assert explain(network, "grey.png", "--out", "g", "--prepare", "explained_networks:halved") == 0
    assert read_inputs(["grey.png"]).shape == (1, 1, 54, 80)
    assert read_inputs(["grey.png"], mode="RGB").shape == (1, 3, 54, 80)


def test_methods_layers_and_runs_are_side_by_side(home, photographs, monkeypatch):
    import ifa.plot.portraits as portraits

    drawn = []
    card = portraits.card
    monkeypatch.setattr(portraits, "card", lambda *a: drawn.append(card(*a)) or drawn[-1])
    net = ifa.ModelRef("explained_networks:picture").load()
    images = read_inputs([Path(name) for name in photographs])
    data = [(image, 0) for image in images]
    for name in ("gradcam", "fullcam"):
        options = {"weight": getattr(ifa.weight, name), "layer": ["0", "1"], "progress": False}
        ifa.analyze(net, data, store=name, **options)
    arguments = "explained_networks:picture", *photographs, "--target-names", "cat,dog,cow"
    runs = "--run", "gradcam", "--run", "fullcam", "--expected", "dog,2"
    assert explain(*arguments, "--out", "e", *runs) == 0
    names = [f"maps-{weight}-{layer}.zarr" for weight in ("fullcam", "gradcam") for layer in "01"]
    assert sorted(path.name for path in (home / "e").iterdir()) == [*names, "overlays"]
    chance = net(images).detach().softmax(1)
    for place, expected in enumerate(("dog", "cow")):
        said = [text.get_text() for text in drawn[place].findobj(Text)]
        assert {"gradcam, 0", "gradcam, 1", "fullcam, 0", "fullcam, 1"} <= {*said}
        said = "\n".join(said)
        found = ("cat", "dog", "cow")[int(chance[place].argmax())]
        assert f"predicted: {found}\n  probability {float(chance[place].max()):.3g}, " in said
        assert f"expected: {expected}" in said
        assert "common scale: 0 = " in said
    assert explain(*arguments, "--out", "g", "--run", "gradcam", "--run", "gradcam") == 1
    assert not (home / "g").exists()
    weights = "--weight", "fullcam,gradcam", "--layer", "0", "--layer", "1"
    assert explain(*arguments, "--out", "f", *weights) == 0
    for name in names:
        xr.testing.assert_equal(xr.open_zarr(home / "e" / name), xr.open_zarr(home / "f" / name))


def test_expectations_are_one_for_each(home, photographs, capsys):
    arguments = "explained_networks:picture", *photographs, "--out", "e", "--expected", "dog"
    assert explain(*arguments) == 1
    assert "a name for each of 2 images, got 1" in capsys.readouterr().err
    assert not (home / "e").exists()


def test_nothing_is_overwritten(home, photographs, capsys):
    (home / "e").mkdir()
    assert explain("explained_networks:picture", *photographs, "--out", "e") == 1
    assert "expected nothing at e. Nothing was touched" in capsys.readouterr().err
    assert not list((home / "e").iterdir())


@pytest.mark.parametrize(
    ("name", "text"), [("notes.txt", "expected a picture"), ("s.npy", "one shape")]
)
def test_what_cannot_be_read_is_named(home, photographs, capsys, name, text):
    np.save(home / "s.npy", np.zeros((3, 4)))
    (home / "notes.txt").write_text("")
    assert explain("explained_networks:picture", *photographs, name, "--out", "e") == 1
    message = capsys.readouterr().err
    assert text in message
    assert name in message
    assert not (home / "e").exists()


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    mark = Image.Exif()
    mark[0x0112] = 6  # turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "p.png", exif=mark)
    read = read_inputs([tmp_path / "p.png"])[0]
    assert read.shape == (3, 6, 4)
    assert read[:, 0, 3].tolist() == [1.0, 1.0, 1.0]


def test_maps_of_many_targets_are_stored_with_their_targets(tmp_path):
    maps, target = torch.randn(2, 3, 4, 5), torch.tensor([[0, 0, 0], [7, 7, 7]])
    save_maps(tmp_path / "m", maps, ids="abc", target=target, units="logit", attrs={"a": 1})
    stored = xr.open_zarr(tmp_path / "m")
    assert stored["map"].dims == ("explained", "sample", "y", "x")
    assert stored["map"].attrs["units"] == "logit"
    assert np.array_equal(stored["map"].values, maps)
    assert np.array_equal(stored["target"].values, target)
    with pytest.raises(FileExistsError, match="Nothing was touched"):
        save_maps(tmp_path / "m", maps, ids="abc", target=target)
    with pytest.raises(ValueError, match="expected maps"):
        save_maps(tmp_path / "n", maps, ids="abc", target=target[:, :2])


def test_a_step_says_so_if_it_is_given_a_batch():
    net = models.pooled_linear(2)
    features = ifa.tap(net, "conv2", models.inputs(net, 6))(models.inputs(net, 6))
    weighted = ifa.batched(ifa.weigh(ifa.weight.gradcam))(features)
    maps = ifa.batched(ifa.combine)(weighted)
    channels = weighted.weights.shape[1]
    steps = [
        (ifa.weigh(ifa.weight.gradcam), features),
        (ifa.weight.cam(net), features),
        (ifa.keep(torch.ones(channels, dtype=torch.bool)), weighted),
        (ifa.combine, weighted),
        (ifa.combine_blocks(1), weighted),
        (ifa.relu, maps),
        (ifa.clip(0, 1), maps),
        (ifa.minmax, maps),
        (ifa.rescale(ifa.Scale(torch.tensor(0.0), torch.tensor(1.0))), maps),
        (ifa.unscale(ifa.Scale(torch.tensor(0.0), torch.tensor(1.0))), maps),
        (ifa.resize((4, 4)), maps),
        (ifa.place(ifa.Positions(torch.zeros(2), torch.ones(2)), (4, 4)), maps),
    ]
    for step, batch in steps:
        with pytest.raises(ValueError, match=r"of one example, got a batch .* ifa\.batched"):
            step(batch)
