"""What a run promises: it is of this network, these data and these files, or it is refused."""

import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from populations import Counted, contents, digits_like, net

import ifa
from ifa.store.commits import commit_text, found
from ifa.store.files import locked
from ifa.store.markers import Marker, marker_text, read_marker
from ifa.store.places import Folder

OPTIONS = {"layer": "conv2", "shard": 10, "batch_size": 5, "progress": False}
# Of 40 samples these are not among the sixteen that identify data before they are read.
OUTSIDE = 4


@pytest.fixture(scope="module")
def model():
    return net(1)


@pytest.fixture(scope="module")
def data(model):
    return digits_like(model, samples=40, named=True)


@pytest.fixture(scope="module")
def made(model, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    ifa.analyze(model, data, store=path, **OPTIONS)
    return path


@pytest.fixture
def run(made, tmp_path):
    """Give a copy of a finished run, to be spoiled."""
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture
def unfinished(run):
    (run / "COMMIT.json").unlink()
    (run / "shards" / "00002.npz").unlink()
    return run


def values(path):
    tree = ifa.open(path)
    return {name: tree[name].to_dataset() for name in ("conv2", "samples", "samples/conv2")}


def same(path, other):
    mine, others = values(path), values(other)
    return all(mine[name].identical(others[name]) for name in mine)


# Data


def changed_input(item):
    values, label, name = item
    return values + 1e-6, label, name


def changed_label(item):
    return item[0], (item[1] + 1) % 4, item[2]


def changed_id(item):
    return *item[:2], "another"


@pytest.mark.parametrize("state", ["run", "unfinished"])
@pytest.mark.parametrize("change", [changed_input, changed_label, changed_id])
def test_a_sample_that_changed_is_refused_by_name(change, state, model, data, request):
    path = request.getfixturevalue(state)
    before = contents(path)
    others = [*data[:OUTSIDE], change(data[OUTSIDE]), *data[OUTSIDE + 1 :]]
    with pytest.raises(ValueError, match=f"got another sample {OUTSIDE} \\(id "):
        ifa.analyze(model, others, store=path, **OPTIONS)
    assert contents(path) == before


def test_maps_and_tables_know_their_data(model, data, tmp_path):
    others = [*data[:OUTSIDE], changed_input(data[OUTSIDE]), *data[OUTSIDE + 1 :]]
    makers = {
        "maps": lambda items, store: ifa.maps(model, items, store=store, **OPTIONS),
        "table": lambda items, store: ifa.contest.table(
            model,
            items,
            {"noise": ifa.contest.cam_methods("conv2")["noise"]},
            {"confidence": ifa.evaluate.confidence},
            store=store,
            shard=10,
            progress=False,
        ),
    }
    for name, make in makers.items():
        make(data, tmp_path / name)
        make(data, tmp_path / name)
        with pytest.raises(ValueError, match=f"got another sample {OUTSIDE} "):
            make(others, tmp_path / name)


def test_an_owners_word_for_data_is_taken(model, data, tmp_path):
    options = {**OPTIONS, "store": tmp_path / "run", "data_version": "2026-11"}
    ifa.analyze(model, data, **options)
    counted = Counted(data)
    ifa.analyze(model, counted, **options)
    assert counted.reads <= 2 + 16  # for shapes, and what the network computes of some
    for version in ("2026-12", None):
        with pytest.raises(ValueError, match="got another: data"):
            ifa.analyze(model, data, **{**options, "data_version": version})
    with pytest.raises(TypeError, match="expected data_version to be None or text, got 3"):
        ifa.analyze(model, data, **{**options, "data_version": 3})


def test_every_sample_is_read_once(model, data, tmp_path):
    counted = Counted(data)
    ifa.analyze(model, counted, store=tmp_path / "run", **OPTIONS)
    assert counted.reads <= 40 + 2 + 16


# Markers and rows


def test_a_marker_of_another_run_is_refused(model, data, made, unfinished, tmp_path):
    ifa.analyze(net(1, seed=1), data, store=tmp_path / "other", **OPTIONS)
    names = [f"{shard:05d}.npz" for shard in range(4)]
    for source, said in (
        (tmp_path / "other" / "shards" / names[2], "shards/00002.npz is a marker of another run"),
        (made / "shards" / names[1], "shards/00002.npz is a marker of shard 1"),
    ):
        shutil.copy(source, unfinished / "shards" / names[2])
        with pytest.raises(ValueError, match=said):
            ifa.analyze(model, data, store=unfinished, **OPTIONS)
    (unfinished / "shards" / names[2]).unlink()
    shutil.copy(made / "shards" / names[2], unfinished / "shards" / "00007.npz")
    with pytest.raises(ValueError, match=r"shards/00007\.npz is not of this run"):
        ifa.analyze(model, data, store=unfinished, **OPTIONS)


def test_rows_that_are_lost_are_never_made_up(model, data, made, unfinished):
    """F-B1: ids '', labels -1 and rows of NaN were committed, and verify passed."""
    rows = sorted(unfinished.glob("samples.zarr/**/c/*"))
    assert len(rows) >= 8 * 4
    for file in rows:
        if file.name == "2":
            continue  # of the shard that is not done
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(ValueError, match=r"is missing, for which shards/0000.\.npz vouches"):
            ifa.analyze(model, data, store=unfinished, **OPTIONS)
        file.write_bytes(content)
    ifa.analyze(model, data, store=unfinished, **OPTIONS)
    assert same(unfinished, made)


def test_a_shard_may_be_done_again(model, data, made, unfinished):
    """As an error says: the marker is deleted, and its rows with it."""
    shutil.rmtree(unfinished / "shards")
    for file in list(unfinished.glob("samples.zarr/**/c/*")):
        file.write_bytes(b"spoiled")
    ifa.analyze(model, data, store=unfinished, **OPTIONS)
    assert same(unfinished, made)
    ifa.verify(unfinished)


def test_a_table_laid_out_otherwise_is_refused(model, data, unfinished):
    file = unfinished / "samples.zarr" / "label" / "zarr.json"
    text = file.read_text()
    file.write_text(text.replace('"ground truth"', '"ground trust"'))
    with pytest.raises(ValueError, match=r"samples\.zarr/label/zarr\.json was changed"):
        ifa.analyze(model, data, store=unfinished, **OPTIONS)
    file.write_text(text)
    (unfinished / "samples.zarr" / "label" / "mine").mkdir()
    with pytest.raises(ValueError, match=r"samples\.zarr/label/mine is not of this run"):
        ifa.analyze(model, data, store=unfinished, **OPTIONS)


def test_a_marker_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "00000.npz"
    marker = Marker("spec", 0, {}, {}, np.zeros((2, 16), np.uint8))
    path.write_bytes(marker_text(marker, {"a": np.arange(3.0)}))
    said, states = read_marker("here", path.name, path.read_bytes())
    assert said.shard == 0
    assert states["a"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "large.npz", a=np.zeros(2))
    for content in (path.read_bytes()[:-1], (tmp_path / "large.npz").read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="here: expected the marker of a shard"):
            read_marker("here", path.name, path.read_bytes())


# What is opened


def test_open_misses_any_file(run):
    """F-B2: 81 of 81 chunk files could be deleted, and were read as values."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for file in files:
        content = file.read_bytes()
        for spoil in (file.unlink, lambda file=file, c=content: file.write_bytes(c[:-1])):
            spoil()
            with pytest.raises(ValueError, match=r"^ifa\.open: expected "):
                ifa.open(run)
            file.write_bytes(content)
    ifa.open(run)


def test_verify_names_what_does_not_belong(run):
    strange = {
        "mine": lambda path: path.mkdir(),
        "samples.zarr/conv2/more": lambda path: path.symlink_to(run / "shards"),
        "shards/pipe": os.mkfifo,
        "note.txt": lambda path: path.write_text("mine"),
    }
    for name, make in strange.items():
        make(run / name)
    with pytest.raises(ValueError, match="got 4 differences") as caught:
        ifa.verify(run)
    for said in ("mine, a folder, was", "more, a link, was", "pipe, no file, was", "note.txt was"):
        assert f"{said} not committed" in str(caught.value)
    with pytest.raises(ValueError, match=r"got 1 differences: .*more, a link"):
        ifa.open(run)  # names what may be read instead; what lies beside is no matter


@pytest.mark.parametrize("name", ["COMMIT.json", "spec.json", "statistics.zarr/zarr.json"])
def test_a_pipe_is_not_waited_for(name, run):
    (run / name).unlink()
    os.mkfifo(run / name)
    for check in (ifa.open, ifa.verify):
        with pytest.raises(ValueError, match="no file"):
            check(run)


@pytest.mark.parametrize("shape", [[2**32], [4]])
def test_an_array_larger_than_its_files_is_not_made(shape, run):
    """Of whoever rewrites a run and its commit."""
    path = run / "statistics.zarr" / "zarr.json"
    said = json.loads(path.read_text())
    entry = said["consolidated_metadata"]["metadata"]["conv2/count"]
    entry["shape"], entry["chunk_grid"]["configuration"]["chunk_shape"] = shape, shape
    shape[0] == 4 or path.write_text(json.dumps(said))
    if shape[0] == 4:
        shutil.rmtree(run / "statistics.zarr/conv2/count/c")
    names = [file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()]
    files = found(Folder(run), sorted({*names} - {"COMMIT.json"}))
    (run / "COMMIT.json").write_bytes(commit_text(files, {}))
    said = "claims 34359738368 bytes" if shape[0] > 4 else "has 0 of 1 chunks"
    with pytest.raises(ValueError, match=rf"statistics\.zarr/conv2/count {said}"):
        ifa.open(run)


def test_merge_verifies_what_it_reads(run, made, tmp_path):
    file = run / "samples.zarr" / "conv2" / "map_max" / "c" / "1"
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))
    with pytest.raises(ValueError, match=r"ifa\.merge: .*conv2/map_max/c/1 was changed"):
        ifa.merge(made, run, store=tmp_path / "both")
    assert not (tmp_path / "both").exists()


# Other versions


@pytest.fixture
def later(monkeypatch):
    now = {"ifa": "9.9", "torch": torch.__version__, "numpy": np.__version__}
    for home in ("ifa.store.runs", "ifa.population.passes"):
        monkeypatch.setattr(f"{home}.versions", lambda: now)
    return now


def test_a_finished_run_of_other_versions_is_returned_with_a_note(model, data, run, made, later):
    with pytest.warns(ifa.RunNote, match=r"versions\.ifa: '.*' in the run, '9\.9' now"):
        tree = ifa.analyze(model, data, store=run, **OPTIONS)
    assert tree["conv2"].to_dataset().identical(ifa.open(made)["conv2"].to_dataset())


def test_an_unfinished_run_of_other_versions_is_refused_unless_asked(
    model, data, unfinished, made, later
):
    before = contents(unfinished)
    with pytest.raises(ValueError, match=r"another: versions\.ifa: .*\(versions='any' goes on"):
        ifa.analyze(model, data, store=unfinished, **OPTIONS)
    assert contents(unfinished) == before
    with pytest.warns(ifa.RunNote, match=r"versions\.ifa"):
        ifa.analyze(model, data, store=unfinished, versions="any", **OPTIONS)
    assert same(unfinished, made)
    record = json.loads((unfinished / "COMMIT.json").read_text())
    assert [each["ifa"] for each in record["versions"]] == ["9.9", ifa.__version__][
        :: 1 if ifa.__version__ > "9.9" else -1
    ]
    with pytest.raises(ValueError, match="expected versions to be one of"):
        ifa.analyze(model, data, store=unfinished, versions="all", **OPTIONS)


# The first failure


class Failing(Counted):
    def __getitem__(self, index):
        if index == 6:  # of the second batch, and not one of the sixteen
            raise OSError("a bad disk")
        return super().__getitem__(index)


def test_what_is_wrong_with_the_first_batch_is_said_before_there_is_a_directory(
    model, data, tmp_path
):
    wrong = [*data[:3], (data[3][0], 17, "seventeen"), *data[4:]]
    with pytest.raises(ValueError, match="got 17 for sample 3"):
        ifa.analyze(model, wrong, store=tmp_path / "run", **OPTIONS)
    with pytest.raises(ValueError, match="expected versions"):
        ifa.analyze(model, data, store=tmp_path / "run", versions="none", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_directory_without_a_shard_is_free(model, data, made, tmp_path):
    """F-B7: a first run that failed kept its directory from all others."""
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a bad disk"):
        ifa.analyze(model, Failing(data), store=run, keep_samples="full", **OPTIONS)
    assert (run / "spec.json").exists()
    ifa.analyze(model, data, store=run, **OPTIONS)
    assert same(run, made)
    ifa.verify(run)


def test_what_a_worker_of_the_one_before_marks_is_not_taken(model, data, tmp_path):
    """An executor's process may outlive the run that a directory was taken over from."""
    late = []

    def lost(function, shards):
        late.append(function)
        raise OSError("the driver died")

    run = tmp_path / "run"
    with pytest.raises(OSError, match="died"):
        ifa.analyze(model, data, store=run, reduction="mean", map=lost, **OPTIONS)
    with pytest.raises(OSError, match="died"):
        ifa.analyze(model, data, store=run, map=lost, **OPTIONS)
    late[0](1)
    with pytest.raises(ValueError, match=r"shards/00001\.npz is a marker of another run"):
        ifa.analyze(model, data, store=run, **OPTIONS)


def test_a_directory_with_a_file_of_somebody_is_not(model, data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="a bad disk"):
        ifa.analyze(model, Failing(data), store=run, **OPTIONS)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="got another: keep_samples"):
        ifa.analyze(model, data, store=run, keep_samples="none", **OPTIONS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spec.json").write_text("{}")
    with pytest.raises(ValueError, match="got another"):
        ifa.analyze(model, data, store=tmp_path / "mine", **OPTIONS)
    assert contents(tmp_path / "mine").keys() == {"spec.json"}


# Several at once


def test_a_process_that_was_forked_does_not_hold_the_lock(tmp_path):
    """F-B5: readers outlive a run that is killed, and kept its directory."""
    context = multiprocessing.get_context("fork")
    with locked(tmp_path) as free:
        assert free
        child = context.Process(target=time.sleep, args=(30,))
        child.start()
    try:
        with locked(tmp_path, wait=5) as free:  # until the child is
            assert free
            assert child.is_alive()
            with locked(tmp_path) as twice:
                assert not twice
    finally:
        child.kill()
        child.join()


def test_one_that_is_being_ended_is_waited_for(model, data, unfinished, made):
    held = threading.Event()

    def hold():
        with locked(unfinished):
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    ifa.analyze(model, data, store=unfinished, **OPTIONS)
    thread.join()
    assert same(unfinished, made)


def test_a_shard_on_disk_is_not_done_again(model, data, tmp_path):
    """F-B11: an executor repeats the calls of a worker that died."""
    counted = Counted(data)

    def twice(function, shards):
        shards = list(shards)
        return map(function, [*shards, *shards][-len(shards) :]) if once(function, shards) else ()

    def once(function, shards):
        return [function(shard) for shard in shards]

    ifa.analyze(model, counted, store=tmp_path / "run", map=twice, **OPTIONS)
    assert counted.reads <= 40 + 5 + 2 + 16


def test_the_run_of_a_path_in_a_new_folder(model, data, tmp_path):
    ifa.analyze(model, data, store=Path(tmp_path, "a", "b", "run"), **OPTIONS)
    ifa.verify(tmp_path / "a" / "b" / "run")


def test_another_analysis_that_waited_is_refused(model, data, tmp_path):
    """It found no shard to compare with, waited, and was given the other's result."""
    run, began = tmp_path / "run", threading.Event()

    class Slow(list):
        def __getitem__(self, index):
            if (run / "spec.json").exists():
                began.set()
                time.sleep(0.01)
            return super().__getitem__(index)

    options = {**OPTIONS, "store": run, "shard": 100}
    first = threading.Thread(target=lambda: ifa.analyze(model, Slow(data), **options))
    first.start()
    assert began.wait(30)
    with pytest.raises(ValueError, match="got another: weight"):
        ifa.analyze(model, data, weight=ifa.weight.gradcam, **options)
    first.join()
    ifa.verify(run)


class Random(list):
    """Data that are other each time they are read."""

    def __getitem__(self, index):
        values, label, name = super().__getitem__(index)
        return values + torch.rand(()), label, name


def test_data_that_are_random_are_refused(model, data, tmp_path):
    with pytest.raises(ValueError, match="expected data that give the same item for the same inde"):
        ifa.analyze(model, Random(data), store=tmp_path / "run", **OPTIONS)
    assert not list((tmp_path / "run" / "shards").iterdir())


def test_a_merged_run_is_of_its_parts(model, data, tmp_path):
    for name, part in {"a": data[:20], "b": data[20:]}.items():
        ifa.analyze(model, part, store=tmp_path / name, **OPTIONS)
    others = [*data[20:24], changed_input(data[24]), *data[25:]]
    ifa.analyze(model, others, store=tmp_path / "c", data_version="c", **OPTIONS)
    ifa.analyze(model, data[:20], store=tmp_path / "d", data_version="d", **OPTIONS)
    ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "ab")
    with pytest.raises(ValueError, match=r"got 20 that are in both, .* such as sample 0 of "):
        ifa.merge(tmp_path / "a", tmp_path / "d")
    shutil.rmtree(tmp_path / "b")
    ifa.analyze(
        model, [*data[20:21], changed_input(data[21]), *data[22:]], store=tmp_path / "b", **OPTIONS
    )
    with pytest.raises(ValueError, match=r"ifa\.merge: expected the run at .* of (other|this)"):
        ifa.merge(tmp_path / "a", tmp_path / "b", store=tmp_path / "ab")
    ifa.maps(model, data, store=tmp_path / "maps", **OPTIONS)
    with pytest.raises(
        ValueError, match=r"expected a run of ifa\.analyze at .*, got one of ifa\.m"
    ):
        ifa.merge(tmp_path / "a", tmp_path / "maps")


