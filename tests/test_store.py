"""A run on disk: its layout, that nothing gets lost or mixed, and that others can read it."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import zarr
from naming import plain
from populations import Counted, contents, digits_like, measured, net

import ifa
from ifa.network.identity import model_token
from ifa.network.tokens import callable_token
from ifa.store.files import locked
from ifa.store.runs import Run
from ifa.store.specs import data_token

OPTIONS = {"layer": ["conv2", "conv1"], "shard": 5, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def model():
    return net(1)


@pytest.fixture(scope="module")
def data(model):
    return digits_like(model, named=True)


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    ifa.analyze(model, data, store=path, **OPTIONS)
    return path


@pytest.fixture
def run(finished, tmp_path):
    """Give a copy of a finished run, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "run")


def results(path):
    """Digests of everything but COMMIT.json, which has the date."""
    return {name: digest for name, digest in contents(path).items() if name != "COMMIT.json"}


# Layout


def test_the_layout(finished):
    assert {path.name for path in finished.iterdir()} == {
        "spec.json",
        "samples.zarr",
        "shards",
        "statistics.zarr",
        "COMMIT.json",
    }
    names = [path.name for path in sorted((finished / "shards").iterdir())]
    assert names == [f"{shard:05d}.npz" for shard in range(5)]
    text = (finished / "spec.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False)
    record = json.loads((finished / "COMMIT.json").read_text())
    assert {name: digest for name, (_, digest) in record["files"].items()} == results(finished)
    assert record["versions"][0]["torch"] == torch.__version__
    assert record["created"].endswith("+00:00")


READER = """
import sys
import numpy as np
import xarray as xr
tree = xr.open_datatree(sys.argv[1] + "/statistics.zarr", engine="zarr", chunks=None)
assert tree.attrs["layers"] == ["conv2", "conv1"]
assert "ifa.analyze" not in sys.modules and not any(name == "ifa" for name in sys.modules)
import json
spec = json.loads(tree.attrs["spec"])
assert spec["model"]["class"] == "populations.Net", spec
assert tree.attrs["ifa_version"] and tree.attrs["torch_version"] and tree.attrs["schema"] == 3
for layer in ("conv1", "conv2"):
    dataset = tree[layer].to_dataset()
    assert dataset["importance"].dims == ("target", "channel")
    assert dataset["importance"].attrs["units"] == "logit"
    for variable in dataset.data_vars.values():
        assert variable.attrs["long_name"] and variable.attrs["units"], variable
    assert dataset["count"].dtype == np.int64 and int(dataset["count"].sum()) > 0
    assert dataset["quantile"].values.tolist() == [0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
samples = xr.open_datatree(sys.argv[1] + "/samples.zarr", engine="zarr", chunks=None)
assert samples["id"].values.tolist() == [f"case {n:02d} \\u00e9" for n in range(23)]
assert samples["label"].dtype == np.int64 and samples["prediction"].dtype == np.int64
assert samples["conv1/map_max"].attrs == {"long_name": "largest value of the map", "units": "logit"}
assert bool(samples["conv2/finite"].all())
print("read")
"""


def test_plain_xarray_reads_it_without_ifa(finished):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READER, str(finished)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


def metadata(store):
    """Metadata of every array below a store, from the files themselves."""
    found = {}
    for file in store.rglob("zarr.json"):
        entry = json.loads(file.read_text())
        if entry["node_type"] == "array":
            found[file.parent.relative_to(store).as_posix()] = entry
    return found


def test_every_array_has_checksums_and_fill_values_that_are_no_masks(finished):
    samples, statistics = (metadata(finished / f"{n}.zarr") for n in ("samples", "statistics"))
    assert {"id", "label", "conv1/map_max", "conv2/finite"} <= set(samples)
    for name, entry in {**samples, **statistics}.items():
        codec = entry["codecs"][-1]
        assert codec["name"] == "zstd", name
        assert codec["configuration"]["checksum"] is True, name
        assert "_FillValue" not in entry["attributes"], name
        if "float" in entry["data_type"]:
            assert entry["fill_value"] == "NaN", name
    assert samples["id"]["data_type"] == "string"
    assert samples["label"]["fill_value"] == -1
    for entry in samples.values():
        assert entry["chunk_grid"]["configuration"]["chunk_shape"][-1] == 5
        assert entry["dimension_names"] == ["sample"]


def test_metadata_is_consolidated(finished):
    for store in ("samples.zarr", "statistics.zarr"):
        group = zarr.open_group(finished / store, mode="r", use_consolidated=True)
        assert "conv1" in group


def test_targets_are_whole_chunks_and_named(model, data, tmp_path):
    names = ["zero", "one", "two", "three"]
    tree = ifa.analyze(
        model,
        data,
        store=tmp_path / "run",
        targets=(3, 0),
        target_names=names,
        keep_samples="full",
        **OPTIONS,
    )
    entry = metadata(tmp_path / "run" / "samples.zarr")["conv2/importance"]
    assert entry["chunk_grid"]["configuration"]["chunk_shape"] == [2, 5, 5]
    assert tree["samples/conv2"]["target_name"].values.tolist() == ["three", "zero"]
    assert tree["conv2"]["target_name"].values.tolist() == ["three", "zero"]
    assert tree["samples/conv2"]["target"].values.tolist() == [3, 0]


def test_real_zeros_and_minus_one_come_back(tmp_path):
    """A value that equals a fill value is a value."""
    model = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 1), torch.nn.Flatten()).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    data = [(torch.zeros(1, 2), -1.0, "") for _ in range(3)]
    tree = ifa.analyze(model, data, task="regression", layer="0", store=tmp_path, progress=False)
    samples = tree["samples"]
    assert samples["label"].values.tolist() == [-1.0] * 3
    assert samples["id"].values.tolist() == [""] * 3
    for name in ("map_max", "map_min", "map_sum"):
        assert (samples["0"][name].values == 0).all()
    assert (tree["0"]["map_max_overall"].values == 0).all()
    assert samples["0/finite"].values.all()
    ifa.verify(tmp_path)


