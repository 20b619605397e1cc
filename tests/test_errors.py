"""The text of every error users meet: where, what was expected, what came, what to do."""

import re
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import ifa

# taps ------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 1)
        self.relu, self.spare = nn.ReLU(), nn.Linear(2, 2)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.head(self.drop(x.mean((2, 3))))


NET, IMAGES = Net().eval(), torch.zeros(3, 2, 7, 5)
LIST = "List every candidate with ifa.trace(model, example)."


def says(error: type[Exception], text: str):
    return pytest.raises(error, match=f"^{re.escape(text)}$")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ("conv3", "which it does not have. Closest: conv2, conv1."),
        ("qqq", "which it does not have. Closest: none."),
        ("relu", "which runs 2 times; name the call you mean: relu#1, relu#2."),
        ("relu#3", "which runs 2 times; name the call you mean: relu#1, relu#2."),
        ("conv1#2", "which runs once; name the call you mean: conv1."),
        (
            "spare",
            "which did not run on the example or did not return a floating tensor with one row "
            "a sample.",
        ),
    ],
)
@pytest.mark.parametrize("where", ["tap", "cut"])
def test_layers(where, layer, reason):
    text = (
        f"ifa.{where}: expected a layer of Net that can be tapped, got {layer!r}, {reason} {LIST}"
    )
    with says(LookupError, text):
        getattr(ifa, where)(NET, layer, IMAGES)


def test_no_layer_with_a_grid():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(70, 4)).eval()
    with says(
        LookupError,
        "ifa.tap: expected a layer whose output has a grid, found none in Sequential. "
        "Name the layer; list them with ifa.trace(model, example).",
    ):
        ifa.tap(flat, None, IMAGES)


def test_layers_given_otherwise():
    with says(
        TypeError,
        "ifa.tap: expected the dotted name of a layer or a module of the model, got int. "
        "List the names with ifa.trace(model, example).",
    ):
        ifa.tap(NET, [1], IMAGES)  # pyright: ignore[reportArgumentType]
    for layers in ([], ["conv1", "conv1#1"]):
        with pytest.raises(ValueError, match=r"^ifa\.tap: expected distinct layers, at least one"):
            ifa.tap(NET, layers, IMAGES)


def test_training_mode():
    for where, build in (
        ("trace", lambda net: ifa.trace(net, IMAGES)),
        ("tap", lambda net: ifa.tap(net, "conv1", IMAGES)),
        ("cut", lambda net: ifa.cut(net, "conv1", IMAGES)),
    ):
        with says(
            ValueError,
            f"ifa.{where}: expected a model in evaluation mode, got 'drop' (Dropout) in training "
            "mode, where samples are random or depend on each other. Call model.eval() first.",
        ):
            build(Net())


def test_batch_statistics():
    net = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)).eval()
    with says(
        ValueError,
        "ifa.trace: expected layers that treat each sample alone, got '0' (BatchNorm2d) without "
        "running statistics: it normalizes with the statistics of the batch. "
        "Build it with track_running_stats=True.",
    ):
        ifa.trace(net, IMAGES)


@pytest.mark.parametrize(
    ("example", "came"),
    [(torch.zeros(7), "(7,)"), (torch.zeros(0, 2, 7, 5), "(0, 2, 7, 5)")],
)
def test_examples(example, came):
    with says(
        ValueError,
        "ifa.trace: expected an example batch (sample, *input) of at least one sample, "
        f"got {came}. Add the batch axis: example[None].",
    ):
        ifa.trace(NET, example)


def test_models_and_scores():
    with says(TypeError, "ifa.trace: expected a torch.nn.Module, got function."):
        ifa.trace(lambda x: x, IMAGES)  # pyright: ignore[reportArgumentType]
    with says(
        TypeError,
        "ifa.tap: expected a score (output, target) -> scalar, got 'logit'. "
        "Take one of ifa.score, e.g. ifa.score.logit.",
    ):
        ifa.tap(NET, "conv1", IMAGES, score="logit")  # pyright: ignore[reportArgumentType]
    with says(
        ValueError,
        "ifa.tap: expected a score (output of one example, target) -> scalar, got shape (4,) "
        "for each example from <lambda>.",
    ):
        ifa.tap(NET, "conv1", IMAGES, score=lambda output, target: output)(IMAGES, 0)