def backwards(function, shards):
    return reversed([function(shard) for shard in shards])


def test_what_map_returns_is_taken_in_any_order(model, data, made, tmp_path):
    ifa.analyze(model, data, map=backwards, store=tmp_path / "run", **OPTIONS)
    assert same(tmp_path / "run", made)
    there, here = (ifa.analyze(model, data, map=each, **OPTIONS) for each in (backwards, map))
    for name in values(made):
        assert there[name].to_dataset().identical(here[name].to_dataset())


def test_map_returns_what_its_function_returns(model, data, tmp_path):
    def twice(function, shards):
        return [function(shard) for shard in [*shards] * 2]

    def nothing(function, shards):
        return map(function, list(shards)[:-1])

    said = {twice: "got 0, which was not waited for", nothing: "got nothing for 3"}
    for mapper, came in said.items():
        for store in (None, tmp_path / mapper.__name__):
            with pytest.raises(ValueError, match=f"once for every shard, {came}"):
                ifa.analyze(model, data, map=mapper, store=store, **OPTIONS)
    with pytest.raises(TypeError, match=r"Of an executor give its method: executor\.map"):
        ifa.analyze(model, data, map=4, **OPTIONS)
    with pytest.raises(
        TypeError, match=r"expected store= to be the path of a folder, the URL .*, got int"
    ):
        ifa.analyze(model, data, store=3, **OPTIONS)


def test_a_finished_run_is_verified_before_it_is_given_again(model, data, run):
    one, other = (run / "samples.zarr" / "conv2" / "map_max" / "c" / shard for shard in "01")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(ValueError, match="got 2 differences: "):
        ifa.analyze(model, data, store=run, **OPTIONS)


def test_maps_at_the_layer_are_not_those_at_the_input(tmp_path):
    """Where both have the same extent, but the layer's units lie elsewhere."""
    torch.manual_seed(0)
    layers = (torch.nn.ConstantPad1d((2, 0), 0.0), torch.nn.Conv1d(1, 4, 3), torch.nn.ReLU())
    net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten()).eval()
    data = [(torch.randn(1, 9), 0) for _ in range(3)]
    options = {"layer": "2", "store": tmp_path / "run", "progress": False}
    ifa.maps(net, data, size=None, **options)
    with pytest.raises(ValueError, match="got another: placed"):
        ifa.maps(net, data, **options)


def test_who_computed_what_is_recorded(model, data, made):
    (computed,) = json.loads((made / "COMMIT.json").read_text())["versions"]
    assert {*computed} == {"ifa", "torch", "numpy", "code"}
