"""Networks by reference: from packages, files, folders and libraries; weights from checkpoints."""

import json
import logging
import pickle
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ifa
from ifa.network.identity import model_token, network_digest
from ifa.store import libraries, preparations

NET = """
import torch

LEVEL = 2.0


class Net(torch.nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.conv = torch.nn.Conv1d(2, 4, 3)
        self.head = torch.nn.Linear(4, outputs)

    def forward(self, inputs):
        return self.head(self.conv(inputs).relu().mean(-1))


def factory(**options):
    torch.manual_seed(0)
    return Net(**options)


ready = Net()
"""


@pytest.fixture(autouse=True)
def no_trace(tmp_path):
    """Take back what a test imports; the search path is as it was."""
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        places = [getattr(sys.modules[name], place, "") for place in ("__file__", "__path__")]
        if str(tmp_path) in str(places):
            del sys.modules[name]


def net(**options) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv1d(2, 4, 3),
            norm=nn.BatchNorm1d(4),
            flat=nn.Flatten(),
            head=nn.Linear(28, options.get("outputs", 3)),
        )
    )


ready = net()


def refused(reference: ifa.ModelRef, error: type[Exception], *said: str) -> None:
    with pytest.raises(error, match=r"^ifa\.ModelRef: expected ") as caught:
        reference.load()
    for text in said:
        assert text in str(caught.value)


# a module that is there -----------------------------------------------------------------------


def test_a_module_is_copied():
    loaded = ifa.ModelRef("test_references:ready").load()
    assert loaded is not ready
    assert not loaded.training
    assert ready.training
    assert torch.equal(loaded.head.weight, ready.head.weight)


def test_a_module_takes_no_config():
    reference = ifa.ModelRef("test_references:ready", config={"outputs": 2})
    refused(reference, TypeError, "no config for test_references:ready", "outputs")


# files ----------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    (tmp_path / "filed_net.py").write_text(NET)
    reference = ifa.ModelRef(f"{tmp_path}/filed_net.py:factory", config={"outputs": 5})
    loaded = reference.load()
    assert loaded.head.out_features == 5
    assert type(loaded).__module__ == "filed_net"
    assert type(reference.load()) is type(loaded)
    again = pickle.loads(pickle.dumps(reference)).load()
    assert torch.equal(again.conv.weight, loaded.conv.weight)
    assert not ifa.ModelRef(f"{tmp_path}/filed_net.py:ready").load().training


def test_a_file_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "filed_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    assert ifa.ModelRef("filed_net.py:factory").load().head.out_features == 3


def test_a_file_is_the_module_that_its_folder_would_give(tmp_path, monkeypatch):
    (tmp_path / "filed_net.py").write_text(NET)
    data = [(torch.randn(2, 9), index % 3) for index in range(6)]
    options = {"layer": "conv", "progress": False}
    by_file = ifa.analyze(ifa.ModelRef(f"{tmp_path}/filed_net.py:factory"), data, **options)
    del sys.modules["filed_net"]
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        by_name = ifa.analyze(ifa.ModelRef("filed_net:factory"), data, **options)
    assert by_file["conv"].attrs["origin"] == by_name["conv"].attrs["origin"]
    assert by_file["conv"].to_dataset().identical(by_name["conv"].to_dataset())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("package", ["", "__init__.py"])
