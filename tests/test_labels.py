"""Labels, names, groups and ids that could be another's without a word: by the right one, or told.

Classes are numbered as the outputs are named, in Python and on the command line.
"""

from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
from naming import plain
from PIL import Image
from torch import nn
from torch.utils.data import Subset

import ifa
from ifa.cli import main
from ifa.cli.explain import _lines
from ifa.data import arrays, folder, huggingface, keyed
from ifa.data.lists import listed_column, listed_names
from ifa.store.items import collate, spaced

# ---- classes in another order than the outputs

NETWORK = """
import torch
from torch import nn

def colors():  # output 0 is red, output 1 blue
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net[0].weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1]])[..., None, None]
    net[0].bias.data.zero_()
    return net.append(nn.Linear(2, 2)).append(nn.Identity()).eval().requires_grad_(False)

def network():
    net = colors()
    net[4].weight.data, net[4].bias.data = torch.eye(2), torch.zeros(2)
    return net

def one():  # how red it is
    net = network().append(nn.Linear(2, 1)).eval().requires_grad_(False)
    net[6].weight.data, net[6].bias.data = torch.tensor([[9.0, -9.0]]), torch.zeros(1)
    return net
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A network that tells red from blue, and pictures of these, in folders and in tables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{tmp_path.name}.py").write_text(NETWORK)  # a process imports a name once
    random = np.random.default_rng(0)
    rows = []
    for name, channel in (("red", 0), ("blue", 2)):
        for index in range(3):
            values = random.integers(0, 60, (6, 6, 3)).astype(np.uint8)
            values[..., channel] += 150
            path = f"both/{name}/{index}.png"
            for place in (path, f"only-{name}/{name}/{index}.png"):
                (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(place)
            rows.append({"path": path, "label": name})
    pandas.DataFrame(rows).to_csv("both.csv", index=False)
    return tmp_path


def run(*arguments, capsys):
    code = main([*arguments])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out, said.err


@pytest.mark.parametrize("data", ["both", "both.csv"])
def test_the_command_line_numbers_classes_as_the_outputs_are_named(home, data, capsys):
    network = f"{home.name}.py:network"
    names = ("--target-names", "red,blue")
    analyze = ("analyze", network, data, "--layer", "0", "--quiet")
    said, _ = run(*analyze, "--out", "run", *names, capsys=capsys)
    assert "accuracy: 1.000" in said
    samples = ifa.open("run")["samples"].to_dataset()
    reds = [str(name).startswith(("red", "both/red")) for name in samples["id"].values]
    assert samples["label"].values.tolist() == [0 if red else 1 for red in reds]


def test_maps_of_other_data_number_classes_as_the_run_does(home, capsys):
    """A folder of one class has it as its first."""
    network = f"{home.name}.py:network"
    names = ("--target-names", "red,blue")
    analyze = ("analyze", network, "both", "--layer", "0", "--quiet", "--out", "run")
    run(*analyze, *names, capsys=capsys)
    maps = ("maps", "run", network, "only-blue", "--targets", "label", "--form", "zarr")
    run(*maps, "--quiet", capsys=capsys)
    found = ifa.open("run-maps/maps/fullcam").to_dataset()
    assert found["label"].values.tolist() == found["target"].values.tolist() == [1, 1, 1]
    # its own data are the same again
    evaluate = ("evaluate", "run", network, "both", "--methods", "gradcam,noise", "--quiet")
    run(*evaluate, "--metrics", "complexity", "--targets", "label", capsys=capsys)
    found = ifa.open("run-evaluation").to_dataset()
    assert found["label"].equals(found["prediction"])


def test_two_classes_are_0_and_1_of_one_output(home, capsys):
    """Its name is that of label 1, whatever the alphabet says, also where there is no other."""
    network = f"{home.name}.py:one"
    analyze = ("analyze", network, "both", "--layer", "0", "--quiet", "--task", "binary", "--out")
    _, said = run(*analyze, "own", capsys=capsys)
    assert said == "Note: target names are the data's: red\n"
    run(*analyze, "red", "--target-names", "red", capsys=capsys)
    run(*analyze, "blue", "--target-names", "blue", capsys=capsys)
    labels = {name: ifa.open(name)["samples"]["label"].values.tolist() for name in ("red", "blue")}
    assert labels == {"red": [0, 0, 0, 1, 1, 1], "blue": [1, 1, 1, 0, 0, 0]}
    run("maps", "red", network, "only-red", "--form", "zarr", "--quiet", capsys=capsys)
    assert ifa.open("red-maps/maps/fullcam")["label"].values.tolist() == [1, 1, 1]
    said, _ = run("diagnose", "own", network, "both", capsys=capsys)
    assert "principal features of layer 0" in said
    assert "accuracy" in said
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    net[0].weight.data = torch.tensor([9.0, 0, -9])[None, :, None, None]
    options = {"layer": "0", "progress": False, "task": "binary"}
    ifa.analyze(net, folder("both"), target_names=["red"], **options)
    with pytest.raises(ValueError, match="got 'blue' as label 0 and label 1"):
        ifa.analyze(net, folder("both"), target_names=["blue"], **options)


def test_a_run_of_the_first_outputs_goes_on_with_its_own_data(home, capsys):
    """It has the names of these alone."""
    network = f"{home.name}.py:network"
    analyze = ("analyze", network, "both", "--layer", "0", "--quiet", "--targets", "0")
    run(*analyze, "--out", "run", capsys=capsys)
    run("maps", "run", network, "both", "--form", "zarr", "--quiet", capsys=capsys)
    found = ifa.open("run-maps/maps/fullcam")
    assert found["label"].values.tolist() == [0, 0, 0, 1, 1, 1]


def test_names_of_outputs_that_are_no_classes_leave_labels_and_that_is_said(home, capsys):
    network = f"{home.name}.py:network"
    analyze = ("analyze", network, "both", "--layer", "0", "--quiet", "--out", "run")
    _, said = run(*analyze, "--target-names", "r,b", capsys=capsys)
    assert said == (
        "Note: no class of the data is the name of an output; labels are their places: blue 0, "
        "red 1, …\n"
    )


def test_data_of_another_order_than_the_outputs_are_refused(home):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    data, options = folder("both"), {"layer": "0", "progress": False}
    with pytest.raises(ValueError, match=r"got 'blue' as label 0 and output 1\. Give names="):
        ifa.analyze(net, data, target_names=["red", "blue"], **options)
    with pytest.raises(ValueError, match=r"got 'blue' as label 0 and output 1\. Give names="):
        ifa.analyze(net, Subset(data, [0, 4]), target_names=["red", "blue"], **options)
    for names in (["blue", "red"], ["b", "r"]):
        ifa.analyze(net, data, target_names=names, **options)
    right = folder("both", names=["red", "blue"])
    ifa.analyze(net, right, target_names=["red", "blue"], **options)


# ---- numbers that are names

IMAGES = np.zeros((3, 4, 5), np.float32)


class Lazy:
    """Items that are not there before they are read."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 2, 1], ["1", "2", "3"]),
        ([True, False, True], ["True", "False"]),
        (np.array([1.0, 0.0, 1.0]), ["1", "0"]),
    ],
    ids=plain,
)
def test_a_label_that_is_the_name_of_another_class_is_refused(labels, names):
    with pytest.raises(ValueError, match="expected labels that are places in names"):
        arrays(IMAGES, labels, names=names, task="classification")
    texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in labels]
    found = arrays(IMAGES, texts, names=names)
    assert [names[label] for label in found.labels] == texts
    items = [{"x": IMAGES[:1], "y": label} for label in labels]
    lazily = keyed(Lazy(items), "x", "y", names=names)
    with pytest.raises(ValueError, match="expected labels that are places in names"):
        lazily[0]


