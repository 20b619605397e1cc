"""`ifa maps`: maps of a run's population, or another, on its scale; as Zarr, pictures, NIfTI."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from populations import contents

import ifa
from ifa.cli import main

MODULE = """
import ifa, torch


def network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(24, 3),
    ).eval()
    with torch.no_grad():
        net[-1].weight *= 5
    return net


class Images(torch.utils.data.Dataset):
    count = 12

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        values = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index))
        return values, int(network_()(values[None]).argmax()), f"case {index}"


class Many(Images):
    count = SAMPLES

    def __getitem__(self, index):
        values = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index))
        return values, index % 3, f"case {index}"


made = []


def network_():
    if not made:
        made.append(network())
    return made[0]


def scans():
    import glob
    return ifa.data.volumes(sorted(glob.glob("scans/*.nii.gz")), [0, 1, 2] * 2)


def volumetric():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(2),
        torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3),
    ).eval()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "mapped_nets.py").write_text(MODULE.replace("SAMPLES", "40"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mapped_nets", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("mapped_nets", None)


def run(*arguments):
    return main([*map(str, arguments), "--quiet"])


NETS = ("mapped_nets.py:network", "mapped_nets.py:Images")


def test_a_run_to_maps_and_pictures_without_python(home, capsys):
    assert run("analyze", *NETS, "--layer", "2", "--layer", "0", "--out", "r") == 0
    arguments = ("maps", "r", *NETS, "--mask", "largest", "--ratio", ".5", "--how", "tanh")
    options = ("--widen", "1.2", "--of", "overall", "--form", "zarr,png", "--montage", "6")
    options += ("--channels", "0", "--mean", "0", "--std", "1", "--dpi", "40")
    assert run(*arguments, *options) == 0
    said = capsys.readouterr().out
    assert "maps: r-maps/maps/fullcam\npictures: r-maps/png\n" in said
    tree = ifa.open("r-maps/maps/fullcam")
    statistics = ifa.open("r")
    import mapped_nets

    data = mapped_nets.Images()
    masks = {
        layer: ifa.select.largest(statistics[layer]["importance_overall"], ratio=0.5)
        for layer in ("2", "0")
    }
    expected = ifa.maps(
        mapped_nets.network(), data, layer=["2", "0"], mask=masks, scale=statistics,
        how="tanh", widen=1.2, progress=False,
    )  # fmt: skip
    for layer in ("2", "0"):
        np.testing.assert_allclose(tree[layer]["map"], expected[layer]["map"], rtol=1e-5, atol=1e-6)
    names = ["made_by.json", "montage-00.png", "montage-01.png"]
    assert sorted(one.name for one in (home / "r-maps/png").iterdir()) == names
    before = contents(home / "r-maps")
    assert run(*arguments, *options) == 0  # again: nothing is done twice
    assert contents(home / "r-maps") == before


def test_a_single_layer_is_not_read_letter_by_letter(home):
    from ifa.contest.mapped import maps_of_run

    assert run("analyze", *NETS, "--layer", "2", "--layer", "0", "--out", "r", "--limit", 4) == 0
    import mapped_nets

    data = torch.utils.data.Subset(mapped_nets.Images(), range(4))
    network = ifa.ModelRef("mapped_nets:network")
    tree = maps_of_run("ifa maps", Path("r"), network, data, layers="2", progress=False)
    assert [*tree.children] == ["2"]
    with pytest.raises(LookupError, match="expected --layer from the run's, 2, 0, got '20'"):
        maps_of_run("ifa maps", Path("r"), network, data, layers="20")


def test_methods_beside_one_another(home, capsys):
    assert run("analyze", *NETS, "--layer", "2", "--out", "r") == 0
    assert run("analyze", *NETS, "--layer", "2", "--weight", "gradcam", "--out", "g") == 0
    arguments = ("maps", "r", *NETS, "--beside", "g", "--out", "o", "--limit", 3, "--rectify")
    assert run(*arguments) == 0
    assert sorted(one.name for one in (home / "o/maps").iterdir()) == ["fullcam", "gradcam"]
    pictures = sorted(one.name for one in (home / "o/png").glob("*.png"))
    assert pictures == ["case_0.png", "case_11.png", "case_6.png"]
    assert ifa.open("o/maps/gradcam")["2"].attrs["rectified"] == 1
    assert run("maps", "r", *NETS, "--beside", "r", "--out", "p") == 1
    assert "a run by another weighting, got two by fullcam" in capsys.readouterr().err


def test_volumes_have_nifti(home):
    nibabel = pytest.importorskip("nibabel")
    (home / "scans").mkdir()
    for index in range(6):
        values = np.random.default_rng(index).random((6, 5, 7), dtype=np.float32)
        image = nibabel.Nifti1Image(values, np.diag([-2.0, 2, 3, 1]))
        nibabel.save(image, home / f"scans/case{index}.nii.gz")
    nets = "mapped_nets.py:volumetric", "mapped_nets.py:scans"
    assert run("analyze", *nets, "--layer", "0", "--out", "r") == 0
    assert run("maps", "r", *nets, "--form", "nifti") == 0
    for index in range(6):
        level = nibabel.load(home / f"r-maps/nifti/fullcam/case{index}.nii.gz")
        assert level.shape == (6, 5, 7)
        assert np.array_equal(level.affine, np.diag([-2.0, 2, 3, 1]))


def test_what_is_wrong_is_named(home, capsys):
    assert run("analyze", *NETS, "--layer", "2", "--out", "r") == 0
    for options, said in (
        (("--form", "gif"), "expected --form from zarr, png, svg, pdf, nifti, got 'gif'"),
        (("--layer", "4"), "expected --layer from the run's, 2, got '4'"),
        (("--mask", "best"), "expected --mask to be one of 'largest'"),
        (("--targets", "cat"), "expected --targets to be predicted"),
        (("--widen", "0"), "expected widen to be finite, above 0"),
        (("--form", "nifti"), "expected data that know where voxels lie"),
    ):
        assert run("maps", "r", *NETS, *options) == 1
        assert said in capsys.readouterr().err
    assert run("maps", "r-maps/maps/fullcam", *NETS) == 1
    assert "which has no scale" in capsys.readouterr().err


# Ended at any moment


def start(home, out, *options):
    command = [sys.executable, "-c", "import sys; from ifa.cli import main; sys.exit(main())"]
    nets = "mapped_nets:network", "mapped_nets:Many"
    return subprocess.Popen(
        [*command, "maps", "r", *nets, "--out", out, "--quiet", *options],
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors


def killed(home, kills, files, *options):
    """End it so many times; return how many of these fell while it wrote such files."""
    draw, inside = random.Random(0), 0

    def there():
        return sum(1 for _ in (home / "o").glob(files))

    for number in range(kills):
        before, process = there(), start(home, "o", *options)
        # one in five falls at any time from the start of the process; the others once it works
        if number % 5:
            while process.poll() is None and there() == before:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.5))
        else:
            time.sleep(draw.uniform(0, 6))
        running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        inside += running and there() > before
    return inside


def same(home):
    ours, whole = contents(home / "o"), contents(home / "whole")
    for name, content in whole.items():
        if "COMMIT" not in name:  # it has the time
            assert ours[name] == content, name
    assert ours.keys() == whole.keys()


@pytest.mark.deep
def test_ten_kills_lose_nothing_of_ten_thousand_maps(home):
    (home / "mapped_nets.py").write_text(MODULE.replace("SAMPLES", "10000"))
    assert run("analyze", "mapped_nets.py:network", "mapped_nets.py:Images", "--layer", "2",
               "--out", "r") == 0  # fmt: skip
    options = ("--form", "zarr", "--shard", "100")
    finish(start(home, "whole", *options))
    inside = killed(home, 10, "maps/fullcam/shards/*.npz", *options)
    print(f"{inside} of 10 kills fell while maps were written")
    finish(start(home, "o", *options))
    same(home)
    ifa.verify(home / "o/maps/fullcam")
    assert inside >= 4
    xr.testing.assert_identical(
        ifa.open(home / "o/maps/fullcam").load(), ifa.open(home / "whole/maps/fullcam").load()
    )


@pytest.mark.deep
def test_ten_kills_lose_no_picture(home):
    (home / "mapped_nets.py").write_text(MODULE.replace("SAMPLES", "400"))
    assert run("analyze", "mapped_nets.py:network", "mapped_nets.py:Images", "--layer", "2",
               "--out", "r") == 0  # fmt: skip
    options = ("--form", "png", "--shard", "8")
    finish(start(home, "whole", *options))
    inside = killed(home, 10, "png/*.png", *options)
    print(f"{inside} of 10 kills fell while pictures were written")
    finish(start(home, "o", *options))
    same(home)
    assert inside >= 4


USED = """
import resource, sys, psutil, torch, ifa
sys.path.insert(0, {home!r})
import mapped_nets
count, kind = int(sys.argv[1]), sys.argv[2]
data = torch.utils.data.Subset(mapped_nets.Many(), range(count))
process, peak = psutil.Process(), [0]

def look(done, total):
    peak[0] = max(peak[0], process.memory_info().rss)

tree = ifa.maps(mapped_nets.network(), data, layer="2", store=f"m{{count}}{{kind}}", progress=look)
if kind == "png":
    ifa.plot.write_overlays(tree, data, f"p{{count}}", dpi=30, progress=look)
look(0, 0)
print(peak[0])
"""


@pytest.mark.deep
@pytest.mark.parametrize(("kind", "counts"), [("zarr", (1000, 10000)), ("png", (100, 1000))])
def test_memory_does_not_grow_with_the_population(home, kind, counts):
    (home / "mapped_nets.py").write_text(MODULE.replace("SAMPLES", "10000"))
    code = USED.format(home=str(home))
    used = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(count), kind],
                capture_output=True, text=True, check=True, cwd=home,
            ).stdout.split()[-1]
        )
        for count in counts
    ]  # fmt: skip
    print(f"{kind}: {[round(one / 2**20) for one in used]} MB resident of {counts} samples")
    assert used[1] - used[0] < 32 * 2**20
