"""The command line: what it says, what it leaves behind, and what it says of wrong input."""

import sys

import pytest
import torch
from populations import contents
from safetensors.torch import save_file

import ifa
from ifa.cli import main

MODULE = """
import torch


def network():
    return torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(28, 3)
    )


def data():
    random = torch.Generator().manual_seed(0)
    return [(torch.randn(2, 9, generator=random), index % 3) for index in range(20)]


def odd():
    return [*data()[:7], (torch.zeros(2, 9), 8, "the odd one")]


def pairs():
    return [torch.zeros(2, 9)] * 3


def training():
    return torch.nn.Sequential(torch.nn.Linear(2, 2)).train()


number = 3
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with a network and data, in which one works."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def weights(home):
    import mine

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = mine.network().state_dict()
    save_file(state, home / "weights.safetensors")
    torch.save(state, home / "weights.pt")
    return state


def run(*arguments, capsys):
    """Run the command line, and give its exit code and what it wrote."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


ANALYZE = ("analyze", "mine:network", "mine:data", "--layer", "1", "--quiet")


def test_help_lists_the_commands(capsys):
    code, out, err = run("--help", capsys=capsys)
    assert (code, err) == (0, "")
    for command in ("demo", "layers", "analyze"):
        assert command in out


def test_the_demo_says_what_it_will_do(capsys):
    code, out, _ = run("demo", "--help", capsys=capsys)
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    for said in ("handwritten digits", "Trains", "common scale", "never destroys a run", "minute"):
        assert said in words


@pytest.mark.parametrize("command", ["layers", "analyze"])
def test_every_command_has_help(command, capsys):
    code, out, _ = run(command, "--help", capsys=capsys)
    assert code == 0
    assert "package.module:factory" in out


@pytest.mark.parametrize("reference", [["--weights", "weights.safetensors"], []])
def test_layers(reference, weights, capsys):
    code, out, _ = run("layers", "mine:network", "mine:data", *reference, capsys=capsys)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][0] == "layer"
    assert lines[1:5] == [
        ["0", "4", "×", "7", "4", "7"],
        ["*", "1", "4", "×", "7", "4", "7"],
        ["2", "28", "no", "grid"],
        ["3", "3", "no", "grid"],
    ]
    assert lines[5][0] == "*"


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pt"])
def test_analyze_writes_a_run_and_prints_a_summary(file, weights, home, capsys):
    code, out, err = run(*ANALYZE, "--weights", file, "--out", "run", capsys=capsys)
    assert (code, err) == (0, "")
    for said in (
        "layer 1: 4 channels, 3 targets",
        "0 nonfinite",
        "common scale",
        "run: run",
        "next:",
    ):
        assert said in out
    ifa.verify("run")
    import mine

    model = mine.network().eval()
    model.load_state_dict(weights)
    direct = ifa.analyze(model, mine.data(), layer="1", progress=False)
    assert ifa.open("run")["1"].to_dataset().identical(direct["1"].to_dataset())
    before = contents(home / "run")
    assert run(*ANALYZE, "--weights", file, "--out", "run", capsys=capsys)[:2] == (0, out)
    assert contents(home / "run") == before


def test_analyze_with_all_options(weights, capsys):
    options = ("--targets", "2,0", "--weight", "gradcam", "--keep-samples", "full", "--layer", "0")
    options += ("--shard", "7", "--batch-size", "3", "--device", "cpu", "--weights", "weights.pt")
    code, out, _ = run(*ANALYZE, *options, "--out", "run", capsys=capsys)
    assert code == 0
    tree = ifa.open("run")
    assert tree.attrs["layers"] == ["1", "0"]
    assert tree["0"]["target"].values.tolist() == [2, 0]
    assert tree["samples/0/importance"].shape == (2, 20, 4)
    assert out.index("layer 1:") < out.index("layer 0:")


def test_progress_goes_to_standard_error(weights, capsys):
    arguments = [argument for argument in ANALYZE if argument != "--quiet"]
    code, out, err = run(*arguments, "--weights", "weights.pt", "--out", "run", capsys=capsys)
    assert code == 0
    assert "20/20" in err
    assert "20/20" not in out