# The same bits


class Interrupted(Exception):
    pass


class Flaky(Counted):
    """Fails at an index, which must not be one of those that identify the data."""

    def __init__(self, items, fails_at):
        super().__init__(items)
        self.fails_at = fails_at

    def __getitem__(self, index):
        if index == self.fails_at:
            raise Interrupted
        return super().__getitem__(index)


@pytest.mark.parametrize("keep_samples", ["none", "summary", "full"])
@pytest.mark.parametrize("targets", ["predicted", (3, 0)], ids=str)
def test_an_interrupted_run_gives_the_same_bits(model, data, targets, keep_samples, tmp_path):
    options = {**OPTIONS, "targets": targets, "keep_samples": keep_samples}
    ifa.analyze(model, data, store=tmp_path / "whole", **options)
    for moment in (3, 12, 21):
        flaky = Flaky(data, fails_at=moment)
        with pytest.raises(RuntimeError, match="got Interrupted from the data set"):
            ifa.analyze(model, flaky, store=tmp_path / "run", **options)
        done = len(list((tmp_path / "run" / "shards").glob("*.npz")))
        assert done == moment // 5
    reported = []
    options["progress"] = lambda *report: reported.append(report)
    ifa.analyze(model, data, store=tmp_path / "run", **options)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert reported[0] == (20, 23)
    assert reported == sorted(reported)
    assert reported[-1] == (23, 23)
    ifa.verify(tmp_path / "run")


def test_threads_give_the_same_bits(model, data, finished, tmp_path):
    reported = []
    options = {**OPTIONS, "progress": lambda *report: reported.append(report)}
    with ThreadPoolExecutor(3) as pool:
        ifa.analyze(model, data, store=tmp_path / "run", map=pool.map, **options)
        memory = ifa.analyze(model, data, map=pool.map, **OPTIONS)
    assert results(tmp_path / "run") == results(finished)
    assert reported == [(done, 23) for done in (0, 5, 10, 15, 20, 23)]
    assert memory["conv1"].to_dataset().identical(ifa.open(finished)["conv1"].to_dataset())


def test_processes_give_the_same_bits(model, data, finished, tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        ifa.analyze(model, data, store=tmp_path / "run", map=pool.map, **OPTIONS)
    assert results(tmp_path / "run") == results(finished)


def test_a_shard_that_is_done_again_gives_the_same_bits(model, data, finished, run):
    """As when a process is killed after it wrote the rows and before it marked them."""
    for name in ("COMMIT.json", "shards/00001.npz", "shards/00004.npz"):
        (run / name).unlink()
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert results(run) == results(finished)


# Killed between any two file operations


class Killed(Exception):
    """Stands for SIGKILL: once it was raised, no file can be changed any more."""


class Reaper:
    """Let a number of file operations pass, then none: not even those that clean up."""

    OPERATIONS = ("replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir")

    def __init__(self, monkeypatch, allowed):
        self.left, self.done, self.lock = allowed, 0, threading.Lock()
        for name in self.OPERATIONS:
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, operation):
        def counted(*args, **kwargs):
            with self.lock:
                if self.left <= 0:
                    raise Killed
                self.left -= 1
                self.done += 1
            return operation(*args, **kwargs)

        return counted


