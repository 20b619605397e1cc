"""Real architectures from configuration with random weights, against plain autograd.

One row of the table for each family; every test below holds for every row.
"""

import contextlib
import gc
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

import ifa
from ifa.network.outputs import first_tensor, pick, replace_first_tensor

CLASSES = 5
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
TRANSFORMER = {"hidden_size": 16, "num_labels": CLASSES, "attn_implementation": "eager", **SMALL}


def hugging_face(name: str, kind: str = "ForImageClassification", **config: Any) -> nn.Module:
    # by name, because importing everything in transformers takes long
    package = {"MobileNetV2": "mobilenet_v2"}.get(name, name.lower())
    module = importlib.import_module(f"transformers.models.{package}")
    return getattr(module, name + kind)(getattr(module, f"{name}Config")(**config))


# networks of our own -----------------------------------------------------------------------------


class Sleep(nn.Module):
    """Sleep staging: two branches of different time scale over one channel of EEG."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = (self.branch(width) for width in (4, 10))
        self.join = nn.Sequential(nn.Conv1d(8, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(True))
        self.stage = nn.Linear(6, CLASSES)

    def branch(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(1, 4, width, stride=width // 2),
            nn.BatchNorm1d(4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.AdaptiveMaxPool1d(24),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(self.join(torch.cat([self.fine(x), self.coarse(x)], 1)).mean(2))


class Volume(nn.Module):
    """A 3-D network whose layers are deeper than the input: padding adds slices."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(2, 4, (1, 3, 3), padding=(1, 0, 0))
        self.norm, self.act = nn.BatchNorm3d(4), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(4, 6, 3, padding=(2, 1, 1))
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.act(self.norm(self.conv1(x)))).mean((2, 3, 4)))


def double_conv(a: int, b: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
        nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Skips cross every cut."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = (
            double_conv(2, 4),
            double_conv(4, 6),
            double_conv(6, 8),
        )
        self.up2, self.up1 = nn.ConvTranspose2d(8, 6, 2, 2), nn.ConvTranspose2d(6, 4, 2, 2)
        self.join2, self.join1 = double_conv(12, 6), double_conv(8, 4)
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(4, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(self.pool(one))
        x = self.up2(self.bottom(self.pool(two)))
        x = self.up1(self.join2(torch.cat([two, x], 1)))
        return self.out(self.join1(torch.cat([one, x], 1)))


class TwoScans(nn.Module):
    """Two scan directions, side by side in groups of channels that never meet before the head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3, groups=2)
        self.conv2 = nn.Conv2d(8, 8, 3, groups=2)
        self.act, self.fc = nn.ReLU(inplace=True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.conv2(self.act(self.conv1(x)))).mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class DenseNet(nn.Module):
    """As in torchvision: the last ReLU is functional and in place."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3), DenseLayer(4), DenseLayer(7), nn.BatchNorm2d(10)
        )
        self.classifier = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.features(x))
        return self.classifier(x.mean((2, 3)))


class Trunk(nn.Module):
    """A backbone and a head; `kind` makes what is returned, `freeze` runs the backbone without."""

    def __init__(self, kind: Callable[[Tensor, Tensor], Any], freeze: bool = False):
        super().__init__()
        self.body = nn.Sequential(double_conv(2, 4), nn.MaxPool2d(2), double_conv(4, 6))
        self.fc, self.kind, self.freeze = nn.Linear(6, CLASSES), kind, freeze

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            x = self.body(x)
        pooled = x.tanh().mean((2, 3))
        return self.kind(pooled, self.fc(pooled))


