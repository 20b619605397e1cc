"""The commands after `ifa analyze`: what they print, read and refuse; every one end to end."""

import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cheap_runs import results

import ifa
from ifa.cli import main

MODULE = """
import pathlib, numpy, torch
import ifa


def network(outputs=3):
    return torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(28, outputs)
    )


def values():
    return torch.randn(40, 2, 9, generator=torch.Generator().manual_seed(0))


def data():
    return [(one, index % 3) for index, one in enumerate(values())]


def signals():
    kinds = pathlib.Path("labels.txt").read_text().split()
    return ifa.data.signals(values(), kinds, ids=[f"s{index}" for index in range(40)])


def elsewhere():
    kinds = pathlib.Path("labels.txt").read_text().split()[:30]
    return ifa.data.signals(values()[:30] * 0.9, kinds, ids=[f"t{index}" for index in range(30)])


def ages():
    return [(one, [float(one.mean()), 0.0]) for one in values()]


def single():
    return [(one, float(one.mean())) for one in values()]


def wrong():
    kinds = pathlib.Path("labels.txt").read_text().split()
    other = {"rest": "sleep", "sleep": "task", "task": "rest"}
    right = [place for place in range(40) if place % 5]
    return ifa.data.signals(values()[right], [other[kinds[place]] for place in right])
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with a network, its weights, and data, in which one works."""
    import torch
    from safetensors.torch import save_file

    (tmp_path / "ours.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    import ours

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = ours.network()
        with torch.no_grad():  # every class is predicted about equally often, four of five rightly
            net[3].bias -= net(ours.values()).mean(0)
            found = net(ours.values()).argmax(1).tolist()
        names = [["rest", "sleep", "task"][(t + (i % 5 == 0)) % 3] for i, t in enumerate(found)]
        (tmp_path / "labels.txt").write_text("\n".join(names))
        save_file(net.state_dict(), tmp_path / "w.safetensors")
        for outputs in (2, 1):
            save_file(ours.network(outputs).state_dict(), tmp_path / f"w{outputs}.safetensors")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command: its exit code, and what it wrote."""

    def do(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return do


NET = ("ours:network", "--weights", "w.safetensors", "--layer", "1", "--quiet", "--out", "run")


def test_what_follows_an_analysis(home, run):
    code, out, err = run("analyze", "ours:network", "ours:signals", *NET[1:])
    assert code == 0
    assert err == "Note: target names are the data's: rest, sleep, task\n"
    for said in ("40 samples, classification", "accuracy: ", "95 % interval", "  rest ", "logit"):
        assert said in out
    samples = ifa.open("run")["samples"].to_dataset()
    right = int((samples["label"] == samples["prediction"]).sum())
    assert f"accuracy: {right / 40:.3f} (95 % interval" in out
    known = "run ours:network ours:signals --weights w.safetensors"
    assert f"\n  ifa evaluate {known}\n" in out
    assert "ifa diagnose needs a run with --keep-samples full" in out
    assert (home / "run.png").read_bytes()[:4] == b"\x89PNG"
    ifa.verify("run")


def test_parts_of_a_run_and_its_commit(home, run):
    """What two jobs of an array do, and a third finishes, is what one does."""
    made = ("analyze", "ours:network", "ours:signals", *NET[1:-1])
    assert run(*made, "whole", "--shard", 20)[0] == 0
    part = (*made, "run", "--shard", 20, "--shards")
    code, said, _ = run(*part, "1/2")
    assert (code, said) == (0, "run: run, 1 of 2 shards done\n")
    code, _, errors = run("commit", "run")
    assert code == 1
    assert "got 1 missing: 1" in errors
    assert run(*part, "2/2")[1] == "run: run, 2 of 2 shards done\nnext:\n  ifa commit run\n"
    code, said, _ = run("commit", "run")
    assert code == 0
    assert "40 samples, classification" in said
    assert results(home / "run") == results(home / "whole")
    assert "next:\n  ifa maps" in run(*part, "2/2")[1]  # it is finished, as without parts
    for wrong in ("3", "0/2", "x/2"):
        assert run(*part, wrong)[0] == 1


def test_all_that_an_analysis_takes(home, run):
    (home / "names.txt").write_text("one\ntwo\nthree\n")
    rows = "".join(f"s{index},{'ab'[index % 2]}\n" for index in range(45))
    (home / "sites.csv").write_text("id,site\n" + rows)
    options = ("--target-names", "names.txt", "--groups", "sites.csv:site", "--limit", "14")
    options += ("--reductions", "histogram,top_samples", "--workers", "0", "--data-version", "7")
    options += ("--versions", "any", "--keep-samples", "full")
    code, out, err = run("analyze", "ours:network", "ours:signals", *NET[1:], *options)
    assert code == 0
    assert "Note: 14 of 40 samples, evenly spaced" in err
    tree = ifa.open("run")
    assert tree["1"]["target_name"].values.tolist() == ["one", "two", "three"]
    assert tree["samples"]["id"].values[[0, 1, -1]].tolist() == ["s0", "s3", "s39"]
    assert tree["1"]["group"].values.tolist() == ["a", "b"]
    assert {"importance_histogram", "top_sample"} <= set(tree["1"].data_vars)
    assert "--limit 14" in out
    assert "\n  ifa diagnose run\n" in out


def test_regression_and_no_samples(home, run):
    words = ("analyze", "ours:network", "ours:ages", "--config", "outputs=2", "--layer", "1")
    words += ("--weights", "w2.safetensors", "--task", "regression", "--quiet")
    code, out, _ = run(*words, "--out", "run")
    assert code == 0
    assert "output 0: r = " in out
    code, out, _ = run(*words, "--out", "other", "--keep-samples", "none")
    assert code == 0
    assert "not known, no sample was kept (keep_samples='none'); 'summary' keeps it" in out


BAD = {
    "too few names": (["--target-names", "a,b"], "a target name for each of 3 outputs, got 2"),
    "names twice": (["--target-names", "a,b,a"], "each class once in names"),
    "no file of names": (["--target-names", "none.txt"], "got none.txt, which is no file"),
    "groups that are nowhere": (["--groups", "site"], "a line for each sample, or TABLE.csv:COL"),
    "too few groups": (["--groups", "two.txt"], "a line for each of 40 samples, got 2"),
    "no such column": (["--groups", "sites.csv:age"], "columns 'age' and 'id' (or 'path')"),
    "a sample without group": (["--groups", "sites.csv:site"], "none of 38, such as 's2'"),
    "an unknown reduction": (["--reductions", "median"], "median"),
    "no sample": (["--limit", "0"], "--limit"),
    "other versions": (["--versions", "some"], "versions"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_an_analysis_refuses(name, home, run):
    (home / "two.txt").write_text("a\nb\n")
    (home / "sites.csv").write_text("id,site\ns0,a\ns1,b\n")
    options, text = BAD[name]
    code, out, err = run("analyze", "ours:network", "ours:signals", *NET[1:], *options)
    assert code == 1
    assert text in err
    assert out == ""
    assert not (home / "run").exists()


def test_groups_of_data_that_do_not_know_their_ids(home, run):
    (home / "sites.csv").write_text("id,site\ns0,a\ns1,b\n")
    words = ("analyze", "ours:network", "ours:data", *NET[1:])
    code, _, err = run(*words, "--groups", "sites.csv:site")
    assert code == 1
    assert "data that know their ids without being read" in err
    (home / "lines.txt").write_text("".join(f"{'ab'[i % 2]}\n" for i in range(40)))
    code, _, _ = run(*words, "--groups", "lines.txt")
    assert code == 0
    assert ifa.open("run")["1"]["group"].values.tolist() == ["a", "b"]


def test_clusters_of_a_table_of_a_folder_and_of_paths(home, run):
    rows = "path,label,patient\n"
    for index in range(6):
        (home / f"p{index % 2}").mkdir(exist_ok=True)
        np.save(
            home / f"p{index % 2}/{index}.npy", np.random.default_rng(index).normal(size=(2, 9))
        )
        rows += f"p{index % 2}/{index}.npy,{index % 3},{index // 2}\n"
    (home / "table.csv").write_text(rows)
    words = ("analyze", "ours:network", "table.csv", *NET[1:-1])
    code, _, err = run(*words, "none", "--quiet")
    assert code == 0
    assert "several samples share a 'patient': --cluster patient keeps that" in err
    assert ifa.open("none").attrs["shared"] == "patient"
    for given, expected in (("patient", "001122"), ("parent", ["p0", "p1"] * 3)):
        code, _, err = run(*words, given, "--cluster", given)
        assert code == 0
        assert "several" not in err
        assert ifa.open(given)["samples"]["cluster"].values.tolist() == list(expected)


def test_a_column_of_the_table_that_is_the_data(home, run):
    for index in range(6):
        np.save(home / f"{index}.npy", np.random.default_rng(index).normal(size=(2, 9)))
    rows = "".join(f"{index}.npy,{'xyz'[index % 3]},{'ab'[index % 2]}\n" for index in range(6))
    (home / "table.csv").write_text("path,label,site\n" + rows)
    code, _, err = run("analyze", "ours:network", "table.csv", *NET[1:], "--groups", "site")
    assert code == 0
    assert "groups are the data's: a, b" in err
    assert ifa.open("run")["1"]["group"].values.tolist() == ["a", "b"]
    assert ifa.open("run")["1"]["target_name"].values.tolist() == ["x", "y", "z"]


@pytest.fixture
def full(home, run):
    """A run that kept everything, `run`, and another, of fewer samples, `other`."""
    (home / "sites.csv").write_text(
        "id,site,age\n" + "".join(f"s{i},{'ab'[i % 2]},{i / 7:.2f}\n" for i in range(40))
    )
    words = (*NET[1:], "--keep-samples", "full", "--targets", "0,1")
    assert run("analyze", "ours:network", "ours:signals", *words)[0] == 0
    assert run("analyze", "ours:network", "ours:elsewhere", *words, "--out", "other")[0] == 0
    return home


def test_a_run_is_opened_and_verified(full, run):
    code, out, err = run("open", "run")
    assert (code, err) == (0, "")
    assert out == ifa.population.summary(ifa.open("run")) + "\nrun: run\n"
    assert run("verify", "run") == (0, "run: every file is as it was committed\n", "")
    with (full / "run" / "shards" / "00000.npz").open("ab") as file:
        file.write(b"x")
    for command in ("verify", "open"):
        code, out, err = run(command, "run")
        assert (code, out) == (1, "")
        assert "as it was committed, got 1 differences" in err
    code, _, err = run("open", "nowhere")
    assert code == 1
    assert "expected a run at nowhere, got nothing there" in err


def test_runs_are_merged(full, run):
    code, out, err = run("merge", "run", "other", "--out", "both")
    assert (code, err) == (0, "")
    assert "70 samples, classification" in out
    ifa.verify("both")
    for words, text in (
        (("run", "other", "--out", "run"), "ifa.merge: expected"),
        (("run", "run", "--out", "twice"), "they would count twice"),
    ):
        code, out, err = run("merge", *words)
        assert (code, out) == (1, "")
        assert text in err


def test_a_diagnosis_of_all_there_is(full, run):
    words = ("ours:network", "ours:signals", "--weights", "w.safetensors")
    words += ("--other", "other", "--nuisance", "sites.csv:site", "--pictures", "pictures")
    code, out, err = run("diagnose", "run", *words)
    assert (code, err) == (0, "")
    kinds = ["outliers", "redundancy", "shift", "agreement", "confounders", "principal-features"]
    for kind in kinds:
        assert f"  picture: pictures/{kind}.png" in out
        assert (full / "pictures" / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"
    assert "outliers of layer 1: " in out
    assert "pairs of channels are correlated" in out
    assert "of 4 channels keep the accuracy" in out
    assert " with --" not in out


def test_claims_are_measured_with_what_the_run_ranks(home, run):
    assert run("analyze", "ours:network", "ours:signals", *NET[1:])[0] == 0
    words = ("run", "ours:network", "ours:elsewhere", "--weights", "w.safetensors")
    code, out, err = run("claims", *words, "--ratio", "0.5", "--picture", "claims.png")
    assert code == 0, err
    assert out.startswith("Layer 1, 30 samples; 50% of the channels kept\n")
    assert "\nThat the level of maps follows the score " in out
    assert (home / "claims.png").read_bytes()[:4] == b"\x89PNG"
    code, out, err = run("claims", "run", "ours:network", "ours:signals")
    assert (code, out) == (1, "")
    assert "the network of the run at run, got others" in err


def test_what_a_diagnosis_cannot_say_is_said(home, run):
    assert run("analyze", "ours:network", "ours:signals", *NET[1:])[0] == 0
    code, out, err = run("diagnose", "run")
    assert (code, err) == (0, "")
    assert "`ifa analyze --keep-samples full` keeps it" in out
    for said in ("shift, agreement: with --other", "confounders: with --nuisance", "MODEL DATA"):
        assert said in out
    for words, text in (
        (["ours:network"], "expected MODEL and DATA, or neither"),
        (["--layer", "7"], "one of the run's, 1, got '7'"),
        (["--nuisance", "none.csv:site"], "a line for each sample, or TABLE.csv:COLUMN"),
        (["ours:network", "ours:signals"], "the network of the run at run, got others"),
    ):
        code, out, err = run("diagnose", "run", *words)
        assert (code, out) == (1, "")
        assert text in err


def test_a_diagnosis_of_groups_and_of_regression(full, run):
    words = ("ours:network", "ours:signals", "--weights", "w.safetensors")
    kept = ("--keep-samples", "full", "--layer", "1", "--quiet")
    code, _, err = run("analyze", *words, *kept, "--groups", "sites.csv:site", "--out", "g")
    assert code == 0, err
    code, out, err = run("diagnose", "g", *words, "--other", "run", "--nuisance", "sites.csv:age")
    assert (code, err) == (0, "")
    for kind in ("agreement", "principal features"):
        assert f"{kind} of layer 1: not of a run by groups; analyze without --groups" in out
    assert "outliers of layer 1: none. ifa.diagnose.outliers: expected a target with at" in out
    words = ("ours:network", "ours:ages", "--weights", "w2.safetensors", "--config", "outputs=2")
    assert run("analyze", *words, *kept, "--task", "regression", "--out", "r")[0] == 0
    code, out, err = run("diagnose", "r", *words, "--pictures", "pictures")
    assert (code, err) == (0, "")
    assert "channels keep the r within 0.01" in out


def test_a_diagnosis_where_nothing_can_be_ranked(home, run):
    words = ("ours:network", "ours:wrong", "--weights", "w.safetensors")
    assert run("analyze", *words, "--layer", "1", "--quiet", "--out", "w")[0] == 0
    code, out, err = run("diagnose", "w", *words)
    assert (code, err) == (0, "")
    assert (
        "principal features of layer 1: none. ifa.diagnose.principal_features: expected im" in out
    )
    words = ("ours:network", "ours:single", "--config", "outputs=1", "--weights", "w1.safetensors")
    options = ("--layer", "1", "--task", "regression", "--quiet", "--out", "one")
    assert run("analyze", *words, *options)[0] == 0
    code, out, err = run("diagnose", "one", *words, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "channels keep the r within 0.01" in out


def test_version(run):
    assert run("--version") == (0, f"{ifa.__version__}\n", "")


INIT = ("init", "ours:network", "ours:signals", "--weights", "w.safetensors")


def test_init_then_nothing_needs_to_be_typed(home, run):
    code, out, err = run(*INIT)
    assert (code, err) == (0, "")
    assert "layer: 1, 4 channels on 7\n" in out
    assert out.endswith("options: ifa.toml\nnext:\n  ifa analyze\n")
    written = tomllib.loads((home / "ifa.toml").read_text())
    shared = {"model": "ours:network", "weights": "w.safetensors", "data": "ours:signals"}
    assert {name: written[name] for name in shared} == shared
    assert written["run"] == written["analyze"]["out"] == "run"
    assert written["analyze"]["target_names"] == ["rest", "sleep", "task"]
    assert written["analyze"]["layer"] == ["1"]
    assert written["analyze"]["batch_size"] == 32
    code, out, err = run("analyze", "--quiet")
    assert code == 0
    assert "Note: ifa.toml gives model, data, out, weights, layer, weight, targets" in err
    assert "\n  ifa evaluate run\n  ifa diagnose run\n" in out
    code, out, err = run("diagnose")
    assert code == 0
    assert "Note: ifa.toml gives run, model, data, weights" in err
    assert "channels keep the accuracy" in out
    code, out, err = run("layers")
    assert code == 0
    assert "*  1 " in out
    code, out, err = run(
        *("evaluate", "--methods", "gradcam,noise", "--metrics", "deletion", "--samples", "6"),
        "--quiet",
    )
    assert code == 0
    assert "table: run-evaluation" in out


def test_what_is_typed_comes_first(home, run):
    assert run(*INIT)[0] == 0
    code, out, err = run("analyze", "--out", "mine", "--layer", "0", "--quiet", "--limit", "9")
    assert code == 0
    assert not (home / "run").exists()
    assert ifa.open("mine").attrs["layers"] == ["0"]
    assert ", out" not in err
    assert "  ifa evaluate mine --limit 9\n" in out


def test_a_file_of_another_name(home, run):
    code, out, _ = run(*INIT, "--out", "other.toml", "--run", "there")
    assert code == 0
    assert "  ifa --options other.toml analyze\n" in out
    assert not (home / "ifa.toml").exists()
    code, out, err = run("--options", "other.toml", "analyze", "--quiet")
    assert code == 0
    assert "Note: other.toml gives model, data, out" in err
    assert "\n  ifa --options other.toml evaluate there\n" in out
    assert ifa.open("there")
    code, _, err = run("--options", "none.toml", "open")
    assert code == 1
    assert "expected a file of options at none.toml, got none" in err


def test_init_overwrites_nothing_unasked(home, run):
    (home / "ifa.toml").write_text("# mine\n")
    code, _, err = run(*INIT)
    assert code == 1
    assert "expected nothing at ifa.toml, got a file. Nothing was touched." in err
    assert (home / "ifa.toml").read_text() == "# mine\n"
    assert run(*INIT, "--overwrite")[0] == 0


def test_init_of_values_and_of_classes_that_are_no_outputs(home, run):
    words = ("--config", "outputs=2", "--weights", "w2.safetensors", "--overwrite")
    assert run("init", "ours:network", "ours:ages", *words)[0] == 0
    written = tomllib.loads((home / "ifa.toml").read_text())
    assert written["analyze"]["task"] == "regression"
    assert written["config"] == ["outputs=2"]
    assert "target_names" not in written["analyze"]
    code, _, err = run("init", "ours:network", "ours:signals", *words)
    assert code == 0
    assert "the network has 2 outputs and the data 3 classes" in err


BAD_FILES = {
    "no TOML": ("model = ", "expected ifa.toml to be TOML"),
    "an unknown name": ('modle = "a"', "got 'modle'. Did you mean 'model'?"),
    "an unknown table": ("[analyse]\nshard = 3", "got 'analyse'. Did you mean 'analyze'?"),
    "an unknown option": ("[analyze]\nbatchsize = 3", "Did you mean 'batch_size'?"),
    "an option of one command": ("batch_size = 3", "in the table of a command, such as [analyze]"),
    "a list with commas": ('[analyze]\ntarget_names = ["a,b", "c"]', "to have no commas in it"),
    "a number that is none": ('[analyze]\nshard = "many"', "shard"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_none(name, home, run):
    text, said = BAD_FILES[name]
    (home / "ifa.toml").write_text(text)
    words = ("ours:network", "ours:signals", "--weights", "w.safetensors", "--out", "run")
    code, out, err = run("analyze", *words)
    assert code != 0
    assert said in err
    assert out == ""
    assert not (home / "run").exists()
    assert run("analyze", "--help")[0] == 0


def test_the_story_of_the_page_on_own_data(tmp_path, monkeypatch, run):
    pytest.importorskip("transformers")
    docs = Path(__file__).parents[1] / "docs"
    page = (docs / "how-to" / "own-data.md").read_text().partition("<!-- story -->")[2]
    lines = page.partition("```bash\n")[2].partition("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(docs / "make_crops.py"))["main"](Path("photos"))
    script, *commands = map(shlex.split, lines)
    runpy.run_path(str(docs.parent / script[1]))["main"](*script[2:])
    said = {}
    for _, *words in commands:
        code, said[words[0]], err = run(*words)
        assert code == 0, err
    assert "layer: resnet.encoder.stages.1, 32 channels on 4 × 4" in said["init"]
    shown = page.partition("```toml\n")[2].partition("```")[0]
    written = (tmp_path / "ifa.toml").read_text().splitlines()
    assert {line for line in shown.splitlines() if line} <= set(written)
    assert "of 150" in said["analyze"]
    assert "table: run-evaluation" in said["evaluate"]
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert list((tmp_path / "run-maps").rglob("*.png"))