TARGETS = "ifa.tap: expected targets in 0..3, the model's 4 outputs, got "
LENGTH = "ifa.tap: expected target to be an int, (3,) or (target, 3) for 3 inputs, got "


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (4, ValueError, TARGETS + "4."),
        (-1, ValueError, TARGETS + "-1."),
        ([0, 1, 7], ValueError, TARGETS + "7."),
        (torch.tensor([[0, 1, 2], [0, -3, 9]]), ValueError, TARGETS + "-3."),
        ([0, 1], ValueError, LENGTH + "(2,). Give one target for each sample."),
        (torch.zeros(3, 2).long(), ValueError, LENGTH + "(3, 2). Give one target for each sample."),
        (torch.zeros(0, 3).long(), ValueError, LENGTH + "(0, 3). Give one target for each sample."),
        (
            torch.zeros(1, 1, 3).long(),
            ValueError,
            LENGTH + "(1, 1, 3). Give one target for each sample.",
        ),
        (1.0, TypeError, "ifa.tap: expected integer targets, got torch.float32."),
        (torch.zeros(3), TypeError, "ifa.tap: expected integer targets, got torch.float32."),
        (True, TypeError, "ifa.tap: expected integer targets, got torch.bool."),
    ],
)
def test_targets(target, error, text):
    with says(error, text):
        ifa.tap(NET, "conv1", IMAGES)(IMAGES, target)


def test_no_prediction():
    net = nn.Sequential(nn.Conv2d(2, 3, 3)).eval()
    with says(
        ValueError,
        "ifa.tap: expected a target, because the prediction is defined only for outputs "
        "(sample, output), got (3, 3, 5, 3). Give target=, or pick another output with output=.",
    ):
        ifa.tap(net, "0", IMAGES, score=lambda output, target: output.sum())(IMAGES)


def test_inputs():
    tap = ifa.tap(NET, "conv1", IMAGES)
    for inputs in (torch.zeros(3, 2, 5, 7), torch.zeros(2, 7, 5), torch.zeros(0, 2, 7, 5)):
        with says(
            ValueError,
            "ifa.tap: expected inputs (sample, 2, 7, 5) like the example the tap was made with, "
            f"got {tuple(inputs.shape)}. Make another tap for another shape.",
        ):
            tap(inputs, 0)
    with says(
        ValueError,
        "ifa.tap: expected inputs (sample, 2, 7, 5) like the example the tap was made with, got "
        "{0: (3, 2, 7, 5)}. Make another tap for another shape.",
    ):
        tap((torch.zeros(3, 2, 7, 5),), 0)
    with says(
        ValueError,
        "ifa.cut: expected inputs (sample, 2, 7, 5) like the example the cut was made with, got "
        "(3, 2, 5, 7). Make another cut for another shape.",
    ):
        ifa.cut(NET, "conv1", IMAGES)(torch.zeros(3, 2, 5, 7))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            np.zeros((3, 7, 5, 2)),
            TypeError,
            "expected inputs as tensors, got a NumPy array (3, 7, 5, 2). Convert it with "
            "torch.from_numpy, channels before space where the network wants them so.",
        ),
        (
            {"image": IMAGES, "age": np.zeros(3)},
            TypeError,
            "expected inputs as tensors, got a NumPy array (3,) as 'age'. Convert it with "
            "torch.from_numpy, channels before space where the network wants them so.",
        ),
        (
            ["a.png", "b.png"],
            TypeError,
            "expected inputs to be a tensor (sample, *input), a tuple of these for several "
            "arguments, or a mapping, got a list of 2 str. Read files first, e.g. with "
            "ifa.data.read_inputs, and join examples with torch.stack.",
        ),
        (
            "a.png",
            TypeError,
            "expected a batch as a tensor, a tuple or a mapping of tensors, got str.",
        ),
        (
            (IMAGES, object()),
            TypeError,
            "expected inputs as tensors, got object as '1'. Convert it to a tensor.",
        ),
        ({"flag": True}, TypeError, "expected inputs with a tensor, got dict."),
        (
            {"image": torch.zeros(3, 2, 7, 5), "age": torch.zeros(2)},
            ValueError,
            "expected tensors of as many samples each, at least one, as the first axis of all, "
            "got {image: (3, 2, 7, 5), age: (2,)}. "
            "Repeat or expand what is the same for all samples.",
        ),
        (
            (torch.zeros(3, 2, 7, 5), torch.zeros(())),
            ValueError,
            "expected tensors of as many samples each, at least one, as the first axis of all, "
            "got {0: (3, 2, 7, 5), 1: ()}. Repeat or expand what is the same for all samples.",
        ),
    ],
    ids=["array", "array inside", "paths", "path", "object", "no tensor", "samples", "scalar"],
)
def test_inputs_that_are_no_tree_of_tensors(inputs, error, message):
    with says(error, f"ifa.tap: {message}"):
        ifa.tap(NET, "conv1", IMAGES)(inputs, 0)