def test_numbers_that_are_their_own_places_stay():
    assert arrays(IMAGES, [1, 0, 2], names=["0", "1", "2"]).labels.tolist() == [1, 0, 2]
    assert arrays(IMAGES, [1, 0, 2], names=["a", "b", "c"]).labels.tolist() == [1, 0, 2]


def test_numbered_classes_of_huggingface_follow_the_names_asked_for():
    features = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32")),
         "label": datasets.ClassLabel(names=["no", "yes"])}
    )  # fmt: skip
    rows = {"x": [[0.0, 1.0]] * 3, "label": [0, 1, 1]}
    whole = datasets.Dataset.from_dict(rows, features=features)
    turned = huggingface(whole, input="x", names=["yes", "no"])
    assert turned.labels.tolist() == [1, 0, 0]
    assert huggingface(whole, input="x").labels.tolist() == [0, 1, 1]
    more = huggingface(whole, input="x", names=["maybe", "no", "yes"])
    assert more.labels.tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match=r"expected labels among names, 'a', 'b', got 'no'"):
        huggingface(whole, input="x", names=["a", "b"])


# ---- files of names and columns


def written(path, text):
    path.write_text(text)
    return str(path)


def test_a_line_without_a_name_does_not_move_those_that_follow(tmp_path):
    assert listed_names("here", written(tmp_path / "a.txt", "cat\ndog\n\n")) == ("cat", "dog")
    with pytest.raises(ValueError, match=r"to have a name on each line, got none on line 2"):
        listed_names("here", written(tmp_path / "b.txt", "cat\n\ndog\n"))


