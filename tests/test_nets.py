"""The network and the data that ship with the library, and models by reference."""

import hashlib
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ifa


@pytest.fixture(scope="module")
def trained():
    return ifa.nets.train_digits(epochs=2)


def test_the_split_is_fixed_stratified_and_disjoint():
    train, held_out, whole = (ifa.nets.digits(name) for name in ("train", "held-out", "all"))
    assert (len(train), len(held_out), len(whole)) == (898, 899, 1797)
    ids = [[name for *_, name in part] for part in (train, held_out, whole)]
    assert not {*ids[0]} & {*ids[1]}
    assert {*ids[0], *ids[1]} == {*ids[2]}
    counts = [Counter(label for _, label, _ in part) for part in (train, held_out)]
    assert all(abs(counts[0][digit] - counts[1][digit]) <= 1 for digit in range(10))
    assert [name for *_, name in ifa.nets.digits("train")] == ids[0]
    # of this very split all published numbers are
    assert hashlib.sha256(" ".join(ids[1]).encode()).hexdigest().startswith("7a6c506a597904f3")
    image, label, _ = held_out[0]
    assert image.shape == (1, 8, 8)
    assert image.dtype == torch.float32
    assert isinstance(label, int)
    assert 0 <= image.min() <= image.max() <= 1


def test_the_ids_are_positions_in_scikit_learns_set():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for image, label, name in ifa.nets.digits()[::97]:
        position = int(name.removeprefix("digit-"))
        assert label == labels[position]
        np.testing.assert_array_equal(image.reshape(-1) * 16, pixels[position])


@pytest.mark.parametrize("load", [ifa.nets.digits, ifa.nets.faces, ifa.nets.simulated])
def test_data_pickle_as_small_as_they_are(load):
    data = load(2) if load is ifa.nets.simulated else load("held-out")
    size = sum(values.nbytes for values, _, _ in data)
    assert len(pickle.dumps(data)) < size + 500 * len(data)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"ifa\.nets\.digits: expected 'train', 'held-out' or 'al"):
        ifa.nets.digits("test")


def test_training_is_seeded_and_leaves_random_state_alone(trained):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    reported = []
    again = ifa.nets.train_digits(epochs=2, progress=lambda *report: reported.append(report))
    assert reported == [(1, 2), (2, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == before_numpy  # noqa: NPY002
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=1e-4, atol=1e-5)
    other = ifa.nets.train_digits(epochs=1, seed=1).state_dict()
    assert not torch.equal(other["head.weight"], trained.state_dict()["head.weight"])
    assert not trained.training
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_two_epochs_learn_something(trained):
    images = torch.stack([image for image, *_ in ifa.nets.digits()])
    labels = torch.tensor([label for _, label, _ in ifa.nets.digits()])
    assert (trained(images).argmax(1) == labels).float().mean() > 0.5


@pytest.mark.parametrize("kernel", ["fullcam", "gradcam"])
def test_a_map_sums_to_the_logit_less_its_bias(kernel, trained):
    images = torch.stack([image for image, *_ in ifa.nets.digits()[:40]])
    target = torch.arange(10)[:, None].expand(-1, 40)
    explain = ifa.batched(ifa.chain(ifa.weigh(getattr(ifa.weight, kernel)), ifa.combine))
    maps = explain(ifa.tap(trained, "conv3", images[:1])(images, target)).values
    want = (trained(images) - trained.head.bias).T
    torch.testing.assert_close(maps.sum((-2, -1)), want, rtol=1e-4, atol=1e-4)


# Models by reference


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_reference_loads_weights(suffix, trained, tmp_path):
    path = tmp_path / f"weights{suffix}"
    state = {name: value.contiguous() for name, value in trained.state_dict().items()}
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    model = ifa.ModelRef("ifa.nets:digits_cnn", weights=str(path)).load()
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])


def test_a_reference_is_analyzed_like_the_model_itself(trained, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path)
    data = ifa.nets.digits()[:30]
    reference = ifa.ModelRef("ifa.nets:digits_cnn", weights=str(path))
    by_reference = ifa.analyze(reference, data, layer="conv3", progress=False)
    directly = ifa.analyze(trained, data, layer="conv3", progress=False)
    assert by_reference["conv3"].to_dataset().identical(directly["conv3"].to_dataset())
    assert by_reference.attrs == directly.attrs