def test_an_example_that_the_network_does_not_take():
    with says(
        ValueError,
        "ifa.trace: expected an example that Net takes, got (2, 7, 5), at which it fails: "
        "IndexError: Dimension out of range (expected to be in range of [-3, 2], but got 3). The "
        "samples come first, also of one; a tuple is several arguments, a mapping arguments by "
        "name.",
    ):
        ifa.trace(NET, IMAGES[0])
    with says(
        LookupError,
        "ifa.tap: expected grid_of to name a tensor of the inputs, got 'mri' for 0. "
        "Name one of these, or leave it out.",
    ):
        ifa.tap(NET, "conv1", (IMAGES,), grid_of="mri")


def test_params():
    with says(
        LookupError,
        "ifa.tap: expected params named like those of Net, got 'conv1.wieght' and 0 more it does "
        "not have. Take the names of model.named_parameters().",
    ):
        ifa.tap(NET, "conv1", IMAGES)(IMAGES, 0, {"conv1.wieght": torch.zeros(3, 2, 3, 3)})


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.conv, self.value = nn.Conv2d(2, 3, 3), value

    def forward(self, x: Tensor):
        self.conv(x)
        return self.value


@pytest.mark.parametrize(
    ("value", "output", "text"),
    [
        (
            {"a": torch.zeros(3)},
            "logits",
            "ifa.tap: expected output='logits' to be a key or an index of what the model returns, "
            "got dict with ['a']. Name one of these, or give a callable.",
        ),
        (
            (torch.zeros(3),),
            2,
            "ifa.tap: expected output=2 to be a key or an index of what the model returns, got "
            "tuple of ['Tensor']. Name one of these, or give a callable.",
        ),
        (
            [None, "text"],
            None,
            "ifa.tap: expected a model that returns a tensor, got list of ['NoneType', 'str']. Say "
            "with output= how to take one out of it: a callable, a key or an index.",
        ),
    ],
)
def test_outputs(value, output, text):
    with says(LookupError, text):
        ifa.tap(Returns(value).eval(), "conv", IMAGES, output=output)


def test_a_replaced_layer_that_is_gone():
    net = nn.Sequential()
    net.conv, net.flat, net.linear = nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(45, 4)
    tap = ifa.tap(net.eval(), "conv", IMAGES)
    del net.conv
    for _ in range(2):  # an error must not leave an outdated replica behind
        with says(
            LookupError,
            "ifa.tap: expected Sequential to have 'conv' still, as when it was traced, got a "
            "model without it. Make anew what was made of it then.",
        ):
            tap(IMAGES, 0)


def test_a_cut_whose_layer_is_gone_says_its_own_name():
    net = nn.Sequential()
    net.conv, net.flat, net.linear = nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(45, 4)
    cut = ifa.cut(net.eval(), "conv", IMAGES)
    del net.conv
    with pytest.raises(LookupError, match=r"^ifa\.cut: expected Sequential to have 'conv' still"):
        cut(IMAGES)


def test_grids():
    with says(ValueError, "ifa.tokens: expected prefix >= 0 and a positive grid, got 1, (0, 3)."):
        ifa.tokens(1, (0, 3))
    with says(
        ValueError,
        "ifa.tokens: expected (sample, 7, channel) for 1 prefix tokens and a grid of (2, 3), got "
        "(4, 8, 5). Change prefix or grid so that they add up.",
    ):
        ifa.tokens(1, (2, 3))(torch.zeros(4, 8, 5))


def test_a_model_rebuilt_with_dropout_in_training_mode():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(45, 4)).eval()
    tap = ifa.tap(net, "0", IMAGES)
    net.append(nn.Dropout(0.5))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"'3' \(Dropout\) in training mode"):
            tap(IMAGES, 0)


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Above(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.conv, self.how = nn.Conv2d(2, 4, 3), how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    "how",
    [OldStyle.apply, lambda x: checkpoint(torch.tanh, x, use_reentrant=False)],
    ids=["old-style Function", "checkpoint"],
)
def test_what_torch_func_refuses(how):
    tap = ifa.tap(Above(how).eval(), "conv", IMAGES)
    assert tap(IMAGES, 0).gradients.any()
    with says(
        RuntimeError,
        "ifa.tap: expected a model that torch.func can differentiate above the layer, got one with "
        "activation checkpointing or an old-style autograd Function there. Switch checkpointing "
        "off, give the Function a setup_context, or tap a layer above it.",
    ):
        torch.func.vjp(lambda images: tap(images, 0).gradients, IMAGES)