def test_neighbours_are_found(late, package, tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    if package:
        (folder / package).write_text("")
    relative = "from .filed_layers import block"
    plain = "import filed_numbers"
    (folder / "filed_layers.py").write_text(
        "import torch\n\ndef block(n):\n    return torch.nn.Linear(n, n)\n"
    )
    (tmp_path / "filed_numbers.py").write_text("SEVEN = 7\n")
    top, within = ("", f"    {relative}\n    {plain}\n") if late else (f"{relative}\n{plain}\n", "")
    (folder / "filed_net.py").write_text(
        f"{top}def factory():\n{within}    return block(filed_numbers.SEVEN)\n"
    )
    assert ifa.ModelRef(f"{folder}/filed_net.py:factory").load().in_features == 7
    assert "experiment.filed_layers" in sys.modules


def test_neighbours_by_name_are_found(tmp_path):
    (tmp_path / "filed_layers.py").write_text("import filed_deeper\nblock = filed_deeper.block\n")
    (tmp_path / "filed_deeper.py").write_text("import torch\nblock = torch.nn.Linear\n")
    (tmp_path / "filed_net.py").write_text("import filed_layers\nnet = filed_layers.block(2, 1)\n")
    assert ifa.ModelRef(f"{tmp_path}/filed_net.py:net").load().in_features == 2


@pytest.mark.parametrize("deeper", [False, True])
def test_neighbours_that_would_be_others_are_refused(deeper, tmp_path):
    """In a process that has another module of the name, or before an installed one."""
    for name, features in (("first", 1), ("second", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "filed_layers.py").write_text(f"FEATURES = {features}\n")
        (folder / f"between_{name}.py").write_text("from filed_layers import FEATURES\n")
        source = f"between_{name}" if deeper else "filed_layers"
        (folder / f"net_{name}.py").write_text(
            f"from torch import nn\nfrom {source} import FEATURES\nnet = nn.Linear(FEATURES, 1)\n"
        )
    assert ifa.ModelRef(f"{tmp_path}/first/net_first.py:net").load().in_features == 1
    second = ifa.ModelRef(f"{tmp_path}/second/net_second.py:net")
    refused(second, LookupError, "filed_layers.py for", "first/filed_layers.py. Rename one")
    assert "net_second" not in sys.modules


@pytest.mark.parametrize("name", ["json", "zarr", "test_references", "sys"])
def test_a_file_never_takes_the_name_of_another_module(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('was run')")
    before = sys.modules.get(name)
    refused(ifa.ModelRef(f"{tmp_path}/{name}.py:net"), LookupError, f"as {name!r}, but this is")
    assert sys.modules.get(name) is before


def test_files_of_one_name_are_not_taken_for_each_other(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "filed_net.py").write_text(NET)
    assert ifa.ModelRef(f"{tmp_path}/a/filed_net.py:factory").load()
    refused(ifa.ModelRef(f"{tmp_path}/b/filed_net.py:factory"), LookupError, "a/filed_net.py")


@pytest.mark.parametrize(
    ("content", "ending", "error", "said"),
    [
        (None, ":net", FileNotFoundError, "a Python file, got"),
        ("", ":net", LookupError, "to define 'net'"),
        ("", "", ValueError, "'path/to/file.py:name'"),
        ("import no_such_thing\n", ":net", LookupError, "No module named 'no_such_thing'"),
        ("net = 3\n", ":net", TypeError, "to be callable, got int"),
        ("def net(): return 3\n", ":net", TypeError, "a torch.nn.Module, got int"),
    ],
    ids=["no file", "no name", "no colon", "an import", "no function", "no network"],
)
def test_files_that_lead_nowhere(content, ending, error, said, tmp_path):
    if content is not None:
        (tmp_path / "filed_net.py").write_text(content)
    refused(ifa.ModelRef(f"{tmp_path}/filed_net.py{ending}"), error, said)


def test_a_folder_is_no_file(tmp_path):
    refused(ifa.ModelRef(f"{tmp_path}:net"), FileNotFoundError, "a Python file, got")


def test_a_name_that_is_no_module_s(tmp_path):
    (tmp_path / "my-net.py").write_text(NET)
    assert ifa.ModelRef(f"{tmp_path}/my-net.py:factory").load().head.out_features == 3


@pytest.mark.deep  # seconds
def test_workers_load_a_file_by_themselves(tmp_path, monkeypatch):
    """In another process, which knows nothing but the reference."""
    (tmp_path / "filed_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    reference = ifa.ModelRef("filed_net.py:factory")
    (tmp_path / "reference.pkl").write_bytes(pickle.dumps(reference))
    code = (
        "import pickle, sys; net = pickle.load(open('reference.pkl', 'rb')).load();"
        "print(float(net.conv.weight.detach().sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == float(reference.load().conv.weight.detach().sum())


def test_the_page_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "how-to" / "own-network.md"
    text = page.read_text()
    with caplog.at_level(logging.INFO, "ifa"):
        exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)), {})
    assert len(caplog.messages) == 2
    for message in caplog.messages:
        assert f"Note: {message}\n" in text


# weights --------------------------------------------------------------------------------------


def kept(tmp_path, content, name="weights.pt") -> str:
    path = tmp_path / name
    torch.save(content, path)
    return str(path)


def weighted(path: str, **config) -> ifa.ModelRef:
    return ifa.ModelRef("test_references:net", weights=path, config=config)


def trained() -> nn.Module:
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1)
    return model


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
WRAPS = {
    "alone": (lambda s: s, ()),
    "state_dict": (lambda s: {"epoch": 3, "state_dict": s}, ("'state_dict'",)),
    "model_state": (lambda s: {"model_state": s, "optimizer": OPTIMIZER}, ("'model_state'",)),
    "of any name": (lambda s: {"weights of May": s, "loss": torch.zeros(2)}, ("'weights of May'",)),
    "next to its parts": (lambda s: {"net": s, "head": {"weight": s["head.weight"]}}, ("'net'",)),
    "DataParallel": (lambda s: prefixed("module.", s), ("'module.' taken off",)),
    "compiled": (lambda s: prefixed("_orig_mod.", s), ("'_orig_mod.' taken off",)),
    "both": (lambda s: prefixed("module._orig_mod.", s), ("'module._orig_mod.' taken off",)),
    "Lightning": (
        lambda s: {"state_dict": prefixed("model.", s), "hparams": {"lr": 0.1}},
        ("'state_dict' of the checkpoint", "'model.' taken off"),
    ),
    "without counters": (
        lambda s: {n: v for n, v in s.items() if not n.endswith("tracked")},
        (),
    ),
}


@pytest.mark.parametrize("name", WRAPS)
def test_checkpoints_are_taken_apart_and_it_is_said(name, tmp_path, caplog):
    wrap, said = WRAPS[name]
    model = trained()
    path = kept(tmp_path, wrap(dict(model.state_dict())))
    with caplog.at_level(logging.INFO, "ifa"):
        loaded = weighted(path).load()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    assert len(caplog.messages) == len(said)
    for message, text in zip(caplog.messages, said, strict=True):
        assert path in message
        assert text in message


def test_a_network_with_an_attribute_model_keeps_its_names(tmp_path, caplog):
    inner = nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))
    path = kept(tmp_path, inner.state_dict())
    reference = ifa.ModelRef("test_references:holder", weights=path)
    with caplog.at_level(logging.INFO, "ifa"):
        assert torch.equal(reference.load().model.weight, inner.model.weight)
    assert caplog.messages == []