def killed_everywhere(model, data, home, monkeypatch, step):
    options = {**OPTIONS, "layer": "conv2", "shard": 8, "batch_size": 8}
    with monkeypatch.context() as patch:
        reaper = Reaper(patch, 10**6)
        ifa.analyze(model, data, store=home / "whole", **options)
    whole, kills = results(home / "whole"), 0
    for allowed in range(0, reaper.done, step):
        path = home / f"run{allowed}"
        for more in (allowed, 3):  # killed once, then again soon after it went on
            with monkeypatch.context() as patch:
                Reaper(patch, more)
                try:
                    ifa.analyze(model, data, store=path, **options)
                except Killed:
                    kills += 1
        ifa.analyze(model, data, store=path, **options)
        assert results(path) == whole, f"killed after {allowed} file operations"
        ifa.verify(path)
        shutil.rmtree(path)
    return kills, reaper.done


def test_a_kill_between_file_operations_loses_nothing(model, data, tmp_path, monkeypatch):
    kills, operations = killed_everywhere(model, data, tmp_path, monkeypatch, step=17)
    assert kills > operations / 17


@pytest.mark.deep
def test_a_kill_between_any_two_file_operations_loses_nothing(model, data, tmp_path, monkeypatch):
    kills, operations = killed_everywhere(model, data, tmp_path, monkeypatch, step=1)
    assert kills > operations


def test_what_killed_writers_left_is_swept(model, data, finished, run):
    (run / "COMMIT.json").unlink()
    shutil.rmtree(run / "statistics.zarr")
    left = [
        run / ".spec.json.0123.tmp",
        run / "shards" / ".00002.npz.0123.tmp",
        run / "samples.zarr" / "id" / "c" / "0.0123.partial",
        run / ".statistics.zarr.0123.tmp" / "conv1" / "zarr.0123.partial",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left behind")
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert results(run) == results(finished)
    ifa.verify(run)


def test_a_directory_whose_claim_was_killed_is_free(model, data, finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".spec.json.0123.tmp").write_bytes(b"{")
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert results(run) == results(finished)


# Repeated, refused


def test_a_finished_run_is_not_computed_again(model, data, finished):
    before = contents(finished)
    counted = Counted(data)
    tree = ifa.analyze(model, counted, store=finished, **OPTIONS)
    # the first two for shapes, those that identify the data, and all that are compared
    assert counted.reads <= 2 + 16 + 23
    assert contents(finished) == before
    assert tree["conv1"].to_dataset().identical(ifa.open(finished)["conv1"].to_dataset())


def other_model():
    other = net(1)
    with torch.no_grad():
        other.conv1.bias[0] += 1e-3
    return other


def relabelled(data):
    values, label, name = data[0]
    return [(values, (label + 1) % 4, name), *data[1:]]


def renamed(data):
    return [(*data[0][:2], "another"), *data[1:]]


def scaled(activations, gradients, *, factor=2.0):
    return gradients * factor


OTHERS = {
    "other weights": (lambda m, d: (other_model(), d, {}), "weights of the network"),
    "other architecture": (
        lambda m, d: (
            torch.nn.Sequential(m, torch.nn.Identity()),
            d,
            {"layer": ["0.conv2", "0.conv1"]},
        ),
        "layers",
    ),
    "another label": (lambda m, d: (m, relabelled(d), {}), "data: another sample"),
    "another id": (lambda m, d: (m, renamed(d), {}), "data: another sample"),
    "fewer data": (lambda m, d: (m, d[:-1], {}), "data.samples: 23 in the run, 22 now"),
    "more data": (lambda m, d: (m, [*d, d[0]], {}), "data"),
    "layer": (lambda m, d: (m, d, {"layer": "conv2"}), "layers"),
    "order of layers": (lambda m, d: (m, d, {"layer": ["conv1", "conv2"]}), "layers"),
    "weight": (lambda m, d: (m, d, {"weight": ifa.weight.gradcam}), "weight"),
    "own weight": (lambda m, d: (m, d, {"weight": scaled}), "weight"),
    "score": (lambda m, d: (m, d, {"score": ifa.score.probability}), "score"),
    "targets": (lambda m, d: (m, d, {"targets": "label"}), "targets"),
    "list of targets": (lambda m, d: (m, d, {"targets": [0, 1, 2, 3]}), "targets"),
    "names": (lambda m, d: (m, d, {"target_names": list("abcd")}), "target_names"),
    "groups": (lambda m, d: (m, d, {"groups": [0, 1, 2] * 7 + [0, 1]}), "groups"),
    "reduction": (lambda m, d: (m, d, {"reduction": "mean"}), "reduction"),
    "quantiles": (lambda m, d: (m, d, {"quantiles": [0.5, 0.9]}), "quantiles"),
    "kept": (lambda m, d: (m, d, {"keep_samples": "full"}), "keep_samples"),
    "batch_size": (lambda m, d: (m, d, {"batch_size": 3}), "batch_size: 2 in the run, 3 now"),
    "shard": (lambda m, d: (m, d, {"shard": 6}), "shard: 5 in the run, 6 now"),
    "regression": (
        lambda m, d: (m, measured(m, 23), {"task": "regression"}),
        "data: another sample",
    ),
}


def test_an_unfinished_run_of_other_threads_is_refused(model, data, run, monkeypatch):
    """The number of threads changes bits."""
    now = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: now + 1)
    said = f"threads: {now} in the run, {now + 1} now"
    with pytest.warns(ifa.RunNote, match=said):
        ifa.analyze(model, data, store=run, **OPTIONS)
    (run / "COMMIT.json").unlink()
    with pytest.raises(ValueError, match=f"another: {said}"):
        ifa.analyze(model, data, store=run, **OPTIONS)


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_another_analysis_is_refused_and_untouched(name, state, model, data, run):
    if state == "unfinished":
        (run / "COMMIT.json").unlink()
        (run / "shards" / "00003.npz").unlink()
    before = contents(run)
    change, said = OTHERS[name]
    other, items, options = change(model, data)
    with pytest.raises(ValueError, match="of this very analysis, got another: ") as caught:
        ifa.analyze(other, items, store=run, **{**OPTIONS, **options})
    assert f"got another: {said}" in str(caught.value)
    assert "Nothing was touched. Give another store=" in str(caught.value)
    assert contents(run) == before