class Within(nn.Module):
    """The layer is inside of what is checkpointed, and there is a way around it."""

    def __init__(self, reentrant):
        super().__init__()
        self.conv, self.reentrant = nn.Conv2d(2, 2, 3, padding=1), reentrant

    def forward(self, x: Tensor) -> Tensor:
        inside = checkpoint(lambda x: self.conv(x).tanh(), x, use_reentrant=self.reentrant)
        return (x + inside).mean((2, 3))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize(
    ("model", "says_so"),
    [
        (Above(lambda x: checkpoint(torch.tanh, x, use_reentrant=True)), "does not forget"),
        (Within(False), "does not forget"),
        (Within(True), "torch.func can differentiate"),
    ],
    ids=["reentrant above", "around", "reentrant around"],
)
def test_checkpointing_that_would_lose_the_layer(model, says_so):
    tap = ifa.tap(model.eval(), "conv", IMAGES)
    with pytest.raises(RuntimeError, match=f"ifa.tap: expected a model that {says_so}"):
        tap(IMAGES, 0)


def test_a_layer_of_another_shape():
    with says(
        ValueError,
        "ifa.tap: expected the same output of layer 'conv1' as on the example, whatever the "
        "inputs, got one of shape (3, 1, 5, 3). Make another tap, or tap a layer that always runs "
        "alike.",
    ):
        params = {"conv1.weight": torch.ones(1, 2, 3, 3), "conv1.bias": torch.ones(1)}
        ifa.tap(NET, "conv1", IMAGES)(IMAGES, 0, params)


# chains and stages -----------------------------------------------------------------------------

TARGET = torch.tensor(1)
FEATURES = ifa.Features(torch.ones(3, 2, 4), torch.ones(3, 2, 4), TARGET)
WEIGHTED = ifa.Weighted(torch.ones(3), torch.ones(3, 2, 4), TARGET)
MAP = ifa.Map(torch.ones(2, 4), TARGET)


def test_steps_that_cannot_be_called():
    with says(
        TypeError,
        "ifa.chain: expected steps that can be called, got 3 (int) at position 1. "
        "A step is a function of one argument, e.g. ifa.weigh(ifa.weight.gradcam).",
    ):
        ifa.chain(ifa.relu, 3)  # pyright: ignore[reportArgumentType]
    with says(TypeError, "ifa.batched: expected a step that can be called, got 'relu'."):
        ifa.batched("relu")  # pyright: ignore[reportArgumentType]
    with says(
        TypeError,
        "ifa.weigh: expected a kernel (activations, gradients) -> weights, got 'gradcam'. "
        "Take one of ifa.weight, e.g. ifa.weight.gradcam.",
    ):
        ifa.weigh("gradcam")


@pytest.mark.parametrize(
    ("record", "came"), [(MAP, "Map with target ()"), (torch.ones(2, 4), "Tensor with target None")]
)
def test_batched_needs_a_batch(record, came):
    with says(
        TypeError,
        "ifa.batched: expected a record (Features, Weighted or Map) whose target is (sample,) or "
        f"(target, sample), got {came}. For one example call the step itself.",
    ):
        ifa.batched(ifa.relu)(record)


SCALE = ifa.Scale(torch.tensor(0.0), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("step", "record", "text"),
    [
        (ifa.weigh(ifa.weight.gradcam), MAP, "ifa.weigh: expected Features, got Map. Give it what"),
        (
            ifa.keep([True]),
            FEATURES,
            "ifa.keep: expected Weighted, got Features. Put ifa.weigh(...)",
        ),
        (ifa.combine, FEATURES, "ifa.combine: expected Weighted, got Features. Put ifa.weigh(...)"),
        (
            ifa.combine_blocks(1),
            MAP,
            "ifa.combine_blocks: expected Weighted, got Map. Put ifa.weigh",
        ),
        (ifa.relu, WEIGHTED, "ifa.relu: expected Map, got Weighted. Put ifa.combine before it."),
        (ifa.clip(0, 1), WEIGHTED, "ifa.clip: expected Map, got Weighted. Put ifa.combine before"),
        (ifa.rescale(SCALE), WEIGHTED, "ifa.rescale: expected Map, got Weighted. Put ifa.combine"),
        (ifa.unscale(SCALE), WEIGHTED, "ifa.unscale: expected Map, got Weighted. Put ifa.rescale"),
        (
            ifa.minmax,
            FEATURES,
            "ifa.minmax: expected Map, got Features. Put ifa.combine before it.",
        ),
        (ifa.resize((2, 2)), WEIGHTED, "ifa.resize: expected Map, got Weighted. Put ifa.combine"),
    ],
)
def test_a_record_of_the_wrong_kind(step, record, text):
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        step(record)


BATCH = (torch.ones(5, 3, 2, 4), torch.ones(5, 3, 2, 4), torch.ones(5, dtype=torch.int64))
MAPS = ifa.Map(torch.ones(5, 2, 4), BATCH[2])
CAM = ifa.weight.cam(nn.Sequential(nn.Conv1d(1, 3, 1), nn.Flatten(), nn.Linear(3, 2)))


