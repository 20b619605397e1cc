"""What calls cost, counted and not timed: looks at tensors from Python, and what is made.

On a GPU every look waits for it.
"""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ifa

_LOOKS = {
    *("item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "argwhere", "unique"),
    *("__bool__", "__int__", "__float__", "__index__", "__array__", "__contains__", "equal"),
}


class Looks(TorchFunctionMode):
    """Counts what waits for a device: values read by Python, and shapes that depend on them."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        by_mask = name in ("__getitem__", "__setitem__") and _masked(args[1])
        found = name in _LOOKS or by_mask or (name == "where" and len(args) + len(kwargs or {}) < 2)
        self.seen[name] += found
        return func(*args, **(kwargs or {}))


def _masked(index):
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in parts)


def looks(work):
    work()  # what is found out once
    with Looks() as mode:
        work()
    return +mode.seen


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        layers = (nn.Conv2d(2, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        return net.eval(), torch.rand(3, 2, 11, 11)


def test_a_look_is_seen():
    mask = torch.ones(2) > 0
    each = [lambda: mask.any().item(), lambda: bool(mask.all()), lambda: mask.float()[mask]]
    each += [lambda: torch.nonzero(mask), lambda: torch.where(mask), lambda: int(mask.sum())]
    each += [mask.tolist, mask.cpu, lambda: float(mask.sum()), lambda: mask if mask[0] else None]
    assert all(looks(work) for work in each)
    assert not looks(lambda: torch.where(mask, 1, 0)[:1])


@pytest.mark.parametrize("target", [None, 1])
def test_a_tap_looks_at_its_flags_once(target):
    net, images = network()
    assert looks(partial(ifa.tap(net, "1", images), images, target)) == {"tolist": 1}


@pytest.mark.parametrize("target", [None, 1])
@pytest.mark.parametrize("size", ["input", None, (5, 7)])
def test_an_explanation_looks_at_its_flags_once(target, size):
    net, images = network()
    # where units lie, which "centers" reads, is on no device
    work = partial(ifa.explain, net, images, target, layer="1", size=size, placing="even")
    assert looks(work) == {"tolist": 1}


KERNELS = [getattr(ifa.weight, name) for name in ifa.weight.__all__ if name != "cam"]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("samples", [1, 3])
def test_a_weighting_does_not_look(kernel, samples):
    net, images = network()
    features = ifa.tap(net, "1", images)(images[:samples])
    scale, mask = ifa.Scale(torch.tensor(0.0), torch.tensor(1.0)), torch.ones(6) > 0
    steps = (ifa.weigh(kernel), ifa.keep(mask), ifa.combine, ifa.relu, ifa.rescale(scale))
    assert not looks(partial(ifa.batched(ifa.chain(*steps, ifa.resize((7, 8)))), features))


PERTURBATIONS = ["ablationcam", "iscam", "reciprocam", "scorecam", "shapleycam", "sscam"]


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("target", [None, 1])
def test_a_perturbation_does_not_look_in_its_loop(name, target):
    net, images = network()
    options = {"draws": 3} if name in ("sscam", "iscam") else {}
    few, many = (
        looks(partial(getattr(ifa.perturb, name)(net, "1", images, **options, chunk=size), images))
        for size in (3, 300)
    )
    assert few == many
    assert sum(many.values()) <= (name == "shapleycam")


class _Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and func.overloadpacket.__name__ not in ("expand", "view"):
            self.elements = max(self.elements, out.numel())
        return out


def test_of_many_targets_nothing_is_as_large_as_targets_times_outputs():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 400)).eval()
    image, targets = torch.rand(1, 1, 4, 4), torch.arange(400)[:, None]
    tap = ifa.tap(net, "0", image, step=ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine))
    with _Largest() as mode:
        found = tap(image, targets)
    assert mode.elements < 400 * 400 / 4
    one = tap(image, 399)
    torch.testing.assert_close(found.values[-1], one.values)