BAD = {
    "unknown module": (
        ["analyze", "no.such:network", "mine:data"],
        "can be imported, got 'no.such'",
    ),
    "unknown attribute": (["analyze", "mine:net", "mine:data"], "'mine' to define 'net'"),
    "no colon": (["analyze", "mine", "mine:data"], "'path/to/file.py:name', got 'mine'"),
    "unknown data": (["analyze", "mine:network", "mine:date"], "'mine' to define 'date'"),
    "data that are no function": (["analyze", "mine:network", "mine:number"], "callable, got int"),
    "a model that is none": (["analyze", "mine:data", "mine:data"], "a torch.nn.Module, got list"),
    "unknown layer": ([*ANALYZE, "--layer", "7"], "got '7'"),
    "targets that are no numbers": ([*ANALYZE, "--targets", "a,b"], "got 'a,b'"),
    "unknown target": ([*ANALYZE, "--targets", "0,3"], "distinct targets in 0..2"),
    "unknown task": ([*ANALYZE, "--task", "ranking"], "task to be one of"),
    "no weights": ([*ANALYZE, "--weights", "none.pt"], "expected a file of weights, got none.pt"),
    "other weights": ([*ANALYZE, "--weights", "other.safetensors"], "size mismatch for 0.weight"),
    "weights with code": ([*ANALYZE, "--weights", "evil.pt"], "without running code"),
    "spoiled weights": ([*ANALYZE, "--weights", "spoiled.safetensors"], "could not be read"),
    "an unknown option": ([*ANALYZE, "--colour", "red"], "--colour"),
    "an unknown weighting": ([*ANALYZE, "--weight", "magic"], "magic"),
    "a number that is none": ([*ANALYZE, "--shard", "many"], "--shard"),
    "items": (["analyze", "mine:network", "mine:pairs"], "to be (input, label)"),
    "an unknown command": (["analyse"], "analyse"),
}


class Evil:
    def __reduce__(self):
        return exec, ("open('code-was-run', 'w').close()",)


@pytest.mark.parametrize("name", BAD)
def test_what_a_user_can_mend_is_one_message(name, weights, home, capsys):
    save_file({"0.weight": torch.zeros(5, 2, 3)}, home / "other.safetensors")
    torch.save({"0.weight": Evil()}, home / "evil.pt")
    (home / "spoiled.safetensors").write_bytes(b"nonsense")
    arguments, text = BAD[name]
    before = contents(home)
    out = [] if name == "an unknown command" else ["--out", home / "run"]
    code, out, err = run(*arguments, *out, capsys=capsys)
    assert code != 0
    assert text in err
    assert "Error" in err
    assert "Traceback" not in err
    assert out == ""
    assert not (home / "run").exists()
    after = {name: digest for name, digest in contents(home).items() if "__pycache__" not in name}
    assert after == {name: digest for name, digest in before.items() if "__pycache__" not in name}


def test_a_label_that_is_no_output(home, capsys):
    arguments = ["analyze", "mine:network", "mine:odd", "--out", "run", "--quiet", "--layer", "1"]
    code, _, err = run(*arguments, capsys=capsys)
    assert code == 1
    assert "got 8 for sample 7 (id 'the odd one')" in err
    assert not (home / "run" / "COMMIT.json").exists()


def test_another_run_is_refused(weights, home, capsys):
    arguments = (*ANALYZE, "--weights", "weights.pt", "--out", "run")
    assert run(*arguments, capsys=capsys)[0] == 0
    before = contents(home / "run")
    code, _, err = run(*arguments, "--weight", "layercam", capsys=capsys)
    assert code == 1
    assert "of this very analysis, got another: weight: " in err
    assert contents(home / "run") == before


def test_an_out_that_is_missing(capsys):
    code, _, err = run("analyze", "mine:network", "mine:data", capsys=capsys)
    assert code != 0
    assert "--out" in err
    assert "Traceback" not in err


def test_a_network_in_a_file_with_options_and_a_checkpoint(home, capsys):
    """What was done to find the weights is said, on standard error."""
    folder = home / "experiment"
    folder.mkdir()
    source = "import torch\n\ndef network(outputs, name):\n    return torch.nn.Sequential("
    source += "torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(28, outputs))\n"
    (folder / "filed_cli.py").write_text(source)
    layers = (torch.nn.Conv1d(2, 4, 3), torch.nn.Flatten(), torch.nn.Linear(28, 5))
    state = torch.nn.DataParallel(torch.nn.Sequential(*layers)).state_dict()
    torch.save({"model": state}, folder / "checkpoint.pt")
    arguments = ("layers", "experiment/filed_cli.py:network", "mine:data", "--config", "outputs=5")
    arguments += ("--config", "name=half a dozen", "--weights", "experiment/checkpoint.pt")
    code, out, err = run(*arguments, capsys=capsys)
    sys.modules.pop("filed_cli")
    assert code == 0
    assert [line[3] for line in out.splitlines()[1:4]] == ["0", "1", "2"]
    assert err.splitlines() == [
        "Note: experiment/checkpoint.pt: 'model' of the checkpoint taken",
        "Note: experiment/checkpoint.pt: 'module.' taken off the names of its weights",
    ]