@pytest.mark.parametrize("foreign", ["notes.txt", "shards/00000.npz", ".hidden"])
def test_a_directory_with_other_files_is_refused(foreign, model, data, tmp_path):
    path = tmp_path / "run" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"a directory with other files in it\. Nothing was"):
        ifa.analyze(model, data, store=tmp_path / "run", **OPTIONS)
    assert list(contents(tmp_path / "run")) == [foreign]


def test_a_file_is_no_directory(model, data, tmp_path):
    path = tmp_path / "run"
    path.write_text("mine")
    with pytest.raises(ValueError, match="to be new, empty or a run, got a file"):
        ifa.analyze(model, data, store=path, **OPTIONS)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match=r"ifa\.open: expected a run at .*, got a file"):
        ifa.open(path)


# Opened, verified


@pytest.mark.parametrize("read", [ifa.open, ifa.verify], ids=["open", "verify"])
def test_what_is_no_run_is_refused(read, tmp_path):
    with pytest.raises(ValueError, match=r"expected a run at .* got nothing there"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"got a directory without spec\.json"):
        read(tmp_path)


@pytest.mark.parametrize("read", [ifa.open, ifa.verify], ids=["open", "verify"])
def test_an_unfinished_run_says_how_to_go_on(read, run):
    (run / "COMMIT.json").unlink()
    (run / "shards" / "00001.npz").unlink()
    with pytest.raises(ValueError, match="expected a finished run") as caught:
        read(run)
    assert "Do what made it again to continue it." in str(caught.value)
    if read is ifa.open:
        assert "4 shards done and no COMMIT.json" in str(caught.value)


def files_of_every_kind(run):
    return [
        "spec.json",
        "shards/00003.npz",
        "samples.zarr/zarr.json",
        "samples.zarr/id/c/0",
        "samples.zarr/conv1/map_max/c/4",
        "samples.zarr/conv1/map_max/zarr.json",
        "statistics.zarr/zarr.json",
        "statistics.zarr/conv2/importance/c/0/0",
        "statistics.zarr/conv2/importance/zarr.json",
    ]


