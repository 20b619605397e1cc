"""Tiny networks in which no two axes have the same extent: seeded, in evaluation mode.

Each is a function that makes one, the same every time, without touching the global random state.
`inputs(model)` makes inputs for it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "batch_norm",
    "detector",
    "dict_output",
    "image_and_age",
    "inplace",
    "inputs",
    "masked_text",
    "pooled_linear",
    "recurrent",
    "regression",
    "reused_layer",
    "siamese",
    "small_vit",
    "tuple_output",
    "two_heads",
]

_CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_OUTPUTS = 4


class Net(nn.Module):
    """A tiny network that knows the shape of one of its inputs, or of each by its place."""

    input_shape: Any


def inputs(model: Net, samples: int = 2, *, seed: int = 0) -> Any:
    r"""Make a batch for one of these networks: noise, in the dtype of its parameters.

    Returns
    -------
    (sample, \*input)
        The same numbers for the same seed; a tuple or mapping where the network takes several.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype

    def made(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: made(part) for name, part in shape.items()}
        if shape and not isinstance(shape[0], int):
            return tuple(map(made, shape))
        return torch.randn(samples, *shape, generator=generator).to(dtype)

    found = made(model.input_shape)
    return model.tokens(found) if isinstance(model, MaskedText) else found


class PooledLinear(Net):
    """Conv, relu, conv, relu, global average pool, linear. Build it with `pooled_linear`."""

    def __init__(self, space: int):
        super().__init__()
        self.input_shape = (2, *(13, 17, 21)[:space])
        self.conv1 = _CONV[space](2, 3, 3, stride=2)
        self.relu1 = nn.ReLU()
        self.conv2 = _CONV[space](3, 5, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(5, _OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu2(self.conv2(self.relu1(self.conv1(inputs))))
        return self.linear(hidden.flatten(2).mean(2))


def pooled_linear(space: int = 2, *, seed: int = 0) -> PooledLinear:
    r"""Make the network whose class activation maps are known in closed form.

    What lies above ``relu2``, of output A (5, \*space), is a mean over its n positions and a linear
    layer of weight W: the gradient of output c is :math:`W_{ck} / n` at every position. The map of
    Grad-CAM and of HiResCAM is hence :math:`\sum_k W_{ck} A_k / n`, which sums to the output less
    its bias, and that of Layer-CAM :math:`\sum_k \max(0, W_{ck}) A_k / n`.

    Parameters
    ----------
    space
        How many space axes: 1, 2 or 3.
    seed
        Of the parameters.
    """
    return _made(lambda: PooledLinear(space), seed)


class InPlace(Net):
    """Layers whose output the next one overwrites. Build it with `inplace`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 7, 11)
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(3, 5, 3, padding=1)
        self.linear = nn.Linear(5, _OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.conv2(self.relu(self.conv1(inputs)))
        return self.linear(functional.relu(hidden, inplace=True).mean((2, 3)))


def inplace(*, seed: int = 0) -> InPlace:
    """Make a network that, like DenseNet, rectifies in place after ``conv1`` and ``conv2``."""
    return _made(InPlace, seed)


class ReusedLayer(Net):
    """One rectifier for all. Build it with `reused_layer`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 7, 11)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(2, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 5, 3, padding=1)
        self.conv3 = nn.Conv2d(5, 3, 3, padding=1)
        self.linear = nn.Linear(3, _OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.relu(self.conv1(inputs))
        hidden = self.relu(self.conv2(hidden))
        return self.linear(self.relu(self.conv3(hidden)).mean((2, 3)))


def reused_layer(*, seed: int = 0) -> ReusedLayer:
    """Make a network that calls one ``relu`` three times: ``relu#1``, ``relu#2``, ``relu#3``."""
    return _made(ReusedLayer, seed)


class TupleOutput(Net):
    """Features and logits, in this order. Build it with `tuple_output`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 11)
        self.conv = nn.Conv1d(2, 3, 3, padding=1)
        self.linear = nn.Linear(3, _OUTPUTS)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.conv(inputs).tanh()
        return hidden, self.linear(hidden.square().mean(2))


def tuple_output(*, seed: int = 0) -> TupleOutput:
    """Make a network that returns ``(features, logits)``: the output has to be picked by 1."""
    return _made(TupleOutput, seed)


class DictOutput(Net):
    """Features and logits by name. Build it with `dict_output`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TupleOutput()
        self.input_shape = self.body.input_shape

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features, logits = self.body(inputs)
        return {"features": features, "logits": logits}


def dict_output(*, seed: int = 0) -> DictOutput:
    """Make a network that returns ``{"features": ..., "logits": ...}``; tap ``body.conv``."""
    return _made(DictOutput, seed)


class TwoHeads(Net):
    """One trunk, a category and two values. Build it with `two_heads`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 7, 11)
        self.trunk = nn.Conv2d(2, 5, 3, padding=1)
        self.category = nn.Linear(5, _OUTPUTS)
        self.value = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        pooled = functional.silu(self.trunk(inputs)).mean((2, 3))
        return {"category": self.category(pooled), "value": self.value(pooled)}


def two_heads(*, seed: int = 0) -> TwoHeads:
    """Make a network that returns ``{"category": (sample, 4), "value": (sample, 3)}``."""
    return _made(TwoHeads, seed)


class Regression(Net):
    """One number for each sample, without an axis for it. Build it with `regression`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 5, 7, 9)
        self.conv = nn.Conv3d(2, 3, 3, padding=1)
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        pooled = functional.softplus(self.conv(inputs)).mean((2, 3, 4))
        return self.linear(pooled).squeeze(1)


def regression(*, seed: int = 0) -> Regression:
    """Make a network of volumes with the output (sample,): one value, not named."""
    return _made(Regression, seed)


class BatchNorm(Net):
    """Normalized by running statistics. Build it with `batch_norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 7, 11)
        self.conv = nn.Conv2d(2, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(5, _OUTPUTS)
        # a trained network's statistics are not 0 and 1
        nn.init.normal_(self.norm.get_buffer("running_mean"), std=0.3)
        nn.init.uniform_(self.norm.get_buffer("running_var"), 0.5, 2.0)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(self.relu(self.norm(self.conv(inputs))).mean((2, 3)))


def batch_norm(*, seed: int = 0) -> BatchNorm:
    """Make a network with batch norm, in evaluation mode, followed by an in-place rectifier."""
    return _made(BatchNorm, seed)


class Detector(Net):
    """Boxes at the places of a grid where there is something. Build it with `detector`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 7, 11)
        self.conv = nn.Conv2d(2, 5, 3, stride=2)
        self.head = nn.Conv2d(5, 7, 1)

    def forward(self, inputs: Tensor) -> list[dict[str, Tensor]]:
        found = self.head(self.conv(inputs).tanh())
        y, x = (2 * torch.arange(n).to(inputs) + 1.5 for n in found.shape[2:])
        centers = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))])
        near, far = centers - 1 - found[:, :2].exp(), centers + 1 + found[:, 2:4].exp()
        boxes, logits = torch.cat([near, far], 1).flatten(2).mT, found[:, 4:].flatten(2).mT
        return [_found(*one) for one in zip(boxes, logits, strict=True)]


