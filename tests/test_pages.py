"""Every Python block of every page runs, in the page's order and one namespace."""

import doctest
import functools
import importlib.util
import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import ifa

ROOT = Path(__file__).parents[1]
# these say more about what their page shows
ELSEWHERE = {
    "own-data": "test_data",
    "own-network": "test_references",
    "maps": "test_write_maps",
    "tasks": "test_tasks",
    "object-stores": "test_objects",
    "cluster": "test_engines",
}


def pieces(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def blocks(page: Path) -> str:
    return "\n".join(pieces(page))


def given() -> dict:
    """Return what pages take for granted: a network, images with labels, and statistics of them."""
    stages = {
        "layer2": nn.Conv2d(3, 5, 3, stride=2, padding=1),
        "layer3": nn.Conv2d(5, 6, 3, stride=2, padding=1),
        "layer4": nn.Conv2d(6, 8, 3, stride=2, padding=1),
    }
    head = {"relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    net = nn.Sequential()
    for name, module in {**stages, **head, "fc": nn.Linear(8, 43)}.items():
        net.add_module(name, module)
    net.layer4.bias.data += 1.0  # every channel is active
    net.eval()
    images = torch.rand(6, 3, 32, 32)
    # enough samples of two classes for every diagnosis
    coarse = torch.cat([torch.rand(20, 3, 4, 4), 1 + torch.rand(20, 3, 4, 4)])
    some = nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    dark, bright = some.split(20)
    with torch.no_grad():  # the difference between the two decides
        apart = net[:-1](bright).mean(0) - net[:-1](dark).mean(0)
        net.fc.weight[:2] = torch.stack([-apart, apart])
        net.fc.bias[:2] = 50.0 - net.fc.weight[:2] @ net[:-1](some).mean(0)
    data = [
        (image, label, f"image {n}")
        for n, (image, label) in enumerate(zip(some, net(some).argmax(1).tolist(), strict=True))
    ]
    large = nn.functional.interpolate(images[:1], (224, 224), mode="bilinear")[0]
    coarse, high = torch.rand(7, 7), torch.rand(224, 224)
    return {
        "ifa": ifa,
        "torch": torch,
        "patients": [f"patient {n // 2}" for n in range(len(data))],
        "functools": functools,
        "itertools": itertools,
        "skimage": pytest.importorskip("skimage.segmentation") and pytest.importorskip("skimage"),
        "net": net,
        "images": images,
        "data": data,
        "target": torch.arange(6),
        "targets": torch.arange(12).reshape(2, 6),
        "masks": images[:, 0] > 0.5,
        "levels": (torch.rand(6, 32, 32) * 4).long() * 64,
        "maps": torch.rand(6, 32, 32),
        "where": ifa.positions(net, "layer4", images),
        "image": large,
        "low": coarse,
        "high": high,
        "upsampler": lambda image, features: features,
        "results": [ifa.refine.pipeline(large, coarse, high)],
        "train": data[::8],
        "statistics": ifa.analyze(net, data, layer="layer4", progress=False),
    }


@pytest.mark.parametrize(
    "page",
    [
        page.relative_to(ROOT).as_posix()
        for folder in (".", "docs", "docs/start", "docs/how-to")
        for page in sorted((ROOT / folder).glob("*.md"))
        if blocks(page) and page.stem not in {*ELSEWHERE, "contributing"}
    ],
)
def test_a_page_runs(page, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / page)
    if "train_digits" in code:
        network = trained()
        monkeypatch.setattr(ifa.nets, "train_digits", lambda: network)
    exec(compile(code, page, "exec"), given() | {"__name__": "page"})


def test_pages_tested_elsewhere_are():
    for page, where in ELSEWHERE.items():
        assert f'"{page}.md"' in (Path(__file__).parent / f"{where}.py").read_text()


# the files that the recipes write: where, and what; other blocks are lines of such files
RECIPES = re.findall(
    r"`ifa/(\w+)/(\w+)\.py`, [^\n]*\n(?:[^\n`]+[^\n]*\n)*\n```python\n(\"\"\".*?)```",
    (ROOT / "docs" / "contributing.md").read_text(),
    re.S,
)


@pytest.mark.parametrize(("room", "name", "code"), RECIPES, ids=lambda text: text[:20])
def test_a_recipe_is_a_file_whose_examples_hold(room, name, code, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    home = importlib.import_module(f"ifa.{room}")
    for public, value in vars(module).items():
        if getattr(value, "__module__", None) == name and not public.startswith("_"):
            monkeypatch.setattr(home, public, value, raising=False)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted or room == "plot"  # a picture has a test instead
    assert not found.failed


def test_there_are_recipes():
    assert len(RECIPES) == 5
