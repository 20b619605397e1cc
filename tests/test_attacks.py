"""Files of a run spoiled at random: nothing is silent, nothing hangs, nothing raw is raised."""

import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cheap_runs import bits, cheap_run, names_a_place
from populations import digits_like, net

import ifa

# More than any of these runs needs, less than what a spoiled file declares.
ROOM = 8 << 30
DECLARED = 4_000_000_000  # values


# Attacks: (draw, run, other run of the same shape) -> the names that a refusal may give


def files_of(run):
    return [path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()]


def folders_of(run):
    return [path for path in sorted(run.rglob("*")) if path.is_dir()]


def deleted(draw, run, other):
    file = draw.choice(files_of(run))
    file.unlink()
    return [file]


def deleted_folder(draw, run, other):
    folder = draw.choice(folders_of(run))
    shutil.rmtree(folder)
    return [folder]


def emptied(draw, run, other):
    file = draw.choice(files_of(run))
    file.write_bytes(b"")
    return [file]


def truncated(draw, run, other):
    file = draw.choice(files_of(run))
    whole = file.read_bytes()
    file.write_bytes(whole[: draw.randrange(1, len(whole))])
    return [file]


def flipped(draw, run, other):
    file = draw.choice(files_of(run))
    whole = bytearray(file.read_bytes())
    whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    file.write_bytes(whole)
    return [file]


def appended(draw, run, other):
    file = draw.choice(files_of(run))
    more = draw.choice([b"\0", b" ", b"\n", draw.randbytes(100)])
    file.write_bytes(file.read_bytes() + more)
    return [file]


def zeroed(draw, run, other):
    file = draw.choice(files_of(run))
    file.write_bytes(bytes(file.stat().st_size))
    return [file]


def swapped(draw, run, other):
    """Two files of the same kind, where there are such."""
    files = files_of(run)
    one = draw.choice(files)
    others = [file for file in files if file.read_bytes() != one.read_bytes()]
    alike = [file for file in others if file.parent == one.parent]
    two = draw.choice(alike or others)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    return [one, two]


def copied(draw, run, other):
    """A file of another run, in its own place or in that of a neighbour."""
    file = draw.choice(files_of(run))
    theirs = other / file.relative_to(run)
    choices = [one for one in files_of(theirs.parent) if one.read_bytes() != file.read_bytes()]
    if not choices:
        return deleted(draw, run, other)
    source = theirs if theirs in choices and draw.random() < 0.7 else draw.choice(choices)
    shutil.copyfile(source, file)
    # by another run's record, all others are what is wrong
    return [file, run] if file.name == "COMMIT.json" else [file]


def copied_marker(draw, run, other):
    number = draw.randrange(7)
    shutil.copyfile(other / "shards" / f"{number:05d}.npz", run / "shards" / f"{number:05d}.npz")
    return [run / "shards" / f"{number:05d}.npz"]


def copied_folder(draw, run, other):
    """All of another run's table, an array of it, its statistics, or its markers."""
    folder = draw.choice(
        [path for path in folders_of(run) if (other / path.relative_to(run)).is_dir()]
    )
    shutil.rmtree(folder)
    shutil.copytree(other / folder.relative_to(run), folder)
    return [folder]


def renamed(draw, run, other):
    path = draw.choice([*files_of(run), *folders_of(run)])
    target = draw.choice([path.with_name(f"{path.name}x"), run / "moved", path.with_name(".a.tmp")])
    path.rename(target)
    return [path, target]


def special(draw, path, outside):
    """Put something that is no ordinary file at a path."""
    kind = draw.choice(["folder", "FIFO", "socket", "dangling", "link", "loop", "linked folder"])
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:  # a short name, which they must have
            here = os.getcwd()
            os.chdir(path.parent)
            listening.bind(path.name)
            os.chdir(here)
    else:
        targets = {"dangling": "nowhere", "link": outside, "loop": path.name}
        path.symlink_to(targets.get(kind, outside.parent))


def replaced(draw, run, other):
    """By what is no file; a link to the very content is no file of the run either."""
    path = draw.choice([*files_of(run), *folders_of(run)])
    outside = run.parent / f"outside{draw.randrange(10**9)}"
    path.rename(outside)
    if outside.is_dir():
        path.symlink_to(outside)
    else:
        special(draw, path, outside)
    return [path]