def as_tuple(pooled: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, pooled


def as_dict(pooled: Tensor, logits: Tensor) -> dict[str, Tensor]:
    return {"pooled": pooled, "logits": logits}


def alone(pooled: Tensor, logits: Tensor) -> Tensor:
    return logits


def frozen() -> nn.Module:
    return Trunk(alone).requires_grad_(False)


# the table ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    layer: str
    shape: tuple[int, ...]  # of one example
    grid: tuple[int, ...]  # of the layer
    space: int = 2  # axes of the input
    lay: Any = None  # grid=, where it cannot be inferred
    score: Any = ifa.score.logit
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    tolerance: float = 1e-5

    def context(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)


VIT = partial(hugging_face, "ViT", image_size=(16, 24), patch_size=4, **TRANSFORMER)
MASK = torch.arange(16 * 24).reshape(16, 24) % 5 == 0
RESNET = partial(
    hugging_face,
    "ResNet",
    embedding_size=8,
    hidden_sizes=[8, 12],
    depths=[1, 2],
    layer_type="basic",
    num_labels=CLASSES,
)

CASES = {
    "ResNet": Case(RESNET, "resnet.encoder.stages.1.layers.0", (3, 32, 24), (4, 3)),
    "ConvNeXt": Case(
        partial(
            hugging_face,
            "ConvNext",
            num_stages=2,
            hidden_sizes=[8, 12],
            depths=[1, 2],
            num_labels=CLASSES,
        ),
        "convnext.encoder.stages.1.layers.0",
        (3, 32, 24),
        (4, 3),
    ),
    "MobileNetV2": Case(
        partial(hugging_face, "MobileNetV2", depth_multiplier=0.25, num_labels=CLASSES),
        "mobilenet_v2.layer.12",
        (3, 64, 96),
        (2, 3),
    ),
    "ViT": Case(VIT, "vit.layers.0", (3, 16, 24), (4, 6)),
    "ViT, fused attention": Case(
        partial(VIT, attn_implementation="sdpa"), "vit.layers.0", (3, 16, 24), (4, 6)
    ),
    "ViT, a norm inside": Case(VIT, "vit.layers.1.layernorm_before", (3, 16, 24), (4, 6)),
    "DeiT": Case(
        partial(hugging_face, "DeiT", image_size=16, patch_size=4, **TRANSFORMER),
        "deit.layers.0",
        (3, 16, 16),
        (4, 4),
    ),
    "Swin": Case(
        partial(
            hugging_face,
            "Swin",
            image_size=32,
            patch_size=2,
            embed_dim=8,
            depths=[1, 2],
            num_heads=[2, 2],
            window_size=4,
            num_labels=CLASSES,
        ),
        "swin.encoder.layers.1.blocks.0",
        (3, 32, 32),
        (8, 8),
    ),
    "VideoMAE": Case(
        partial(
            hugging_face,
            "VideoMAE",
            "ForVideoClassification",
            image_size=16,
            patch_size=4,
            num_frames=4,
            tubelet_size=2,
            **TRANSFORMER,
        ),
        "videomae.encoder.layer.0",
        (4, 3, 16, 16),
        (2, 4, 4),
        space=3,
    ),
    "Wav2Vec2": Case(
        partial(
            hugging_face,
            "Wav2Vec2",
            "ForSequenceClassification",
            conv_dim=(8, 12),
            conv_stride=(4, 2),
            conv_kernel=(8, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            **TRANSFORMER,
        ),
        "wav2vec2.encoder.layers.0",
        (400,),
        (49,),
        space=1,
        lay=ifa.tokens(0, (49,)),
    ),
    "SegFormer": Case(
        partial(
            hugging_face,
            "Segformer",
            "ForSemanticSegmentation",
            num_encoder_blocks=3,
            depths=[1, 1, 1],
            sr_ratios=[4, 2, 1],
            hidden_sizes=[8, 12, 16],
            patch_sizes=[7, 3, 3],
            strides=[4, 2, 2],
            num_attention_heads=[1, 2, 2],
            mlp_ratios=[2, 2, 2],
            decoder_hidden_size=16,
            num_labels=CLASSES,
        ),
        "segformer.stages.2",
        (3, 32, 48),
        (2, 3),
        score=ifa.score.region(mask=MASK[:8, :12]),  # at the space of its logits
    ),
    "sleep staging": Case(Sleep, "join", (1, 200), (24,), space=1),
    "3-D": Case(Volume, "act", (2, 3, 9, 8), (5, 7, 6), space=3),
    "U-Net": Case(UNet, "bottom", (2, 16, 24), (4, 6), score=ifa.score.region(mask=MASK)),
    "U-Net, encoder": Case(
        UNet, "down2.0", (2, 16, 24), (8, 12), score=ifa.score.region(mask=MASK)
    ),
    "two scans": Case(TwoScans, "conv2", (2, 12, 9), (8, 5)),
    "two scans, in-place layer": Case(TwoScans, "act#2", (2, 12, 9), (8, 5)),
    "several values": Case(
        lambda: nn.Sequential(Sleep(), nn.Linear(CLASSES, CLASSES)),
        "0.coarse.0",
        (1, 200),
        (39,),
        space=1,
    ),
    "DenseNet": Case(DenseNet, "features.1", (2, 12, 9), (10, 7)),
    "DenseNet, last": Case(DenseNet, "features", (2, 12, 9), (10, 7)),
    "a tuple": Case(lambda: Trunk(as_tuple), "body.2", (2, 12, 8), (6, 4)),
    "a dict": Case(lambda: Trunk(as_dict), "body.2.0", (2, 12, 8), (6, 4)),
    "frozen": Case(frozen, "body.2.3", (2, 12, 8), (6, 4)),
    "half under no_grad": Case(lambda: Trunk(alone, True), "body", (2, 12, 8), (6, 4)),
    "float64": Case(lambda: Trunk(alone), "body.2", (2, 12, 8), (6, 4), dtype=torch.float64),
    "bfloat16 autocast": Case(
        lambda: Trunk(alone), "body.2.0", (2, 12, 8), (6, 4), autocast=True, tolerance=0.02
    ),
}


@pytest.fixture(params=list(CASES), scope="module")
def case(request) -> Case:
    if CASES[request.param].build.__class__ is partial:
        pytest.importorskip("transformers")
    return CASES[request.param]


@pytest.fixture(scope="module")
def net(case) -> nn.Module:
    return made(case)


@pytest.fixture(scope="module")
def inputs(case) -> Tensor:
    return batch(case)


def made(case: Case, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = case.build().eval().to(case.dtype)
        for name, buffer in model.named_buffers():
            if "running_var" in name:
                buffer.uniform_(0.5, 2)
            elif "running_mean" in name:
                buffer.normal_(0, 0.3)
    return model


def batch(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, *case.shape, generator=generator).to(case.dtype)


ONE = torch.tensor([2, 0, 4])
MANY = torch.tensor([[2, 0, 4], [1, 1, 0], [3, 4, 4]])


def reference(case: Case, net: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the layer gave, and the gradient there, by a hooked leaf and plain autograd."""
    name, _, wanted = case.layer.partition("#")
    leaves: list[Tensor] = []
    calls: list[None] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        calls.append(None)
        if len(calls) != int(wanted or 1):
            return output
        leaves.append(first_tensor(output).detach().clone().requires_grad_())
        with torch.enable_grad():
            return replace_first_tensor(output, leaves[0].clone())

    handle = net.get_submodule(name).register_forward_hook(hook)
    try:
        with case.context():
            output = pick(net(inputs.clone()))
            scores = torch.func.vmap(case.score)(output, ONE)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(scores.sum(), leaves)
    return leaves[0].detach(), gradient


def tapped(case: Case, net: nn.Module, inputs: Tensor) -> Any:
    return ifa.tap(net, case.layer, inputs[:1], score=case.score, grid=case.lay)


def close(case: Case, one: Tensor, other: Tensor) -> None:
    size = float(other.abs().max())
    torch.testing.assert_close(one, other, rtol=case.tolerance, atol=case.tolerance * size)


def snapshot(net: nn.Module) -> list[Any]:
    state = [(n, id(t), t._version, t.requires_grad, t.grad) for n, t in net.named_parameters()]
    state += [(n, id(t), t._version) for n, t in net.named_buffers()]
    for module in net.modules():
        state.append((module.training, len(module._forward_hooks), len(module._backward_hooks)))
        state.append(sorted(vars(module)))
    return state


def test_is_traced_and_laid_out(case, net, inputs):
    with case.context():
        sites = ifa.trace(net, inputs)
        tap = tapped(case, net, inputs)
    assert case.layer in sites
    assert case.layer in repr(sites)
    assert tap.shapes[0][1:] == case.grid
    assert len(case.grid) == case.space


def test_equals_autograd(case, net, inputs):
    before = snapshot(net)
    with case.context():
        tap = tapped(case, net, inputs)
        features = tap(inputs, ONE)
    assert snapshot(net) == before
    activations, gradients = reference(case, net, inputs)
    lay = tap.grids[0] or (lambda values: values)
    close(case, features.activations, lay(activations))
    close(case, features.gradients, lay(gradients))
    assert features.gradients.any()
    assert features.gradients.dtype == (torch.bfloat16 if case.autocast else case.dtype)


def test_leaves_and_zero_perturbation_agree(case, net, inputs, monkeypatch):
    tap = tapped(case, net, inputs)
    by_leaves = [tap(inputs, target) for target in (ONE, MANY)]
    monkeypatch.setattr("ifa.taps.features.transformed", lambda inputs: True)
    for target, fast in zip((ONE, MANY), by_leaves, strict=True):
        pure = tap(inputs, target)
        assert torch.equal(fast.target, pure.target)
        close(case, fast.activations, pure.activations)
        close(case, fast.gradients, pure.gradients)


def test_a_map_lies_on_the_grid_of_the_layer(case, net, inputs):
    explain = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine, ifa.relu)
    with case.context():
        tap = tapped(case, net, inputs)
        maps = ifa.batched(explain)(tap(inputs, ONE)).values
        several = ifa.batched(explain)(tap(inputs, MANY)).values
    assert maps.shape == (3, *case.grid)
    assert several.shape == (3, 3, *case.grid)
    assert several.isfinite().all()


def test_many_targets_equal_single_ones(case, net, inputs):
    with case.context():
        tap = tapped(case, net, inputs)
        many = tap(inputs, MANY)
        for row, target in enumerate(MANY):
            one = tap(inputs, target)
            close(case, many.activations, one.activations)
            close(case, many.gradients[row], one.gradients)


def test_a_sample_does_not_depend_on_its_batch(case, net, inputs):
    with case.context():
        tap = tapped(case, net, inputs)
        whole = tap(inputs, ONE)
        single = tap(inputs[1:2], ONE[1:2])
    close(case, whole.gradients[1:2], single.gradients)


KINDS = (nn.modules.conv._ConvNd, nn.Linear, nn.LayerNorm)


@contextlib.contextmanager
def counting() -> Iterator[list[str]]:
    """Note the forward passes of everything that has weights."""
    ran: list[str] = []
    kinds = {c for k in KINDS for c in (k, *k.__subclasses__(), *_grandchildren(k))}
    own = {kind: kind.forward for kind in kinds if "forward" in vars(kind)}

    def noting(forward: Any) -> Any:
        def noted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            ran.append(type(module).__name__)
            return forward(module, *args, **kwargs)

        return noted

    for kind, forward in own.items():
        kind.forward = noting(forward)
    try:
        yield ran
    finally:
        for kind, forward in own.items():
            kind.forward = forward


def _grandchildren(kind: type) -> list[type]:
    return [deep for child in kind.__subclasses__() for deep in child.__subclasses__()]


def runs_above(case: Case, net: nn.Module, inputs: Tensor, ran: list[str]) -> list[str]:
    """Return what runs after the layer's call in a plain pass."""
    name, _, wanted = case.layer.partition("#")
    marks: list[int] = []
    handle = net.get_submodule(name).register_forward_hook(lambda *_: marks.append(len(ran)))
    start = len(ran)
    with torch.no_grad():
        net(inputs.clone())
    handle.remove()
    above = ran[marks[int(wanted or 1) - 1] :]
    assert len(ran) - start > len(above)
    return above


def test_nothing_below_a_cut_runs_again(case, net, inputs):
    before = snapshot(net)
    with counting() as ran, case.context():
        split = ifa.cut(net, case.layer, inputs[:1])
        activations, head = split(inputs)
        with torch.no_grad():
            expected = pick(net(inputs.clone()))
        above = runs_above(case, net, inputs, ran)
        ran.clear()
        outputs = head(activations)
        assert ran == above
        assert repr(split).endswith("by replay")
        assert repr(head).startswith(f"head above {case.layer!r}, by replay: ")
        close(case, outputs, expected)
        changed = activations * 0.5 + 0.1
        close(case, head(changed), split.override(split.copy(), inputs, changed))
        assert not torch.equal(head(changed), expected)
    assert snapshot(net) == before


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_head_is_mapped_and_differentiated(case, net, inputs):
    with case.context():
        activations, head = ifa.cut(net, case.layer, inputs[:1])(inputs)
        variants = torch.stack([activations, 0 * activations, activations.flip(0)])
        # torch cannot map batch norm under autocast
        mapped = [] if case.autocast else torch.func.vmap(head)(variants)
        for each, variant in zip(mapped, variants, strict=False):
            close(case, each, head(variant))

        def score(values: Tensor) -> Tensor:
            return torch.func.vmap(case.score)(head(values), ONE).sum()

        gradient = torch.func.grad(score)(activations)
    close(case, gradient, reference(case, net, inputs)[1])


# what only one family has ------------------------------------------------------------------------


def test_scan_directions_have_maps_of_their_own():
    case = CASES["two scans"]
    net, inputs = made(case), batch(case)
    explain = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.hirescam), ifa.combine_blocks(2)))
    tap = ifa.tap(net, "conv1", inputs)
    maps = explain(tap(inputs, ONE)).values
    assert maps.shape == (3, 2, 10, 7)
    without = inputs.clone()
    without[:, 1] += 1  # what the second direction sees
    other = explain(tap(without, ONE)).values
    assert torch.equal(other[:, 0], maps[:, 0])
    assert not torch.equal(other[:, 1], maps[:, 1])


def test_the_predicted_region_of_a_segmentation():
    case = CASES["U-Net"]
    net, inputs = made(case), batch(case)
    with torch.no_grad():
        found = net(inputs).argmax(1)
    target = found.flatten(1).mode(1).values
    features = ifa.tap(net, "bottom", inputs, score=ifa.score.region())(inputs, target)
    for i in range(3):
        mask = found[i] == target[i]
        given = ifa.tap(net, "bottom", inputs, score=ifa.score.region(mask=mask))
        expected = given(inputs[i : i + 1], target[i : i + 1])
        close(case, features.gradients[i : i + 1], expected.gradients)


def test_every_value_of_a_regression_has_a_map():
    case = CASES["several values"]
    net, inputs = made(case), batch(case)
    targets = torch.arange(CLASSES)[:, None].expand(CLASSES, 3)
    explain = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine))
    maps = explain(tapped(case, net, inputs)(inputs, targets))
    assert maps.values.shape == (CLASSES, 3, 39)
    clustered = ifa.cluster(maps.values, [[0, 1], [2, 3, 4]])
    torch.testing.assert_close(clustered[0], maps.values[:2].sum(0))