def holder() -> nn.Module:
    return nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))


def test_several_that_fit_are_named_and_one_is_chosen(tmp_path):
    state, other = trained().state_dict(), trained().state_dict()
    path = kept(tmp_path, {"state_dict": state, "state_dict_ema": other, "epoch": 2})
    refused(weighted(path), ValueError, "got 2: 'state_dict', 'state_dict_ema'.", "#state_dict_ema")
    chosen = weighted(f"{path}#state_dict_ema").load()
    assert torch.equal(chosen.head.weight, other["head.weight"])
    refused(weighted(f"{path}#ema"), ValueError, "a state dictionary 'ema', got of 'state_dict', ")


def test_a_file_may_have_a_hash_in_its_name(tmp_path):
    state = trained().state_dict()
    path = kept(tmp_path, state, "run#3.pt")
    assert torch.equal(weighted(path).load().head.weight, state["head.weight"])


def test_safetensors_lose_a_prefix_too(tmp_path):
    state = trained().state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(prefixed("module.", state), path)
    assert torch.equal(weighted(str(path)).load().head.weight, state["head.weight"])


MISFITS = {
    "other classes": (
        lambda s: {"model": prefixed("module.", s)},
        {"outputs": 5},
        (
            "its 'model'",
            "size mismatch for head.weight: (3, 28) in the file, (5, 28) in the",
            "head.bias",
        ),
    ),
    "more": (lambda s: s | {"tail.bias": s["head.bias"]}, {}, ("not in the network tail.bias.",)),
    "less": (
        lambda s: {"head.bias": s["head.bias"]},
        {},
        ("missing conv.weight, conv.bias, norm.weight, and 4",),
    ),
    "half a prefix": (
        lambda s: prefixed("model.", s) | {"loss.weight": torch.ones(3)},
        {},
        ("not in the network model.conv.weight",),
    ),
    "another": (lambda s: {"other": s["head.bias"]}, {}, ("not in the network other",)),
    "lists": (lambda s: s | {"head.bias": [1.0, 2.0, 3.0]}, {}, ("head.bias",)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_do_not_fit(name, tmp_path):
    wrap, config, said = MISFITS[name]
    path = kept(tmp_path, wrap(dict(trained().state_dict())))
    reference = weighted(path, **config)
    refused(reference, ValueError, "weights for Sequential", path, "the configuration they", *said)


PROGRAMS = {"script.pt": "constants.pkl", "exported.pt2": "models/model.json"}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("place", ["weights", "factory"])
def test_programs_are_refused(place, name, tmp_path):
    path = str(tmp_path / name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"program/{PROGRAMS[name]}", "")
    reference = weighted(path) if place == "weights" else ifa.ModelRef(path)
    refused(reference, ValueError, path, "run its code", "layers cannot be observed")


@pytest.mark.deep  # seconds, of torch.export
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit's own
def test_programs_are_refused_and_their_weights_are_taken(tmp_path):
    model = trained().eval()
    inputs = torch.zeros(2, 2, 9)
    script, exported = str(tmp_path / "script.pt"), str(tmp_path / "exported.pt2")
    torch.jit.save(torch.jit.trace(model, inputs), script)
    torch.export.save(torch.export.export(model, (inputs,)), exported)
    refused(weighted(script), ValueError, "torch.jit.load(file).state_dict()")
    refused(weighted(exported), ValueError, "torch.export.load(file).state_dict")
    for state in (torch.jit.load(script).state_dict(), torch.export.load(exported).state_dict):
        loaded = weighted(kept(tmp_path, state)).load()
        assert torch.equal(loaded.head.weight, model.head.weight)


def test_a_file_of_weights_is_no_network(tmp_path):
    path = kept(tmp_path, trained().state_dict())
    refused(ifa.ModelRef(path), ValueError, "where a network's code is", path)
    refused(ifa.ModelRef(f"{tmp_path}/none.pt"), FileNotFoundError, "none.pt, which is no file")


# transformers ---------------------------------------------------------------------------------


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def resnet(transformers, **options):
    config = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], num_labels=3, **options
    )
    return transformers.ResNetForImageClassification(config)