@pytest.mark.parametrize(
    ("where", "step", "record"),
    [
        ("ifa.weigh", ifa.weigh(ifa.weight.gradcam), ifa.Features(*BATCH)),
        ("ifa.weight.cam", CAM, ifa.Features(*BATCH)),
        ("ifa.keep", ifa.keep(torch.ones(3)), ifa.Weighted(*BATCH)),
        ("ifa.combine", ifa.combine, ifa.Weighted(*BATCH)),
        ("ifa.combine_blocks", ifa.combine_blocks(3), ifa.Weighted(*BATCH)),
        ("ifa.combine_principal", ifa.combine_principal, ifa.Weighted(*BATCH)),
        ("ifa.saturate", ifa.saturate(), MAPS),
        ("ifa.fuse", ifa.fuse, (MAPS, MAPS)),
        ("ifa.minmax", ifa.minmax, MAPS),
        ("ifa.relu", ifa.chain(ifa.relu, ifa.minmax), MAPS),
    ],
)
@pytest.mark.parametrize("targets", [(5,), (2, 5)], ids=str)
def test_a_step_on_a_batch(where, step, record, targets):
    of = torch.ones(targets, dtype=torch.int64)
    several = where == "ifa.fuse"
    given = tuple(one._replace(target=of) for one in record) if several else record
    given = given if several else given._replace(target=of)
    kind = type(record[0] if several else record).__name__
    with says(
        ValueError,
        f"{where}: expected {kind} of one example, got a batch with targets {targets}. Lift the "
        "chain over samples: ifa.batched(chain)(features).",
    ):
        step(given)


# what is not what it seems: a function that was to be called, a record's neighbor, a name ---------


def kernel_of_one(features):
    return features


def kernel_of_a_network(model, layer, example, *, score, grid, output):
    return model


EXPLAIN, NUMBERS = partial(ifa.explain, NET, IMAGES, 0, layer="conv1"), "DataArray of numbers, got "
UNDECLARED = (
    "to be a kernel (activations, gradients) -> weights, as it is not declared, got {}, which "
    "takes other arguments. Declare a function Features -> Weighted with @ifa.step, one that "
    "takes the network with @ifa.builder; bind options with functools.partial."
)
SCORECAM = ifa.perturb.scorecam(NET, "conv1", IMAGES)
FUSED = "ifa.fuse: expected Map, got {}. Give maps as ifa.combine makes them."
SCALED = (
    "expected a Scale, got {}. Read one with ifa.scale_from(statistics), or make it: "
    "ifa.Scale(low, high). To scale each map by itself put ifa.minmax into the chain as it is."
)
GRIDDED = (
    "ifa.tap: expected grid to lay out (sample, ...) as (sample, channel, *space), got {}. Call "
    "what makes one: grid=ifa.channels_last(), grid=ifa.tokens(prefix, space)."
)
OWN_SCALE = (
    "ifa.explain: expected scale to be a Scale, statistics or the folder of a run, got {}. Make "
    "one by hand: ifa.Scale(low, high)."
)
NOT_A_LAYER = "expected one layer's dataset, or a tree with one layer, got {}. Take a layer: stat"
REFERENCES = (
    "ifa.score.contrast: expected distinct indices of outputs as references, got {}. Where "
)
GAMMA = "expected gamma to be finite and not negative, got {}."

