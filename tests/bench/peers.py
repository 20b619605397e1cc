"""What we are compared with: the limit, other libraries, and one library's definition.

pytorch-grad-cam needs torchvision, whose wheel does not load beside the pinned torch, so what it
does is written out: it differentiates by the input and every parameter, and ablates channels in
whole forward passes.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.bench.networks import Case

Maps = Callable[[Tensor], Tensor]  # images -> (sample, y, x), of the predicted class


def bare(case: Case) -> Maps:
    """The forward pass and nothing else."""

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return case.net(images)

    return run


def limit(case: Case, name: str) -> Maps:
    """Forward, and backward through what lies above the layer: nobody can do with less."""
    net = copy.deepcopy(case.net).requires_grad_(False)
    started: list[Tensor] = []

    def start(module: nn.Module, args: object, output: Tensor) -> Tensor:
        started[:] = [output.detach().requires_grad_()]
        return started[0].clone()

    net.get_submodule(name).register_forward_hook(start)

    def run(images: Tensor) -> Tensor:
        scores = net(images).amax(1)
        activations = started[0]
        (gradients,) = torch.autograd.grad(scores.sum(), activations)
        return combined(case, activations.detach(), gradients)

    return run


def combined(case: Case, activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM's map."""
    if case.grid is not None:
        activations, gradients = case.grid(activations), case.grid(gradients)
    return torch.einsum("sc,sc...->s...", gradients.mean((2, 3)), activations)


def captum(case: Case, name: str, target: Tensor) -> Maps:
    """With the target known: to find it, captum would run the network once more."""
    from captum.attr import LayerGradCam

    method = LayerGradCam(case.net, case.layer(name))
    return lambda images: method.attribute(images, target)[:, 0].detach()


def torchcam(case: Case, name: str) -> Maps:
    from torchcam.methods import GradCAM

    def run(images: Tensor) -> Tensor:
        method = GradCAM(case.net, name, reshape_transform=case.grid)
        try:
            scores = case.net(images)
            return method(scores.argmax(1).tolist(), scores, normalized=False)[0]
        finally:
            method.remove_hooks()

    return run


def torchcam_targets(case: Case, name: str, targets: int) -> Callable[[Tensor], list[Tensor]]:
    """One forward pass, and one backward pass for each target, the graph kept."""
    from torchcam.methods import GradCAM

    def run(images: Tensor) -> list[Tensor]:
        method = GradCAM(case.net, name)
        try:
            scores = case.net(images)
            return [
                method(target, scores, normalized=False, retain_graph=True)[0].detach()
                for target in range(targets)
            ]
        finally:
            method.remove_hooks()

    return run


def pytorch_grad_cam(case: Case, name: str) -> Maps:
    """By its definition: hooks, and a backward pass to the input and to every parameter."""
    net = copy.deepcopy(case.net).requires_grad_(True)
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        kept["activations"] = output.detach()
        output.register_hook(lambda gradients: kept.__setitem__("gradients", gradients))

    net.get_submodule(name).register_forward_hook(keep)

    def run(images: Tensor) -> Tensor:
        images = images.clone().requires_grad_()
        scores = net(images)
        net.zero_grad()
        scores.amax(1).sum().backward(retain_graph=True)
        return combined(case, kept["activations"], kept["gradients"])

    return run


def pytorch_grad_cam_ablation(case: Case, name: str, channels: int, chunk: int = 32) -> Maps:
    """By its definition: a whole forward pass for each channel, so many images at once."""
    net = copy.deepcopy(case.net).requires_grad_(False)
    ablated: list[range] = []

    def ablate(module: nn.Module, args: object, output: Tensor) -> Tensor:
        if not ablated:
            return output
        output = output.clone()
        for row, channel in enumerate(ablated[0]):
            output[row, channel] = 0
        return output

    net.get_submodule(name).register_forward_hook(ablate)

    def run(images: Tensor) -> Tensor:
        parts = []
        with torch.no_grad():
            whole = net(images)
            target = int(whole.argmax())
            for start in range(0, channels, chunk):
                ablated[:] = [range(start, min(start + chunk, channels))]
                parts.append(net(images.expand(len(ablated[0]), -1, -1, -1))[:, target])
            ablated.clear()
        return (whole[0, target] - torch.cat(parts)) / whole[0, target].abs()

    return run