def vit(transformers):
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config)


def saved(model, folder):
    with libraries._quiet(sys.modules["transformers"]):
        model.save_pretrained(folder)
    return folder


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


@pytest.mark.parametrize("make", [resnet, vit])
def test_a_folder_of_transformers(make, transformers, tmp_path, capfd):
    model = make(transformers).eval()
    folder = saved(model, tmp_path / "net")
    capfd.readouterr()
    loaded = ifa.ModelRef(f"hf:{folder}").load()
    assert type(loaded) is type(model)
    assert loaded.config._attn_implementation == "eager"
    assert not loaded.training
    assert same(loaded, model)
    assert capfd.readouterr() == ("", "")
    data = [(torch.randn(3, 8, 8), index % 3) for index in range(4)]
    run = ifa.analyze(ifa.ModelRef(f"hf:{folder}"), data, progress=False)
    assert run.attrs["layers"]


def test_a_folder_of_half_precision_is_read_in_float32(transformers, tmp_path):
    model = resnet(transformers).half()
    loaded = ifa.ModelRef(f"hf:{saved(model, tmp_path)}").load()
    assert same(loaded, model.float())


def test_a_configuration_alone_is_of_random_weights_and_it_is_said(transformers, tmp_path, caplog):
    folder = saved(resnet(transformers), tmp_path / "net")
    reference = ifa.ModelRef(f"hf:{folder}/config.json", config={"num_labels": 5})
    state = torch.get_rng_state()
    first = reference.load()
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, reference.load())
    assert first.config.num_labels == 5
    assert "hf:" in caplog.text
    assert "random (seed 0)" in caplog.text