MISTAKES = {
    "weight is a name": (
        lambda: EXPLAIN(weight="gradcam"),
        "ifa.explain: expected weight to be a kernel of ifa.weight, a step or a builder of "
        "ifa.perturb, got 'gradcam'. For a method by name: ifa.weight.gradcam.",
    ),
    "weight is a step that is not declared": (
        lambda: EXPLAIN(weight=kernel_of_one),
        f"ifa.explain: expected weight {UNDECLARED.format('kernel_of_one')}",
    ),
    "weight is a builder that is not declared": (
        lambda: EXPLAIN(weight=kernel_of_a_network),
        f"ifa.explain: expected weight {UNDECLARED.format('kernel_of_a_network')}",
    ),
    "weigh(step that is not declared)": (
        lambda: ifa.weigh(kernel_of_one),
        f"ifa.weigh: expected kernel {UNDECLARED.format('kernel_of_one')}",
    ),
    "weight is a builder that was called": (
        lambda: EXPLAIN(weight=SCORECAM),
        f"ifa.explain: expected weight to be a builder, got {SCORECAM!r}, which has its network "
        "already. Give the builder itself, its options bound with functools.partial.",
    ),
    "weigh(cam(net))": (
        lambda: ifa.weigh(CAM),
        "ifa.weigh: expected a kernel (activations, gradients) -> weights, got the step "
        "cam(matrix=float32(2, 3)). It weighs already: put it in the chain as it is.",
    ),
    "kernel returns two": (
        lambda: ifa.weigh(lambda a, g: (a, g))(FEATURES),
        "ifa.weigh: expected weights of shape (3,) or (3, 2, 4), got tuple from <lambda>. A kern",
    ),
    "kernel returns an array": (
        lambda: ifa.weigh(lambda a, g: a.numpy())(FEATURES),
        "ifa.weigh: expected weights of shape (3,) or (3, 2, 4), got ndarray from <lambda>. A ke",
    ),
    "rescale(minmax)": (lambda: ifa.rescale(ifa.minmax), f"ifa.rescale: {SCALED.format('minmax')}"),
    "rescale(number)": (lambda: ifa.rescale(1.0), f"ifa.rescale: {SCALED.format('float')}"),
    "unscale(name)": (lambda: ifa.unscale("affine"), f"ifa.unscale: {SCALED.format('str')}"),
    "rescale(statistics)": (
        lambda: ifa.rescale(xr.Dataset()),
        f"ifa.rescale: {SCALED.format('Dataset')}",
    ),
    "scale is a pair": (lambda: EXPLAIN(scale=(0, 1)), OWN_SCALE.format("tuple")),
    "scale is a tensor": (lambda: EXPLAIN(scale=torch.ones(2)), OWN_SCALE.format("Tensor")),
    "scale is a run that is not there": (
        lambda: EXPLAIN(scale="nowhere"),
        "ifa.open: expected a run at nowhere, got nothing there. Give the folder that was store=",
    ),
    "scale_from(tensor)": (
        lambda: ifa.scale_from(torch.ones(3)),
        f"ifa.scale_from: {NOT_A_LAYER.format('Tensor')}",
    ),
    "scale_from(None)": (
        lambda: ifa.scale_from(None),
        f"ifa.scale_from: {NOT_A_LAYER.format('NoneType')}",
    ),
    "scale_from(samples)": (
        lambda: ifa.scale_from(xr.Dataset({"map_max": ("sample", [1.0])})),
        f"ifa.scale_from: {NOT_A_LAYER.format('a table of samples')}",
    ),
    "difference(tensor)": (
        lambda: ifa.difference(torch.ones(3)),
        f"ifa.difference: {NOT_A_LAYER.format('Tensor')}",
    ),
    "keep(rule)": (
        lambda: ifa.keep(ifa.select.largest),
        f"ifa.keep: expected a mask as a tensor, array or {NUMBERS}largest. Call it first.",
    ),
    "keep(None)": (
        lambda: ifa.keep(None),
        f"ifa.keep: expected a mask as a tensor, array or {NUMBERS}NoneType. Take one of its var",
    ),
    "mask is a rule": (
        lambda: EXPLAIN(mask=ifa.select.largest),
        f"ifa.keep: expected a mask as a tensor, array or {NUMBERS}largest. Call it first.",
    ),
    "select of a tree": (
        lambda: ifa.select.largest(xr.DataTree(), ratio=0.1),
        f"ifa.select.largest: expected values as a tensor, array or {NUMBERS}DataTree. Take one",
    ),
    "masking with a name": (
        lambda: ifa.evaluate.feature_perturbation(NET, "conv1", IMAGES, "largest"),
        f"ifa.evaluate.feature_perturbation: expected a mask as a tensor, array or {NUMBERS}str.",
    ),
    "grid was not called": (
        lambda: EXPLAIN(grid=ifa.channels_last),
        GRIDDED.format("channels_last"),
    ),
    "grid is a size": (lambda: EXPLAIN(grid=(5, 3)), GRIDDED.format("(5, 3)")),
    "grid was not called, of tokens": (
        lambda: EXPLAIN(grid=ifa.tokens),
        "ifa.tokens: expected a number of prefix tokens, got Tensor. It makes what grid= takes: "
        "call it, grid=ifa.tokens(1, (14, 14)).",
    ),
    "fuse(tensors)": (lambda: ifa.fuse([torch.ones(3, 3)]), FUSED.format("Tensor")),  # pyright: ignore
    "fuse(tensor)": (lambda: ifa.fuse(torch.ones(3, 3)), FUSED.format("Tensor")),  # pyright: ignore
    "fuse(map)": (lambda: ifa.fuse(MAP), FUSED.format("Tensor")),  # pyright: ignore
    "fuse(weighted)": (lambda: ifa.fuse([WEIGHTED]), FUSED.format("Weighted")),  # pyright: ignore
    "score was not called": (
        lambda: EXPLAIN(score=ifa.score.contrast),
        "ifa.tap: expected a score (output, target) -> scalar, got contrast, which takes other "
        "arguments. If it makes a score call it: ifa.score.contrast().",
    ),
    "references of each sample": (
        lambda: ifa.score.contrast(references=[1, 2, 1]),
        REFERENCES.format([1, 2, 1]),
    ),
    "references in rows": (
        lambda: ifa.score.contrast(references=[[1], [2]]),  # pyright: ignore
        REFERENCES.format([[1], [2]]),
    ),
    "references between outputs": (
        lambda: ifa.score.contrast(references=[0.5]),  # pyright: ignore
        REFERENCES.format([0.5]),
    ),
    **{
        f"contrast(gamma={gamma!r})": (
            partial(ifa.score.contrast, gamma=gamma),
            f"ifa.score.contrast: {GAMMA.format(repr(gamma))}",
        )
        for gamma in (float("nan"), float("inf"), -1.0, "much", None)
    },
    "saturate(gamma=nan)": (
        lambda: ifa.saturate(gamma=float("nan")),
        f"ifa.saturate: {GAMMA.format('nan')}",
    ),
    "gallery of a tensor": (
        lambda: ifa.plot.gallery(IMAGES, torch.ones(3, 7, 5)),  # pyright: ignore
        "ifa.plot.gallery: expected a mapping of names to maps, one for each of 3 images, got "
        "Tensor. Name the kind: {'fullcam': maps}.",
    ),
    "gallery of fewer maps": (
        lambda: ifa.plot.gallery(IMAGES, {"fullcam": torch.ones(2, 7, 5)}),
        "ifa.plot.gallery: expected a mapping of names to maps, one for each of 3 images, got [2]",
    ),
    "gallery of no maps": (
        lambda: ifa.plot.gallery(IMAGES, {}),
        "ifa.plot.gallery: expected a mapping of names to maps, one for each of 3 images, got 0 ",
    ),
    "a kernel is no method of a table": (
        lambda: ifa.contest.table(
            NET, [(IMAGES[0], 0)], {"a": ifa.weight.gradcam}, {"b": ifa.evaluate.confidence}
        ),
        "ifa.contest.table: expected method 'a' to be (model, inputs, target) -> maps, got <func",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_ordinary_mistakes(mistake):
    call, text = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(text)}"):
        call()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of zero inputs; what counts is what is taken
@pytest.mark.parametrize(
    "options",
    [
        {"layer": NET.conv1},
        {"weight": ifa.perturb.scorecam},
        {"weight": ifa.weigh(ifa.weight.gradcam)},
        {"inputs": (IMAGES,)},
    ],
    ids=["module", "builder", "step", "tuple"],
)
def test_what_is_taken_as_it_looks(options):
    options = {"inputs": IMAGES, "layer": "conv1", "target": 0, **options}
    assert ifa.explain(NET, **options).shape == (3, 7, 5)


@pytest.mark.parametrize("name", ["eigencam", "eigengradcam"])
def test_a_sample_that_is_not_finite_does_not_spoil_its_neighbors(name):
    torch.manual_seed(0)
    images = torch.randn(3, 2, 7, 5)
    options = {"layer": "conv1", "weight": getattr(ifa.weight, name), "rectify": False}
    want = ifa.explain(NET, images, 0, **options)
    for bad in (torch.nan, torch.inf):
        spoiled = images.clone()
        spoiled[1, 0, 3, 2] = bad
        found = ifa.explain(NET, spoiled, 0, **options)
        assert found[1].isnan().all()
        torch.testing.assert_close(found[::2], want[::2])


def test_masks():
    with says(
        ValueError,
        "ifa.keep: expected a mask for the layer's 3 channels, got one for 4. "
        "Select from the importance of this very layer.",
    ):
        ifa.keep(torch.ones(5, 4))(WEIGHTED)
    with says(
        ValueError,
        "ifa.keep: expected a mask of shape (channel,) or (target, channel), got (1, 2, 3). "
        "Make one with ifa.select.",
    ):
        ifa.keep(torch.ones(1, 2, 3))
    with says(
        IndexError,
        "ifa.keep: expected targets below 1, the number of rows given, got a larger or negative "
        "one. Give one row for every output of the model.",
    ):
        ifa.keep(torch.ones(1, 3))(WEIGHTED)


def test_weights_of_another_shape():
    def wrong(activations: Tensor, gradients: Tensor) -> Tensor:
        return gradients.mean((0, 1))

    with says(
        ValueError,
        "ifa.weigh: expected weights of shape (3,) or (3, 2, 4), got (4,) from wrong. "
        "A kernel sees one example; lift the chain with ifa.batched.",
    ):
        ifa.weigh(wrong)(FEATURES)


def test_groups_and_limits():
    with says(
        ValueError,
        "ifa.combine_blocks: expected channels divisible by 2 blocks, got 3. "
        "Use a number of blocks that the layer was built with.",
    ):
        ifa.combine_blocks(2)(WEIGHTED)
    with says(ValueError, "ifa.combine_blocks: expected a positive number of blocks, got 0."):
        ifa.combine_blocks(0)
    with says(ValueError, "ifa.clip: expected low <= high, got 1 and 0."):
        ifa.clip(1, 0)


# score -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logit", "log_probability"])
def test_scores_of_maps(name):
    with says(
        ValueError,
        f"ifa.score.{name}: expected an output of shape (output,) for each example, got (4, 2). "
        "Pick the tensor with output=, or give a callable (output of one example, target) -> "
        "scalar as score.",
    ):
        getattr(ifa.score, name)(torch.zeros(4, 2), TARGET)


# select ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["largest", "largest_absolute", "smallest_absolute", "random"])
def test_ratios(name, ratio):
    more = {"seed": 0} if name == "random" else {}
    with says(ValueError, f"ifa.select.{name}: expected a ratio in [0, 1], got {ratio}."):
        getattr(ifa.select, name)(torch.ones(4), ratio=ratio, **more)


ADVICE = (
    "A target without an accepted sample has no importance: leave it out, or give it "
    "ifa.select.every."
)


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        (torch.tensor([1.0, torch.nan]), "the values"),
        (torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [0.0, torch.nan]]), "row 1, row 2"),
        (np.array([[1.0, np.nan], [0.0, 0.0]]), "row 0"),
        (
            xr.DataArray(
                [[1.0, 2.0], [np.nan, 0.0]],
                {"target": [3, 8], "target_name": ("target", ["cat", "dog"])},
                ("target", "channel"),
            ),
            "row 8 (dog)",
        ),
    ],
)
def test_rows_with_nan_are_named(values, rows):
    with says(ValueError, f"ifa.select.strongest: expected numbers, got NaN in {rows}. {ADVICE}"):
        ifa.select.strongest(values)