@pytest.mark.parametrize("option", ["outputs", "=3", "outputs=3"])
def test_options_that_are_none(option, home, capsys):
    arguments = ("layers", "mine:network", "mine:data", "--config", "outputs=3", "--config", option)
    code, _, err = run(*arguments, capsys=capsys)
    assert code == 1
    assert f"--config as name=value, once a name, got {option!r}" in err


@pytest.fixture
def photos(home):
    """A folder of pictures of two classes, a table of them, and a network that sees 8 × 8."""
    image = pytest.importorskip("PIL.Image")
    for index, name in enumerate(("dark", "light", "dark", "light")):
        (home / "photos" / name).mkdir(parents=True, exist_ok=True)
        picture = image.effect_noise((20 + index, 30), 50 + 20 * index).convert("RGB")
        picture.save(home / "photos" / name / f"{index}.png")
    rows = "".join(f"photos/{('dark', 'light')[i % 2]}/{i}.png,{i % 2}\n" for i in range(4))
    (home / "photos.csv").write_text(f"path,label\n{rows}")
    (home / "photo_net.py").write_text(
        "import ifa, torch, numpy\n"
        "def network():\n    torch.manual_seed(0)\n    return torch.nn.Sequential("
        "torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))\n"
        "def prepare(picture):\n    return numpy.asarray(picture.resize((8, 8))).transpose(2, 0, 1)"
        " / 255\n"
        "def crops():\n    return ifa.data.folder('photos')\n"
    )
    yield home
    sys.modules.pop("photo_net", None)


def test_pictures_of_a_folder_or_a_table_are_prepared(photos, capsys):
    """Without a line of Python: a folder, its table, and the data set of both are the same."""
    runs = []
    for index, data in enumerate(("photos", "photos.csv", "photo_net.py:crops")):
        arguments = ("photo_net.py:network", data, "--prepare", "photo_net.py:prepare")
        code, out, err = run("layers", *arguments, capsys=capsys)
        assert (code, err) == (0, "")
        assert "4 × 6 × 6" in out
        options = ("--layer", "0", "--quiet", "--out", f"run{index}")
        code, _, err = run("analyze", *arguments, *options, capsys=capsys)
        named = "Note: target names are the data's: dark, light\n"
        assert (code, err) == (0, "" if data.endswith(".csv") else named)
        runs.append(ifa.open(f"run{index}")["0"].to_dataset().sortby("channel"))
    assert runs[0].identical(runs[2])
    assert abs(runs[0]["map_max_overall"] - runs[1]["map_max_overall"]).max() < 1e-6


@pytest.mark.deep  # ten seconds
def test_a_folder_of_transformers_and_its_processor(photos, capsys):
    transformers = pytest.importorskip("transformers")
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "num_labels": 2}
    config = transformers.ResNetConfig(**sizes)
    transformers.ResNetForImageClassification(config).save_pretrained("net")
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=1.0)
    processor.save_pretrained("net")
    capsys.readouterr()
    arguments = ("hf:net", "photos", "--prepare", "hf", "--quiet", "--out", "run")
    code, out, err = run("analyze", *arguments, capsys=capsys)
    assert (code, err) == (0, "Note: target names are the data's: dark, light\n")
    assert "2 targets" in out
    code, _, err = run(
        "evaluate",
        "run",
        "hf:net",
        "photos",
        "--prepare",
        "hf",
        "--quiet",
        "--methods",
        "gradcam,noise",
        "--metrics",
        "deletion",
        capsys=capsys,
    )
    assert (code, err) == (0, "")
    code, _, err = run(
        "explain",
        "hf:net",
        "photos/dark/0.png",
        "photos/light/1.png",
        "--prepare",
        "hf",
        "--run",
        "run",
        "--out",
        "maps",
        capsys=capsys,
    )
    assert (code, err) == (0, "")


def test_data_that_read_no_pictures_cannot_be_prepared(photos, capsys):
    arguments = ("mine:network", "mine:data", "--prepare", "photo_net.py:prepare")
    code, _, err = run("layers", *arguments, capsys=capsys)
    assert code == 1
    assert "ifa layers: expected --prepare with a folder, a table or data of ifa.data" in err