def test_folds_of_a_cross_validation_in_one_pass():
    case = CASES["ResNet"]
    nets, inputs = [made(case, seed) for seed in range(3)], batch(case)
    params, buffers = torch.func.stack_module_state(nets)
    tap = ifa.tap(nets[0], case.layer, inputs)
    explain = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.layercam), ifa.combine))

    def fold(state: dict[str, Tensor], target: Tensor | None) -> Tensor:
        return explain(tap(inputs, target, state)).values

    for target in (None, ONE, MANY):
        stacked = torch.func.vmap(partial(fold, target=target))({**params, **buffers})
        for each, net in zip(stacked, nets, strict=True):
            alone = ifa.tap(net, case.layer, inputs)(inputs, target)
            close(case, each, explain(alone).values)
    assert not torch.allclose(stacked[0], stacked[1], rtol=0.1)


def explained_in_a_loop(times: int) -> float:
    """Return by how many MiB the process grew, after a tenth of the loop."""
    case = CASES["two scans, in-place layer"]
    net, inputs = made(case), batch(case)
    explain = ifa.batched(ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine, ifa.relu))
    process = psutil.Process()
    before = 0
    for i in range(times):
        if i == times // 10:
            gc.collect()
            before = process.memory_info().rss
        if i % 5 == 0:  # anew, as in a notebook
            tap, split = (make(net, case.layer, inputs) for make in (ifa.tap, ifa.cut))
        explain(tap(inputs + i / times, ONE))
        activations, head = split(inputs)
        head(activations / 2)
    assert not any(module._forward_hooks for module in net.modules())
    return (process.memory_info().rss - before) / 2**20


def test_two_hundred_explanations_do_not_grow_memory():
    assert explained_in_a_loop(200) < 20


@pytest.mark.deep
def test_a_thousand_explanations_do_not_grow_memory():
    assert explained_in_a_loop(1000) < 20
