"""Power loss at any moment: what is continued has the right bits, or is refused by name."""

import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import pytest
from cheap_runs import bits, cheap_run, names_a_place, results
from populations import digits_like, net
from powerloss import disk_after, losses, read, recorded, unsynced, write

import ifa

OPTIONS = {"layer": "conv2", "shard": 4, "batch_size": 4, "progress": False, "workers": 0}


def analyzed(store, samples=23):
    model = net(1)
    data = digits_like(model, samples, named=True)
    return ifa.analyze(model, data, store=store, keep_samples="full", **OPTIONS)


def mapped(store):
    model = net(1)
    return ifa.maps(model, digits_like(model, named=True), store=store, **OPTIONS)


RUNS = {"cheap": cheap_run, "analyze": analyzed, "maps": mapped}


# What came of it


@dataclass
class Whole:
    """An undisturbed run: what was done for it and what came of it."""

    log: object
    disk: dict
    bits: dict
    results: dict


@dataclass
class Tally:
    """What became of the states."""

    outcomes: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)
    refused: list = field(default_factory=list)

    def count(self, outcome, name):
        kind = outcome.partition(":")[0]
        self.outcomes[kind] += 1
        if kind == "refused":
            self.refused.append(f"{name}: {outcome}")
        elif kind != "right bits":
            self.wrong.append(f"{name}: {outcome}")

    def add(self, other):
        self.outcomes += other.outcomes
        self.wrong += other.wrong
        self.refused += other.refused

    def __str__(self):
        return ", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.most_common())


def undisturbed(make, home, **broken):
    home.mkdir()
    with recorded(home, **broken) as log:
        tree = make(home / "run")
    return Whole(log, read(home), bits(tree), results(home / "run"))


def outcome(make, whole, home):
    """Continue a run from what is on the disk, and say what came of it."""
    run = home / "run"
    try:
        tree = make(run)
        found = bits(tree)
    except ValueError as error:
        place = "" if names_a_place(error, run) else " without a place"
        return f"refused{place}: {error}"[:300]
    except Exception as error:
        return f"raw {type(error).__name__}: {error}"[:300]
    if found != whole.bits:
        different = [name for name in whole.bits if found.get(name) != whole.bits[name]]
        return f"WRONG values of {', '.join(different) or [*found]}"
    try:
        ifa.verify(run)
    except ValueError as error:
        return f"right values, but {error}"[:300]
    return "right bits" if results(run) == whole.results else "other files"


def survive(make, whole, home, cuts, *, seed, subsets, most=None):
    """Lose power at cuts, continue, and count what came of it; equal disks are tried once.

    Of the losses at each cut at most so many are drawn.
    """
    draw, tally, seen = random.Random(seed), Tally(), set()
    for cut in cuts:
        found = list(losses(whole.log, cut, draw, subsets=subsets))
        for name, loss in found if most is None else draw.sample(found, min(most, len(found))):
            disk = disk_after(whole.log, cut, loss)
            key = tuple(disk.items())
            if key in seen:
                continue
            seen.add(key)
            write(disk, home)
            last = whole.log.said[cut - 1] if cut else "nothing"
            where = f"seed {seed}, cut {cut} (after {last}), {name}"
            tally.count(outcome(make, whole, home), where)
            shutil.rmtree(home)
    return tally