def test_verify_finds_a_flipped_bit_in_every_kind_of_file(run):
    ifa.verify(run)
    for name in files_of_every_kind(run):
        file = run / name
        whole = file.read_bytes()
        for position in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(bytes(b ^ (n == position) for n, b in enumerate(whole)))
            with pytest.raises(ValueError, match="got 1 differences") as caught:
                ifa.verify(run)
            assert f"{name} was changed" in str(caught.value)
        file.write_bytes(whole)
    ifa.verify(run)


def test_verify_finds_a_spoiled_commit(run):
    file = run / "COMMIT.json"
    whole = file.read_bytes()
    for spoiled in (b"", whole[:-2], whole.replace(b"torch", b"tarch"), b"\xff" + whole):
        file.write_bytes(spoiled)
        with pytest.raises(ValueError, match=r"COMMIT\.json cannot be read"):
            ifa.verify(run)


def test_verify_lists_all_that_is_wrong(run):
    (run / "shards" / "00002.npz").unlink()
    (run / "spec.json").unlink()
    (run / "notes.txt").write_text("mine")
    (run / "samples.zarr" / "conv1" / "map_min" / "c" / "9").write_bytes(b"more")
    with pytest.raises(ValueError, match="as it was committed, got 4 differences") as caught:
        ifa.verify(run)
    for said in (
        "shards/00002.npz is missing",
        "spec.json is missing",
        "notes.txt was not committed",
        "samples.zarr/conv1/map_min/c/9 was not committed",
        "Restore these files, or analyze anew elsewhere.",
    ):
        assert said in str(caught.value)


def test_a_flipped_bit_in_a_chunk_is_no_value(run):
    """Not silently another number: the checksum of the codec finds it, without verify."""
    file = run / "samples.zarr" / "conv1" / "map_max" / "c" / "0"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 4
    file.write_bytes(bytes(whole))
    samples = ifa.open(run)["samples/conv1"]
    with pytest.raises(RuntimeError, match=r"(?i)zstd|checksum|corrupt"):
        samples["map_max"].values  # noqa: B018


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense", None])
def test_a_shard_that_cannot_be_read_says_what_to_do(content, model, data, finished, run):
    (run / "COMMIT.json").unlink()
    marker = run / "shards" / "00002.npz"
    whole = marker.read_bytes()
    half = len(whole) // 2
    flipped = whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]
    marker.write_bytes(flipped if content is None else content)
    with pytest.raises(ValueError, match=r"marker of a shard in .*00002\.npz, could not read"):
        ifa.analyze(model, data, store=run, **OPTIONS)
    marker.unlink()
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert results(run) == results(finished)


def test_a_lost_sample_table_is_not_made_up(model, data, run):
    for name in ("COMMIT.json", "shards/00004.npz"):
        (run / name).unlink()
    shutil.rmtree(run / "samples.zarr")
    with pytest.raises(ValueError, match=r"got 1 differences: samples\.zarr is missing\. Restore"):
        ifa.analyze(model, data, store=run, **OPTIONS)
    assert not (run / "samples.zarr").exists()


# Several processes at once


def test_a_run_that_is_being_written_is_refused(model, data, finished, run, monkeypatch):
    monkeypatch.setattr("ifa.store.runs.WAIT", 0.1)
    (run / "COMMIT.json").unlink()
    before = contents(run)
    with locked(run) as free:
        assert free
        with pytest.raises(
            ValueError, match="to be written by one analysis at a time, but another"
        ):
            ifa.analyze(model, data, store=run, **OPTIONS)
    assert contents(run) == before
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert results(run) == results(finished)


def test_many_at_once_do_not_spoil_a_run(model, data, finished, tmp_path):
    run, barrier, said = tmp_path / "run", threading.Barrier(4), []

    def go():
        barrier.wait()
        try:
            ifa.analyze(model, data, store=run, **OPTIONS)
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) < 4
    assert all("one analysis at a time" in text for text in said)
    assert results(run) == results(finished)
    ifa.verify(run)


def test_of_two_analyses_that_claim_a_directory_one_wins(tmp_path):
    runs, barrier, said = Run.at(tmp_path / "run", "ifa.analyze"), threading.Barrier(8), []

    def claim(number):
        barrier.wait()
        spec = {"schema": 3, "number": number}
        try:
            with runs.writing():
                runs.begun(spec)
                runs.check(spec, "same")
                runs.place.make("shards")
                (tmp_path / "run" / "shards" / "00000.npz").touch()
        except ValueError as error:
            said.append((number, str(error)))

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = runs.spec()["number"]
    assert {number for number, _ in said} == {*range(8)} - {winner}
    assert all("got another: number" in text for _, text in said), said
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"spec.json", "shards"}