def test_values_and_indices():
    with says(
        ValueError,
        "ifa.select.every: expected values of shape (channel,) or (target, channel), "
        "got (1, 2, 3).",
    ):
        ifa.select.every(torch.ones(1, 2, 3))
    with says(IndexError, "ifa.select.only: expected an index in 0..2, got 3."):
        ifa.select.only(torch.ones(3), index=3)


# scaling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["rescale", "unscale"])
def test_scales(step):
    make = getattr(ifa, step)
    with says(
        ValueError,
        f"ifa.{step}: expected low < high, got 2.0 and 2.0. A range without width has no scale.",
    ):
        make(ifa.Scale(torch.tensor(2.0), torch.tensor(2.0)))
    with says(
        ValueError,
        f"ifa.{step}: expected low < high, got 2.0 and 1.0 for target 1. "
        "A range without width has no scale.",
    ):
        make(ifa.Scale(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0])))
    with says(
        ValueError,
        f"ifa.{step}: expected limits of one shape, () or (target,), got () and (2,).",
    ):
        make(ifa.Scale(torch.tensor(0.0), torch.ones(2)))
    with says(ValueError, f"ifa.{step}: expected how to be 'affine' or 'tanh', got 'log'."):
        make(SCALE, "log")
    for widen in (0, -1, float("nan")):
        with says(ValueError, f"ifa.{step}: expected widen > 0, got {widen}."):
            make(SCALE, widen=widen)
    with says(
        IndexError,
        f"ifa.{step}: expected targets below 1, the number of rows given, got a larger or negative "
        "one. Give one row for every output of the model.",
    ):
        make(ifa.Scale(torch.zeros(1), torch.ones(1)))(MAP)