def added(draw, run, other):
    folder = draw.choice([run, *folders_of(run)])
    names = [
        "extra",
        "zarr.json",
        "9",
        "00007.npz",
        ".x.tmp",
        "0.abc.partial",
        "spec.json",
        ".zattrs",
    ]
    path = folder / draw.choice([name for name in names if not (folder / name).exists()])
    if draw.random() < 0.4:
        path.write_bytes(draw.choice([b"", b"{}", draw.randbytes(50)]))
    else:
        special(draw, path, files_of(run)[0])
    return [path]


def declared(draw, run, other):
    """An array of 30 GiB, where the file keeps its size as far as it can."""
    files = [one for one in files_of(run) if one.name == "zarr.json"]
    file = draw.choice([one for one in files if b'"shape"' in one.read_bytes()])
    size = file.stat().st_size
    entry = json.loads(file.read_text())
    consolidated = entry.get("consolidated_metadata") or {"metadata": {}}
    arrays = [entry, *consolidated["metadata"].values()]
    for array in arrays:
        if array["node_type"] == "array":
            array["shape"] = [*array["shape"][:-1], DECLARED]
            array["chunk_grid"]["configuration"]["chunk_shape"] = [*array["shape"][:-1], DECLARED]
    file.write_bytes(json.dumps(entry, separators=(",", ":")).encode().ljust(size))
    return [file]


def declared_states(draw, run, other):
    """A marker of which an array is 30 GiB."""
    marker = draw.choice(sorted((run / "shards").iterdir()))
    with np.load(marker, allow_pickle=False) as arrays:
        kept = dict(arrays)
    with zipfile.ZipFile(marker, "w") as archive:
        for name, array in kept.items():
            header = io.BytesIO()
            said = {"descr": "<f8", "fortran_order": False, "shape": (DECLARED,)}
            np.lib.format.write_array_header_1_0(header, said)
            archive.writestr(f"{name}.npy", header.getvalue() + array.tobytes())
    return [marker]


ATTACKS = {
    attack.__name__: attack
    for attack in (
        *(deleted, deleted_folder, emptied, truncated, flipped, appended, zeroed, swapped, copied),
        *(copied_marker, copied_folder, renamed, replaced, added, declared, declared_states),
    )
}


# What comes of them


class Hung(BaseException):
    """Raised into what waits for a FIFO or a lock for ever."""


@contextmanager
def bounded(run):
    """Let what hangs, and what takes more memory than there should be needed, fail."""

    def stop(number, frame):
        for path in run.rglob("*"):
            if path.is_fifo():  # threads that wait for it go on
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, limits[1]))
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def said_of(action, run, touched):
    """Return what an action said of a run: nothing, a refusal that names a file, or what not."""
    try:
        with bounded(run):
            action(run)
    except ValueError as error:
        names = [str(p) if p == run else p.relative_to(run).as_posix() for p in touched]
        named = any(name in str(error) for name in names)
        return "refused" if named else f"does not name it: {error}"[:300]
    except Hung:
        return "hung"
    except Exception as error:
        return f"raw {type(error).__name__}: {error}"[:300]
    return "nothing"


def spoiled(attack, seed, originals, home):
    """Copy a run and attack the copy, until something differs."""
    draw, run = random.Random(f"{attack} {seed}"), home / "run"
    original, other = originals
    shutil.copytree(original, run)
    before = seen(run)
    touched = ATTACKS[attack](draw, run, other)
    while seen(run) == before:
        touched = ATTACKS[attack](draw, run, other)
    names = [path.relative_to(run).as_posix() for path in touched]
    return run, touched, f"{attack}, seed {seed}: {', '.join(names)}"


def seen(run):
    """What is in a run: kinds of files, and their content."""
    return {
        path: (path.lstat().st_mode, path.read_bytes() if path in files else None)
        for files in [set(files_of(run))]
        for path in run.rglob("*")
    }