def test_a_table_with_an_empty_first_head_keeps_its_columns(tmp_path):
    """As pandas writes its index."""
    frame = pandas.DataFrame({"id": ["1", "0"], "site": ["x", "y"]})
    for sign, kind in (("\t", "tsv"), (",", "csv")):
        path = tmp_path / f"sites.{kind}"
        frame.to_csv(path, sep=sign)
        assert listed_column("here", f"{path}:site", ["0", "1"], 2) == ["y", "x"]


def test_a_sample_with_two_values_is_refused(tmp_path):
    path = written(tmp_path / "a.csv", "id,site\na,x\nb,y\na,z\n")
    with pytest.raises(
        ValueError, match=r"expected one 'site' for each .* got 'x' and 'z' for 'a'"
    ):
        listed_column("here", f"{path}:site", ["a", "b"], 2)
    same = written(tmp_path / "b.csv", "id, site\na, x\nb, y\na, x\n")
    assert listed_column("here", f"{same}:site", ["a", "b"], 2) == ["x", "y"]


# ---- what is said of a sample


class Outputs:
    """A network's outputs, whatever the inputs."""

    def __init__(self, values):
        self.values = torch.tensor(values)

    def run(self, inputs):
        return self.values


@pytest.mark.parametrize(
    ("task", "values", "said"),
    [
        ("classification", [1.0, 3.0], ["predicted: 1", "  probability 0.881, 3 logit"]),
        ("multilabel", [1.0, 3.0], ["largest: 1", "  probability 0.953, 3 logit"]),
        ("binary", [-1.0], ["predicted: 0", "  probability 0.269, -1 logit"]),
        ("regression", [1.0, 3.0], ["largest: 1", "  3 output"]),
    ],
)
def test_a_probability_is_that_of_the_runs_task(task, values, said):
    path, target = Path("a.png"), torch.tensor([len(values) - 1])
    unit = said[1].split()[-1]
    lines = _lines([path], Outputs([values]), torch.zeros(1, 1), target, None, None, task, unit)
    assert lines == [["a.png", *said]]


# ---- ids and pictures


def test_an_id_that_is_an_index_is_that_of_the_whole():
    data = [(torch.full((1, 3), float(n)), 0) for n in range(9)]
    chosen = spaced("here", "--limit", data, 3)
    batch = collate("here", chosen, range(3))
    assert batch.ids == ["0", "4", "8"]
    assert batch.inputs[:, 0, 0].tolist() == [0, 4, 8]
    assert collate("here", Subset(chosen, [2]), range(1)).ids == ["8"]


def test_a_palette_is_looked_up():
    colors = np.zeros((4, 5, 3), np.uint8)
    colors[..., 1] = 200
    colors[0] = (10, 20, 30)
    picture = Image.fromarray(colors)
    found = arrays([picture.convert("P", palette=Image.Palette.ADAPTIVE)], channels="last")
    np.testing.assert_allclose(found[0][0] * 255, np.moveaxis(colors, -1, 0), atol=1)