def test_weights_beside_a_configuration(transformers, tmp_path, caplog):
    model = resnet(transformers)
    folder = saved(model, tmp_path / "net")
    path = kept(tmp_path, {"epoch": 1, "model": model.state_dict()})
    for place in (folder, folder / "config.json"):
        assert same(ifa.ModelRef(f"hf:{place}", weights=path).load(), model)
    assert "random" not in caplog.text


def test_a_network_is_the_same_wherever_its_folder_is(transformers, tmp_path, monkeypatch):
    model = resnet(transformers).eval()
    folder = saved(model, tmp_path / "net")
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    places = (folder, tmp_path / "copy", "net", "net/config.json")
    file = str(folder / "model.safetensors")
    references = [ifa.ModelRef(f"hf:{place}", weights=file) for place in places]
    references += [ifa.ModelRef("hf:net"), ifa.ModelRef("hf:copy")]
    digests = {network_digest(model_token(reference.load())) for reference in references}
    assert digests == {network_digest(model_token(model))}


def test_a_configuration_that_names_no_architecture_is_of_images(transformers, tmp_path):
    resnet(transformers).config.save_pretrained(tmp_path)
    loaded = ifa.ModelRef(f"hf:{tmp_path}/config.json").load()
    assert type(loaded) is transformers.ResNetForImageClassification


