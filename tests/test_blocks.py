"""The layers one chooses among: blocks, their grids, the default."""

import pytest
import torch
from torch import nn

import ifa
from ifa.taps import blocks
from ifa.testing import models


def stage(wide, narrow):
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(narrow, narrow, 3, 2, 1), nn.ReLU()),
    )


@pytest.fixture
def staged():
    torch.manual_seed(0)
    return nn.Sequential(
        *(stage(wide, 4) for wide in (3, 4, 4, 4, 4, 4)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ).eval()


def test_blocks_are_listed_and_not_what_is_inside(staged):
    example = torch.randn(2, 3, 128, 96)
    found = blocks(staged, example)
    assert list(found) == list(ifa.trace(staged, example))
    assert "".join(name for name, block in found.items() if block.listed) == "012345678"
    assert found.default == ifa.tap(staged, None, example).sites[0].layer == "5"
    assert found["2.0"].laid == (4, 32, 24)
    assert "2.0 " not in repr(found)
    assert "2.0 " in found.table(every=True)


def test_coarse_grids_and_what_has_none(staged):
    lines = repr(blocks(staged, torch.randn(2, 3, 128, 96))).splitlines()
    rows = {line.lstrip("* ").split()[0]: line for line in lines[1:-2]}
    assert [name for name, row in rows.items() if "coarse: below 4 × 4" in row] == ["4", "5"]
    assert [name for name, row in rows.items() if row.startswith("*")] == ["5"]
    assert "no grid" in rows["6"]
    assert "no grid" in rows["8"]
    assert lines[-1] == "36 layers inside of these are not listed."


def test_tokens_are_laid_out_and_other_axes_are_no_grid():
    net = models.small_vit()
    found = blocks(net, models.inputs(net))
    assert found[str(found.default)].laid is not None
    taken = {len(block.laid) for block in found.values() if block.laid is not None}
    assert taken == {models.inputs(net).ndim - 1}


def test_a_network_without_a_default_says_why():
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 2))
    found = blocks(net, torch.randn(2, 2, 4))
    assert found.default is None
    assert "No default: expected a layer whose output has a grid" in repr(found)
