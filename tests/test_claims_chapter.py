"""The chapter on claims: its planted networks are what is said of them, and a cell is measured."""

import pytest
import torch
from claims import cells
from claims.page import page

import ifa


def planted(turned, space=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = cells._Planted(space, turned).eval()
        if turned:
            net.load_state_dict(
                planted(False).state_dict() | {"matrix": net.state_dict()["matrix"]}
            )
    return net


INPUTS = torch.stack([one for one, *_ in ifa.nets.simulated(1, samples=6)])


def test_both_planted_networks_are_one_function():
    own, turned = planted(False), planted(True)
    torch.testing.assert_close(own(INPUTS), turned(INPUTS))
    assert own(INPUTS).std(0).min() > 0
    seen = [ifa.tap(net, "layer", INPUTS)(INPUTS, 0).activations for net in (own, turned)]
    assert seen[0].shape == (6, cells.CHANNELS, 24)
    assert (seen[0] - seen[1]).abs().max() > 0.1


@pytest.mark.parametrize("fill", [0.0, "mean"])
def test_the_bottleneck_is_all_that_the_one_needs_and_no_channels_of_the_other_are(fill):
    mask = torch.arange(cells.CHANNELS) < cells.BOTTLENECK
    for turned in (False, True):
        net = planted(turned)
        kept = ifa.evaluate.feature_perturbation(net, "layer", INPUTS, mask, baseline=fill)
        assert torch.allclose(kept, net(INPUTS), atol=1e-5) == (not turned)


@pytest.mark.deep
def test_a_cell_is_measured_and_written():
    key = "faces, CNN, linear head"
    found = {("cells", key, 0): {**cells.measured(key, 0), "seconds": 1.0}}
    text = page(found)
    assert "### Faces and background" in text
    assert "\n| level | 1.00 ± 0.00\\*, 1/0/0 |" in text