def rewritten(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


HF_MISTAKES = {
    "nothing there": (
        lambda folder: shutil.rmtree(folder),
        FileNotFoundError,
        "Nothing is downloaded",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        FileNotFoundError,
        "Give weights=",
    ),
    "other weights": (lambda f: rewritten(f, depths=[1, 2]), ValueError, "do not fit it: missing"),
    "left over": (
        lambda f: rewritten(f, architectures=["ResNetModel"]),
        ValueError,
        "do not fit it: ",
    ),
    "no architecture": (
        lambda f: rewritten(f, architectures=["Mine"]),
        LookupError,
        "to name an architecture of transformers",
    ),
    "no network": (
        lambda f: rewritten(f, architectures=["ResNetConfig"]),
        LookupError,
        "to name an architecture of transformers",
    ),
    "of no images": (
        lambda f: rewritten(f, model_type="bert", architectures=None),
        LookupError,
        "got none, and it is none of images",
    ),
    "no kind": (lambda f: rewritten(f, model_type="mine"), ValueError, "that transformers"),
    "code": (
        lambda f: rewritten(f, model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        ValueError,
        "without code of its own",
    ),
}


@pytest.mark.parametrize("name", HF_MISTAKES)
def test_folders_that_lead_nowhere(name, transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    (folder / "mine.py").write_text("raise SystemExit('code was run')")
    spoil, error, said = HF_MISTAKES[name]
    spoil(folder)
    refused(ifa.ModelRef(f"hf:{folder}"), error, said, str(folder))


def test_a_name_on_the_hub_is_not_looked_for(transformers):
    refused(
        ifa.ModelRef("hf:google/vit"), FileNotFoundError, "'google/vit'", "Nothing is downloaded"
    )


def test_weights_of_other_classes_than_the_configuration(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    reference = ifa.ModelRef(f"hf:{folder}", config={"num_labels": 5})
    said = "size mismatch for classifier.1.bias: (3,) in the file, (5,) in the network; "
    refused(reference, ValueError, "weights for ResNetForImageClassification", said)


def test_spoiled_weights_in_a_folder(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    refused(ifa.ModelRef(f"hf:{folder}"), ValueError, "that transformers", "SafetensorError")


def test_a_folder_runs_no_pickle(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    refused(ifa.ModelRef(f"hf:{folder}"), ValueError, "that transformers")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_attention_and_precision_may_be_asked_for(transformers, tmp_path):
    folder = saved(vit(transformers), tmp_path / "net")
    config = {"attn_implementation": "sdpa", "dtype": "float64"}
    for place in (folder, folder / "config.json"):
        loaded = ifa.ModelRef(f"hf:{place}", config=config).load()
        assert loaded.config._attn_implementation == "sdpa"
        assert loaded.dtype == torch.float64


def test_changes_of_how_it_is_read_are_refused(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    reference = ifa.ModelRef(f"hf:{folder}", config={"trust_remote_code": True})
    refused(reference, TypeError, "got trust_remote_code. Nothing is downloaded, and no code")


def test_changes_that_a_configuration_does_not_have(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    reference = ifa.ModelRef(f"hf:{folder}", config={"classes": 2})
    refused(reference, TypeError, "ResNetConfig has, got 'classes'")


# timm -----------------------------------------------------------------------------------------


class Settings(NamedTuple):
    input_size: tuple = (3, 32, 32)
    mean: tuple = (0.5, 0.25, 0.5)
    std: tuple = (0.5, 0.5, 0.25)
    crop_pct: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"


@pytest.fixture
def timm(monkeypatch):
    """Stand for timm, which asks for a torchvision that does not load everywhere."""
    known = types.ModuleType("timm")
    known.__version__ = "1"
    known.settings = Settings()
    known.is_model = lambda name: name.startswith("netlet")
    known.list_models = lambda: ["netlet", "other"]

    def get_pretrained_cfg(name):
        if name.endswith(".none"):
            raise RuntimeError("Invalid pretrained tag")
        return known.settings

    def create_model(name, pretrained, **options):
        assert pretrained is False
        return nn.Linear(2, options.get("num_classes", 3))

    known.get_pretrained_cfg, known.create_model = get_pretrained_cfg, create_model
    monkeypatch.setitem(sys.modules, "timm", known)
    return known


def test_a_network_of_timm(timm, tmp_path, caplog):
    reference = ifa.ModelRef("timm:netlet", config={"num_classes": 5})
    assert reference.load().out_features == 5
    assert same(reference.load(), reference.load())
    assert "timm:netlet: its weights are random (seed 0)" in caplog.text
    path = kept(tmp_path, {"state_dict": nn.Linear(2, 3).state_dict()})
    caplog.clear()
    ifa.ModelRef("timm:netlet", weights=path).load()
    assert "random" not in caplog.text


@pytest.mark.parametrize(
    ("name", "config", "error", "said"),
    [
        ("netle", {}, LookupError, "Near it are: netlet."),
        ("netlet.none", {}, LookupError, "got 'netlet.none'"),
        ("hf-hub:someone/net", {}, LookupError, "got 'hf-hub:someone/net'"),
        ("netlet", {"pretrained": True}, TypeError, "without pretrained: nothing is downloaded"),
        ("netlet", {"checkpoint_path": "x"}, TypeError, "without checkpoint_path"),
    ],
)
def test_networks_that_timm_does_not_have(name, config, error, said, timm):
    refused(ifa.ModelRef(f"timm:{name}", config=config), error, said)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_library_that_does_not_load(library, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)
    place = "timm:resnet18" if library == "timm" else f"hf:{tmp_path}"
    refused(ifa.ModelRef(place), LookupError, f"expected {library}, ", "ModuleNotFoundError")


# preparations ---------------------------------------------------------------------------------


def picture(mode="RGB", size=(50, 40)):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return image.fromarray(pixels).convert(mode)


def test_the_processor_of_a_folder(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875)
    processor.save_pretrained(folder)
    reference = ifa.ModelRef(f"hf:{folder}")
    prepare = pickle.loads(pickle.dumps(reference.preparation("hf")))
    given = prepare(picture())
    assert torch.equal(given, processor(picture(), return_tensors="pt")["pixel_values"][0])
    assert reference.load()(given[None]).logits.shape == (1, 3)
    assert torch.equal(prepare(picture("L")), prepare(picture("L").convert("RGB")))
    elsewhere = ifa.ModelRef("test_references:net").preparation(f"hf:{folder}")
    assert torch.equal(elsewhere(picture()), given)


def test_a_processor_that_gives_more_than_pixels(transformers, tmp_path):
    folder = saved(resnet(transformers), tmp_path / "net")
    processor = transformers.YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64})
    processor.save_pretrained(folder)
    given = ifa.ModelRef(f"hf:{folder}").preparation("hf")(picture())
    assert given["pixel_values"].shape == (1, 3, 32, 32)
    assert given["pixel_mask"].shape == (1, 32, 32)
    picture().save(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text("path,label\na.png,0\n")
    prepare = ifa.ModelRef(f"hf:{folder}").preparation("hf")
    taken = ifa.data.table(tmp_path / "table.csv", prepare=prepare)[0][0]
    assert taken["pixel_values"].shape == (3, 32, 32)
    assert taken["pixel_mask"].shape == (32, 32)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_timm_s_transform(size, crop_mode, timm):
    timm.settings = Settings(input_size=(3, *size), crop_mode=crop_mode, crop_pct=0.8)
    prepare = ifa.ModelRef("timm:netlet").preparation("timm")
    given = pickle.loads(pickle.dumps(prepare))(picture(size=(50, 70)))
    assert given.shape == (3, *size)
    uniform = prepare(picture().resize((1, 1)).resize((60, 60)))
    assert torch.unique(uniform.flatten(1), dim=1).shape == (3, 1)


def test_timm_s_transform_keeps_what_has_the_right_size(timm):
    timm.settings = Settings(crop_pct=1.0)
    prepare = ifa.ModelRef("timm:netlet").preparation("timm")
    shown = picture(size=(32, 32))
    pixels = torch.from_numpy(np.array(shown)).permute(2, 0, 1) / 255
    mean, deviation = (torch.tensor(each)[:, None, None] for each in timm.settings[1:3])
    torch.testing.assert_close(prepare(shown), (pixels - mean) / deviation)


def test_timm_s_transform_is_of_the_size_of_the_network(timm):
    prepare = ifa.ModelRef("timm:netlet", config={"img_size": 16}).preparation("timm")
    assert prepare(picture()).shape == (3, 16, 16)
    other = ifa.ModelRef("timm:netlet", config={"img_size": 16}).preparation("timm:netlet")
    assert other(picture()).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("size", "crop", "shape", "band"),
    [
        ((8, 8), 1.0, (8, 11), slice(2, 10)),  # round((11 - 8) / 2), to the even one
        ((8, 8), 1.0, (13, 8), slice(2, 10)),
        ((8, 8), 0.8, (10, 10), slice(1, 9)),
        ((9, 9), 1.15, (7, 7), slice(-1, 8)),  # padded, as by torchvision
        ((10, 10), 1.4, (7, 7), slice(-1, 9)),
    ],
)
def test_timm_s_transform_takes_the_middle(size, crop, shape, band, timm):
    timm.settings = Settings(input_size=(3, *size), crop_pct=crop, mean=(0,) * 3, std=(1,) * 3)
    image = pytest.importorskip("PIL.Image")
    ramp = np.arange(1, max(shape) + 1, dtype=np.uint8)
    pixels = np.broadcast_to(ramp[: shape[1]], shape) if shape[0] <= shape[1] else ramp[:, None]
    shown = image.fromarray(np.repeat(np.broadcast_to(pixels, shape)[..., None], 3, axis=-1))
    given = ifa.ModelRef("timm:netlet").preparation("timm")(shown)[0] * 255
    line = given[size[0] // 2] if shape[0] <= shape[1] else given[:, size[1] // 2]
    edge = np.pad(ramp, 5)[band.start + 5 : band.stop + 5]
    np.testing.assert_allclose(line.numpy(), edge, atol=1e-4)


def negative(shown):
    return 1 - torch.from_numpy(np.array(shown.convert("L")) / 255)[None]


def test_an_own_preparation():
    prepare = ifa.ModelRef("torch.nn:Identity").preparation("test_references:negative")
    assert prepare(picture()).shape == (1, 40, 50)


def test_an_own_preparation_of_a_file_goes_to_other_processes(tmp_path):
    (tmp_path / "filed_prepare.py").write_text("def prepare(picture): return picture.size\n")
    prepare = ifa.ModelRef("torch.nn:Identity").preparation(f"{tmp_path}/filed_prepare.py:prepare")
    sent = pickle.dumps(prepare)
    del sys.modules["filed_prepare"]
    preparations._function.cache_clear()  # as in another process
    assert pickle.loads(sent)(picture()) == (50, 40)


@pytest.mark.parametrize(
    ("factory", "how", "error", "said"),
    [
        ("test_references:net", "hf", ValueError, "a network 'hf:…' to take the preparation 'hf'"),
        ("hf:somewhere", "timm", ValueError, "a network 'timm:…'"),
        ("hf:somewhere", "hf", FileNotFoundError, "a folder with a config.json after 'hf:'"),
        (
            "hf:somewhere",
            "hf:FOLDER",
            FileNotFoundError,
            "hold a preprocessor_config.json, got none",
        ),
        ("timm:none", "timm", LookupError, "a network that timm 1 has, got 'none'"),
        ("test_references:net", "test_references:NET", TypeError, "to prepare a picture, got str"),
        ("test_references:net", "nothing", ValueError, "'package.module:name'"),
    ],
)
def test_preparations_that_lead_nowhere(factory, how, error, said, timm, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    reference = ifa.ModelRef(factory)
    with pytest.raises(error, match=r"^ifa\.ModelRef\.preparation: expected ") as caught:
        reference.preparation(how.replace("FOLDER", str(tmp_path)))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "config", "said"),
    [
        ({}, {"in_chans": 1}, "mean and deviation of 1 channels, got those of 3"),
        ({"crop_mode": "border"}, {}, "'center' or 'squash', got 'border'"),
    ],
)
def test_transforms_of_timm_that_are_others(settings, config, said, timm):
    timm.settings = Settings(**settings)
    reference = ifa.ModelRef("timm:netlet", config=config)
    with pytest.raises(ValueError, match=r"^ifa\.ModelRef\.preparation: expected ") as caught:
        reference.preparation("timm")
    assert said in str(caught.value)


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore")  # timm's own
def test_timm_itself():
    from test_default_layers import without_torchvision

    with without_torchvision():
        pytest.importorskip("timm")
        reference = ifa.ModelRef("timm:resnet18.a1_in1k", config={"num_classes": 4})
        given = reference.preparation("timm")(picture(size=(300, 280)))
        assert reference.load()(given[None]).shape == (1, 4)
        assert same(reference.load(), reference.load())
        refused(ifa.ModelRef("timm:resnet19"), LookupError, "Near it are: resnet18")
        refused(ifa.ModelRef("timm:resnet18.none"), LookupError, "got 'resnet18.none'")


def test_deep_pictures_are_not_clipped(timm):
    prepare = ifa.ModelRef("timm:netlet").preparation("timm")
    with pytest.raises(
        ValueError, match=r"^ifa\.ModelRef\.preparation: .* eight bits, got mode 'F'"
    ):
        prepare(picture("F"))
    with pytest.raises(TypeError, match=r"^ifa\.ModelRef\.preparation: .* PIL, got ndarray"):
        prepare(np.zeros((8, 8)))