def cuts_of(log, number=None):
    """All cuts, or so many spread over them; each after what was there before."""
    last = len(log.operations)
    cuts = range(log.before, last + 1)
    return cuts if number is None else [*cuts[:: max(1, len(cuts) // number)], last]


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Nothing loses power here but by simulation."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def whole(tmp_path):
    return undisturbed(cheap_run, tmp_path / "whole")


def report(tally):
    print(tally, *tally.refused[:5], sep="\n")
    shown = "\n".join(tally.wrong[:30])
    assert not tally.wrong, f"{tally}\n{shown}"
    assert tally.outcomes["right bits"]


# The simulator


@pytest.mark.parametrize("name", RUNS)
def test_every_operation_is_seen(name, tmp_path):
    """What was recorded, done again, gives the very directory."""
    whole = undisturbed(RUNS[name], tmp_path / "whole")
    assert disk_after(whole.log, len(whole.log.operations)) == whole.disk
    assert len([name for name in whole.disk if name.endswith(".npz")]) >= 6


def test_what_is_there_before_is_seen(whole, tmp_path):
    """As when a run is continued: nothing of it can be lost but what is done now."""
    home = tmp_path / "home"
    write(whole.disk, home)
    (home / "run" / "COMMIT.json").unlink()
    before = read(home)
    with recorded(home) as log:
        cheap_run(home / "run")
    assert disk_after(log, log.before) == before
    assert unsynced(log, log.before) == ([], [])
    assert disk_after(log, len(log.operations)) == read(home)


def test_only_what_is_synchronized_is_sure(tmp_path):
    with recorded(tmp_path) as log:
        (tmp_path / "one").write_bytes(b"abcd")
        with open(tmp_path / "two", "wb") as file:
            file.write(b"efgh")
            file.flush()
            os.fsync(file.fileno())
        os.rename(tmp_path / "two", tmp_path / "three")
        directory = os.open(tmp_path, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        (tmp_path / "one").unlink()
    draw, cut = random.Random(0), len(log.operations)
    said = {name: disk_after(log, cut, loss) for name, loss in losses(log, cut, draw, subsets=0)}
    two = {"three": b"efgh"}
    assert said.pop("nothing lost") == two
    assert said.pop("all data zeros") == two
    assert said.pop("all lost") == {"one": b"", **two}
    assert said.pop("all entries lost") == said["lost: unlink one"] == {"one": b"abcd", **two}
    assert disk_after(log, cut - 2) == {"one": b"abcd", **two}
    assert disk_after(log, cut - 3, list(losses(log, cut - 3, draw, subsets=0))[1][1]) == {}


def test_a_writer_that_never_synchronizes_is_found(tmp_path):
    """The simulator can fail: what was synchronized is never refused."""
    broken = undisturbed(cheap_run, tmp_path / "whole", without=("fsync", "fdatasync"))
    cuts = [len(broken.log.operations)]
    tally = survive(cheap_run, broken, tmp_path / "state", cuts, seed=0, subsets=4, most=20)
    assert tally.refused, tally


# Power loss


def test_power_may_fail_at_any_moment(whole, tmp_path):
    cuts = cuts_of(whole.log, 20)
    report(survive(cheap_run, whole, tmp_path / "state", cuts, seed=0, subsets=2, most=2))


@pytest.mark.deep
def test_power_may_fail_after_every_operation(whole, tmp_path):
    cuts = cuts_of(whole.log)
    report(survive(cheap_run, whole, tmp_path / "state", cuts, seed=0, subsets=5))


@pytest.mark.deep
def test_power_may_fail_twice(whole, tmp_path):
    """Once more while what the first loss left is continued."""
    draw, tally = random.Random(1), Tally()
    for number, cut in enumerate(cuts_of(whole.log, 40)):
        _, loss = draw.choice(list(losses(whole.log, cut, draw, subsets=3)))
        home = tmp_path / f"again{number}"
        write(disk_after(whole.log, cut, loss), home)
        with recorded(home) as log:
            try:
                cheap_run(home / "run")
            except ValueError:
                continue
        again = Whole(log, read(home), whole.bits, whole.results)
        cuts = cuts_of(log, 8)
        tally.add(survive(cheap_run, again, tmp_path / "state", cuts, seed=cut, subsets=2, most=4))
        shutil.rmtree(home)
    report(tally)


@pytest.mark.deep
def test_power_may_fail_as_a_directory_is_taken_over(whole, tmp_path):
    """From a run of another spec and of other chunks, of which no shard was done."""
    make = partial(cheap_run, seed=1, shard=4)
    alone = undisturbed(make, tmp_path / "alone")
    home = tmp_path / "home"
    write(whole.disk, home)
    for path in (home / "run").iterdir():
        if path.name in ("COMMIT.json", "statistics.zarr", "shards"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with recorded(home) as log:
        make(home / "run")
    assert results(home / "run") == alone.results
    over = Whole(log, read(home), alone.bits, alone.results)
    report(survive(make, over, tmp_path / "state", cuts_of(log, 80), seed=0, subsets=4, most=4))


def merged(parts, store):
    return ifa.merge(*parts, store=store)


@pytest.mark.deep
@pytest.mark.parametrize("name", ["analyze", "maps", "merge"])
def test_power_may_fail_in_a_real_run(name, tmp_path):
    parts = [tmp_path / "a", tmp_path / "b"]
    for samples, part in zip((17, 12), parts, strict=True):
        analyzed(part, samples)
    make = {**RUNS, "merge": partial(merged, parts)}[name]
    whole = undisturbed(make, tmp_path / "whole")
    cuts = cuts_of(whole.log, 80)
    report(survive(make, whole, tmp_path / "state", cuts, seed=0, subsets=3, most=4))