def test_shards_written_by_two_at_once_are_whole(model, data, finished, tmp_path):
    """Markers and chunks are idempotent: workers that outlive their run do no harm."""
    run = tmp_path / "run"

    def mapper(function, shards):
        shards = list(shards)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(function, shards * 3))
        return builtin(function, shards)

    builtin = map
    ifa.analyze(model, data, store=run, map=mapper, **OPTIONS)
    assert results(run) == results(finished)


# What identifies an analysis


def kernel_with(factor):
    return lambda activations, gradients: gradients * factor


class Kernel:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, activations, gradients):
        return gradients * self.factor

    def method(self, activations, gradients):
        return gradients - self.factor


FACTOR = 2.0


def with_global(activations, gradients):
    return gradients * FACTOR


def helper(gradients):
    return gradients * FACTOR


def with_helper(activations, gradients):
    return helper(gradients)


def recursive(activations, gradients):
    return gradients if FACTOR else recursive(activations, gradients)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (kernel_with(1.0), kernel_with(2.0)),
        (kernel_with(torch.ones(3)), kernel_with(torch.zeros(3))),
        (partial(scaled, factor=1.0), partial(scaled, factor=3.0)),
        (Kernel(1.0), Kernel(2.0)),
        (Kernel(1.0).method, Kernel(2.0).method),
        (ifa.weigh(ifa.weight.fullcam), ifa.weigh(ifa.weight.gradcam)),
        (ifa.chain(ifa.weigh(Kernel(1))), ifa.chain(ifa.weigh(Kernel(2)))),
        (ifa.tokens(prefix=1, grid=(2, 3)), ifa.tokens(prefix=1, grid=(3, 2))),
        (ifa.weight.fullcam, ifa.weight.layercam),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)),
        ({"a": 1}, {"a": 2}),
    ],
    ids=plain,
)
def test_what_differs_has_another_token(one, other):
    assert callable_token(one) == callable_token(one)
    assert callable_token(one) != callable_token(other)
    json.dumps([callable_token(one), callable_token(other)])


@pytest.mark.parametrize("kernel", [with_global, with_helper, recursive])
def test_a_global_that_a_kernel_names_is_part_of_it(kernel, monkeypatch):
    before = callable_token(kernel)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert callable_token(kernel) != before


def test_equal_kernels_have_equal_tokens():
    assert callable_token(kernel_with(1.0)) == callable_token(kernel_with(1.0))
    assert callable_token(Kernel(1.0)) == callable_token(Kernel(1.0))
    assert callable_token(torch.relu) == callable_token(torch.relu)


TOKEN = """
from ifa.network.tokens import callable_token
def kernel(activations, gradients, mode="a"):
    return gradients if mode in {"a", "b", "c", "d"} else kernel(activations, gradients)
import json
print(json.dumps(callable_token(kernel)))
"""


def test_a_token_is_the_same_in_every_process():
    """Text hashes differently in every process, and so do sets of it print."""
    said = {
        subprocess.run(
            [sys.executable, "-c", TOKEN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_a_model_is_more_than_its_weights():
    class Scaled(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, inputs):
            return inputs * self.factor

    class Shifted(Scaled):
        def forward(self, inputs):
            return inputs + self.factor

    token = model_token(Scaled(1.0))
    assert model_token(Scaled(1.0)) == token
    assert model_token(Scaled(2.0))["settings"] != token["settings"]
    assert model_token(Scaled(torch.ones(2)))["settings"] != token["settings"]
    assert model_token(Shifted(1.0))["code"] != token["code"]


def test_data_are_identified_by_items_of_any_kind():
    class Name:
        def __str__(self):
            return "a name"

    items = [(np.arange(3.0), 1, Name()), (np.arange(3.0), np.int64(2), 7)]
    assert data_token("ifa.analyze", items) == data_token("ifa.analyze", items)
    assert data_token("ifa.analyze", items) != data_token(
        "ifa.analyze", [(x.astype("f4"), y, z) for x, y, z in items]
    )
    assert data_token("ifa.analyze", [(torch.ones(2), 0.1)]) != data_token(
        "ifa.analyze", [(torch.ones(2), 0.1 + 1e-12)]
    )
