"""Networks of real shapes with random weights, and what is tapped in them."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

import ifa


class Logits(nn.Module):
    """A Hugging Face model that returns a tensor, because the peers need one."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).logits


class Case(NamedTuple):
    """A network and two of its layers."""

    title: str
    net: nn.Module
    last: str
    before: str | None = None
    grid: object = None

    def images(self, count: int) -> Tensor:
        return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(1))

    def layer(self, name: str) -> nn.Module:
        return self.net.get_submodule(name)


def _made(net: nn.Module) -> nn.Module:
    net = Logits(net).eval()
    generator = torch.Generator().manual_seed(2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: neither 0 nor 1
            module.running_mean = 0.1 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
    return net


def _resnet(**config: object) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    return _made(ResNetForImageClassification(ResNetConfig(num_labels=1000, **config)))


@cache
def resnet50() -> Case:
    stages = "net.resnet.encoder.stages"
    return Case("ResNet-50", _resnet(), f"{stages}.3", f"{stages}.2")


@cache
def resnet18() -> Case:
    sizes = [64, 128, 256, 512]
    net = _resnet(depths=[2, 2, 2, 2], hidden_sizes=sizes, layer_type="basic", embedding_size=64)
    stages = "net.resnet.encoder.stages"
    return Case("ResNet-18", net, f"{stages}.3", f"{stages}.2")


@cache
def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    net = _made(ViTForImageClassification(ViTConfig(num_labels=1000)))
    grid = ifa.tokens(prefix=1, grid=(14, 14))
    return Case("ViT-B", net, "net.vit.layers.11.layernorm_before", grid=grid)


CASES = {"resnet50": resnet50, "resnet18": resnet18, "vit": vit}