def attacks(number):
    """So many attacks, of all kinds in turn, as (kind, seed)."""
    kinds = list(ATTACKS)
    return [(kinds[n % len(kinds)], n // len(kinds)) for n in range(number)]


def report(tally, wrong):
    print(dict(tally))
    assert not wrong, f"{len(wrong)} wrong, {dict(tally)}\n" + "\n".join(wrong)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """No power is lost here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Two finished runs of the same shape, of which all values differ."""
    home = tmp_path_factory.mktemp("originals")
    for seed in (0, 1):
        cheap_run(home / f"run{seed}", seed)
    return home / "run0", home / "run1"


# A finished run


def finished_attacked(number, originals, home):
    """Nothing fails in another way; `verify` refuses every attack; `open` what it compares."""
    tally, wrong = Counter(), []
    for attack, seed in attacks(number):
        here = home / f"{attack}{seed}"
        run, touched, name = spoiled(attack, seed, originals, here)
        opened = said_of(ifa.open, run, touched)
        verified = said_of(ifa.verify, run, touched)
        tally[f"by {'open' if opened == 'refused' else 'verify'}"] += verified == "refused"
        wrong += [f"{name}: open: {opened}"] * (opened not in ("refused", "nothing"))
        wrong += [f"{name}: verify: {verified}"] * (verified != "refused")
        again = said_of(cheap_run, run, [run])  # any place in it may be named
        tally[f"done again: {again}"] += 1
        wrong += [f"{name}: done again: {again}"] * (again not in ("refused", "nothing"))
        shutil.rmtree(here)
    report(tally, wrong)


def test_a_finished_run_that_is_spoiled_is_refused(originals, tmp_path):
    finished_attacked(2 * len(ATTACKS), originals, tmp_path)


@pytest.mark.deep
def test_a_finished_run_that_is_spoiled_is_refused_a_thousand_times(originals, tmp_path):
    finished_attacked(1000, originals, tmp_path)


# An unfinished run


def unfinished(run, draw):
    """Take back the commit, and some shards."""
    (run / "COMMIT.json").unlink()
    if draw.random() < 0.7:
        shutil.rmtree(run / "statistics.zarr")
    for marker in draw.sample(sorted((run / "shards").iterdir()), draw.randrange(4)):
        marker.unlink()


def unfinished_attacked(number, originals, home):
    """What is continued has the right values, or is refused."""
    right = bits(ifa.open(originals[0]))
    tally, wrong = Counter(), []
    for attack, seed in attacks(number):
        here = home / f"{attack}{seed}"
        shutil.copytree(originals[0], here / "original")
        unfinished(here / "original", random.Random(seed))
        run, _, name = spoiled(attack, seed, (here / "original", originals[1]), here)
        said = continued(run, right)
        tally[said if said in ("right bits", "refused") else "wrong"] += 1
        wrong += [f"{name}: {said}"] * (said not in ("right bits", "refused"))
        shutil.rmtree(here)
    report(tally, wrong)
    assert set(tally) == {"right bits", "refused"}


def continued(run, right):
    try:
        with bounded(run):
            found = bits(cheap_run(run))
            ifa.verify(run)
    except ValueError as error:
        return "refused" if names_a_place(error, run) else f"names no place: {error}"[:300]
    except Hung:
        return "hung"
    except Exception as error:
        return f"raw {type(error).__name__}: {error}"[:300]
    different = [name for name in right if found.get(name) != right[name]]
    return f"WRONG values of {', '.join(different)}" if different else "right bits"


def test_an_unfinished_run_that_is_spoiled_is_right_or_refused(originals, tmp_path):
    unfinished_attacked(2 * len(ATTACKS), originals, tmp_path)


@pytest.mark.deep
def test_an_unfinished_run_that_is_spoiled_is_right_or_refused_a_thousand_times(
    originals, tmp_path
):
    unfinished_attacked(1000, originals, tmp_path)


# What is merged


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Runs of two sites, the second twice."""
    home, model = tmp_path_factory.mktemp("sites"), net(1)
    data = digits_like(model, samples=42, named=True)
    options = {"layer": "conv2", "shard": 3, "batch_size": 3, "progress": False}
    for number in range(2):
        part = data[21 * number : 21 * (number + 1)]
        ifa.analyze(model, part, store=home / f"site{number}", **options)
    return home / "site0", home / "site1"


def merged_attacked(number, sites, home):
    tally, wrong = Counter(), []
    for attack, seed in attacks(number):
        here = home / f"{attack}{seed}"
        run, touched, name = spoiled(attack, seed, sites, here)
        pair = [run, sites[1]][:: 1 if seed % 2 else -1]
        said = said_of(lambda run, pair=pair: ifa.merge(*pair), run, touched)
        tally[said if said == "refused" else "wrong"] += 1
        wrong += [f"{name}: {said}"] * (said != "refused")
        shutil.rmtree(here)
    report(tally, wrong)


def test_a_spoiled_run_is_not_merged(sites, tmp_path):
    merged_attacked(len(ATTACKS), sites, tmp_path)


@pytest.mark.deep
def test_a_spoiled_run_is_not_merged_two_hundred_times(sites, tmp_path):
    merged_attacked(200, sites, tmp_path)