def test_quantiles():
    statistics = xr.Dataset(
        {"map_max_overall": ("quantile", [1.0, 3.0]), "map_min_overall": ("quantile", [-2.0, 0.0])},
        {"quantile": [0.5, 0.9]},
    )
    with says(
        LookupError,
        "ifa.scale_from: expected one of the stored quantiles [0.5, 0.9], got 0.75. "
        "Analyze again with quantiles=(..., 0.75).",
    ):
        ifa.scale_from(statistics, upper=0.75)
    with says(
        ValueError,
        "ifa.scale_from: expected over to be 'all', 'target' or 'widest', got 'some'.",
    ):
        ifa.scale_from(statistics, over="some")  # pyright: ignore[reportArgumentType]


# resizing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(), (4, 0), (1, 2, 3, 4)])
def test_sizes(size):
    with says(ValueError, f"ifa.resize: expected one to three positive extents, got {size}."):
        ifa.resize(size)


def test_maps_of_another_rank():
    with says(
        ValueError,
        "ifa.resize: expected a map with 3 space axes for size (2, 3, 4), got (2, 4).",
    ):
        ifa.resize((2, 3, 4))(MAP)
    with says(ValueError, "ifa.resize: expected mode 'linear' or 'nearest', got 'cubic'."):
        ifa.resize((2, 2), mode="cubic")
