"""Ablation-CAM and Score-CAM."""

import copy
from collections.abc import Iterator

import torch

import ifa
from tests.bench import peers
from tests.bench.measure import difference, interleaved, table
from tests.bench.networks import resnet18


def ablation(quick: bool) -> Iterator[str]:
    """Ablation-CAM of every channel."""
    case, images = resnet18(), resnet18().images(1)
    bare = peers.bare(case)
    rows: list[list[object]] = []
    for name, channels in [(case.last, 512), (case.before, 256)][: 1 if quick else 2]:
        found = ifa.perturb.ablationcam(case.net, name, images)
        # whole forward passes all take alike: a part of them says what all take
        part = 32 if quick else channels
        theirs = peers.pytorch_grad_cam_ablation(case, str(name), part)
        apart = difference(found(images).weights[0, :part], theirs(images))
        works = {
            "bare": lambda: bare(images),
            "ifa": lambda found=found: found(images),
            "pytorch-grad-cam, by definition": lambda theirs=theirs: theirs(images),
        }
        taken = interleaved(works, 3 if quick else 60)
        for work in works:
            share = channels / part if work.startswith("pytorch") else 1.0
            rows.append(
                [
                    f"{str(name).removeprefix('net.')}, {channels}",
                    work,
                    taken.milliseconds(work),
                    taken.ratio(work, "bare", share),
                    apart if work == "ifa" else "",
                ]
            )
    head = [f"{case.title}, batch 1: layer, channels", "variant", "ms", "/ bare", "max difference"]
    note = "32 channels were run and the ratio scaled up.\n\n" if quick else ""
    yield f"### Ablation-CAM\n\n{note}" + table(head, rows)


def scorecam(quick: bool) -> Iterator[str]:
    """Score-CAM of the 64 channels of the first stage: forward passes take alike at any layer."""
    from torchcam.methods import ScoreCAM

    case, images = resnet18(), resnet18().images(1)
    images = images[..., :112, :112] if quick else images
    name = case.last.replace("stages.3", "stages.0")
    bare = peers.bare(case)
    last = copy.deepcopy(case.net).to(memory_format=torch.channels_last)
    plain = ifa.perturb.scorecam(case.net, name, images)
    fast = ifa.perturb.scorecam(last, name, images)

    def theirs() -> torch.Tensor:
        method = ScoreCAM(case.net, name, batch_size=32)
        try:
            with torch.no_grad():
                scores = case.net(images)
                return method(int(scores.argmax()), scores, normalized=False)[0]
        finally:
            method.remove_hooks()

    step = ifa.batched(ifa.chain(ifa.combine, ifa.relu))
    apart = {
        "ifa": difference(step(plain(images)).values, theirs()),
        "ifa, channels-last": difference(fast(images).weights, plain(images).weights),
    }
    works = {
        "bare": lambda: bare(images),
        "ifa": lambda: plain(images),
        "ifa, channels-last": lambda: fast(images),
        "torch-cam": theirs,
    }
    taken = interleaved(works, 60, 3) if not quick else interleaved(works, 0, 1)
    rows = [
        [
            work,
            taken.milliseconds(work),
            taken.ratio(work, "bare", 1 / 64),
            taken.ratio("torch-cam", work),
            apart.get(work, ""),
        ]
        for work in list(works)[1:]
    ]
    head = [f"{case.title}, 64 channels, batch 1", "ms", "/ bare, each channel"]
    yield "### Score-CAM\n\n" + table([*head, "faster than torch-cam", "max difference"], rows)


def tables(quick: bool) -> Iterator[str]:
    """Yield the tables of this part."""
    yield from ablation(quick)
    yield from scorecam(quick)