def _found(boxes: Tensor, logits: Tensor) -> dict[str, Tensor]:
    there = logits[:, 2] >= logits[:, 2].max().clamp(max=0)
    scores = logits[there, :2].sigmoid()
    labels = torch.arange(2, device=boxes.device).expand_as(scores)
    twice = boxes[there].repeat_interleave(2, 0)
    return {"boxes": twice, "scores": scores.flatten(), "labels": labels.flatten()}


def detector(*, seed: int = 0) -> Detector:
    """Make a detector that returns a list with ``boxes``, ``scores`` and ``labels`` of each sample.

    Boxes (box, 4) are of two classes and of any number, two at least. Tap ``conv``, with a score
    such as ``ifa.score.box(boxes=[[0, 0, 11, 6], [1, 0, 11, 7]], classes=[0, 1], threshold=0)``.
    """
    return _made(Detector, seed)


class SmallVit(Net):
    """Patches, a class token and two transformer blocks. Build it with `small_vit`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (1, 10, 15)
        self.patches = nn.Conv2d(1, 8, 5, stride=5)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 7, 8))
        self.blocks = nn.Sequential(*(_block() for _ in range(2)))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, _OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        patches = self.patches(inputs).flatten(2).transpose(1, 2)
        prefix = self.class_token.expand(len(inputs), -1, -1)
        tokens = torch.cat([prefix, patches], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def _block() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True, norm_first=True)


def small_vit(*, seed: int = 0) -> SmallVit:
    """Make a vision transformer of 7 tokens: one for the class, and a grid of 2 × 3.

    Only the class token is read at the end, so tap ``blocks.0`` with
    ``ifa.tokens(prefix=1, grid=(2, 3))``: on top of ``blocks.1`` the grid has no gradient.
    """
    return _made(SmallVit, seed)


class Recurrent(Net):
    """A convolution and a GRU, whose layer returns a tuple. Build it with `recurrent`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (2, 11)
        self.conv = nn.Conv1d(2, 3, 3, padding=1)
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.linear = nn.Linear(5, _OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        sequence, _ = self.gru(self.conv(inputs).transpose(1, 2))
        return self.linear(sequence.tanh().mean(1))


def recurrent(*, seed: int = 0) -> Recurrent:
    """Make a network of sequences; its ``gru`` returns ``((sample, t, channel), state)``."""
    return _made(Recurrent, seed)


class ImageAndAge(Net):
    """An image and an age, each with a branch. Build it with `image_and_age`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = {"age": (1,), "image": (2, 7, 11)}
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.hidden = nn.Linear(1, 3)
        self.linear = nn.Linear(8, _OUTPUTS)

    def forward(self, image: Tensor, age: Tensor, *, scale: float | None = None) -> Tensor:
        pooled = functional.softplus(self.conv(image)).mean((2, 3))
        pooled = pooled if scale is None else scale * pooled
        return self.linear(torch.cat([pooled, self.hidden(age).tanh()], 1).square())


def image_and_age(*, seed: int = 0) -> ImageAndAge:
    """Make a network of ``{"age": (sample, 1), "image": (sample, 2, 7, 11)}``; tap ``conv``."""
    return _made(ImageAndAge, seed)


class Siamese(Net):
    """Two images through the same layers. Build it with `siamese`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = ((2, 7, 11), (2, 7, 11))
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.linear = nn.Linear(5, _OUTPUTS)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        first, second = (functional.softplus(self.conv(one)).mean((2, 3)) for one in (left, right))
        return self.linear(first * second)


def siamese(*, seed: int = 0) -> Siamese:
    """Make a network of two images, a tuple, whose ``conv`` runs once for each."""
    return _made(Siamese, seed)


class MaskedText(Net):
    """Words with an attention mask. Build it with `masked_text`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = {"input_ids": (7,), "attention_mask": (7,)}
        self.embed = nn.Embedding(23, 6)
        self.conv = nn.Conv1d(6, 5, 3, padding=1)
        self.linear = nn.Linear(5, _OUTPUTS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = functional.softplus(self.conv(self.embed(input_ids).transpose(1, 2)))
        mask = attention_mask[:, None].to(seen)
        return self.linear((seen * mask).sum(2) / (1 + mask.sum(2)))

    def tokens(self, noise: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make words and a mask of noise."""
        ids = (7 * noise["input_ids"]).long().remainder(self.embed.num_embeddings)
        return {"input_ids": ids, "attention_mask": (noise["attention_mask"] > -1).long()}


def masked_text(*, seed: int = 0) -> MaskedText:
    """Make a network of ``{"input_ids", "attention_mask"}``, (sample, 7) integers; tap ``conv``."""
    return _made(MaskedText, seed)


def _made(build: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()