def test_a_reference_without_weights_keeps_what_the_factory_returns():
    reference = ifa.ModelRef("torch.nn:Linear", config={"in_features": 2, "out_features": 3})
    assert reference.load().weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("factory", "error", "text"),
    [
        ("ifa.nets", ValueError, "'package.module:name' or .*, got 'ifa.nets'"),
        (":digits_cnn", ValueError, "expected 'package.module:name'"),
        ("no.such:thing", LookupError, "a module that can be imported, got 'no.such'"),
        ("ifa.nets:digit_cnn", LookupError, "expected 'ifa.nets' to define 'digit_cnn'"),
        ("ifa.nets:digits", TypeError, "to return a torch.nn.Module, got list"),
        ("ifa.nets:__all__", TypeError, "expected 'ifa.nets:__all__' to be callable, got list"),
    ],
)
def test_a_reference_that_leads_nowhere(factory, error, text):
    with pytest.raises(error, match=f"ifa.ModelRef: .*{text}"):
        ifa.ModelRef(factory).load()


class Evil:
    """Stands for a pickle that runs code when it is read."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"weight": Evil()}, "could not be read"),
        ({"weight": torch.zeros(5, 2)}, "do not fit"),
        ({"wight": torch.zeros(3, 2), "bias": torch.zeros(3)}, "wight"),
        (torch.zeros(3), "a state dictionary, got Tensor"),
        (
            {"epoch": 3, "state_dict": {}},
            "a mapping without tensors, of 'epoch'",
        ),
    ],
    ids=["code", "shape", "name", "tensor", "checkpoint"],
)
def test_weights_that_do_not_fit_or_run_code_are_refused(content, text, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    config = {"in_features": 2, "out_features": 3}
    with pytest.raises(ValueError, match=r"ifa\.ModelRef: expected") as caught:
        ifa.ModelRef("torch.nn:Linear", weights=str(path), config=config).load()
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(100)])
def test_spoiled_weights_are_refused(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"ifa\.ModelRef: expected .* could not be read"):
        ifa.ModelRef("ifa.nets:digits_cnn", weights=str(path)).load()


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ifa\.ModelRef: expected a file of weights, got"):
        ifa.ModelRef("ifa.nets:digits_cnn", weights=str(tmp_path / "none.pt")).load()


@pytest.mark.parametrize("space", [(20,), (9, 11), (6, 7, 8)], ids=len)
def test_marks_are_where_it_says(space):
    marks = torch.full((2, 3, *[4] * len(space)), 5.0)
    amounts = torch.tensor([[1, 0], [0, 0], [0.5, 2], [0, 1]])
    inputs, where = ifa.nets.marked(marks, amounts, space, noise=0.0)
    assert inputs.shape == (4, 3, *space)
    assert where.flatten(2).sum(2).tolist() == [
        [4 ** len(space) * bool(amount) for amount in row] for row in amounts.tolist()
    ]
    each = (where.flatten(2) * amounts[..., None] * 5).sum(1)
    torch.testing.assert_close(inputs.flatten(2), each[:, None].expand(-1, 3, -1))
    again, _ = ifa.nets.marked(marks, amounts, space, noise=0.0)
    assert torch.equal(inputs, again)
    other, _ = ifa.nets.marked(marks, amounts, space, noise=0.0, seed=1)
    assert not torch.equal(inputs, other)


TRAINED = {
    "classification": (3, lambda values: int(values.argmax())),
    "binary": (1, lambda values: bool(values[0] > 0)),
    "multilabel": (3, lambda values: (values > 0).int().tolist()),
    "regression": (3, lambda values: values.numpy()),
}


class Wrapped(torch.nn.Module):
    """Returns a mapping, as networks of transformers do."""

    def __init__(self, outputs):
        super().__init__()
        self.linear = torch.nn.Linear(3, outputs)

    def forward(self, inputs):
        return {"hidden": inputs, "logits": self.linear(inputs)}


@pytest.mark.parametrize("task", TRAINED)
def test_training_for_every_task(task):
    outputs, label = TRAINED[task]
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = [(values, label(values)) for values in inputs]
    net = ifa.nets.train(lambda: Wrapped(outputs), data, task=task, epochs=60, rate=0.1)
    found = net(inputs)["logits"]
    right = {
        "classification": lambda: found.argmax(1) == inputs.argmax(1),
        "regression": lambda: (found - inputs).abs() < 0.2,
    }.get(task, lambda: (found > 0) == (inputs[:, :outputs] > 0))()
    assert right.double().mean() > 0.95


def test_training_names_a_label_that_is_not_of_the_task():
    data = [(torch.zeros(3), 2)] * 2
    with pytest.raises(
        ValueError, match=r"ifa\.nets\.train: expected labels that are 0 or 1, got 2"
    ):
        ifa.nets.train(lambda: Wrapped(1), data, task="binary")
    with pytest.raises(ValueError, match="task to be one of 'classification', 'binary'"):
        ifa.nets.train(lambda: Wrapped(1), data, task="ranking")
