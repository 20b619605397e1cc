"""Readers: what arrives of a data set, and what is said when it cannot be read."""

import copyreg
import multiprocessing
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from populations import digits_like, net

import ifa
from ifa.store.items import DIGEST, collate, item_digest, reading

IMAGE = torch.arange(6, dtype=torch.float32).reshape(2, 3)


# Digests


ITEM = ({"image": IMAGE, "age": torch.tensor([3.0])}, 1, "a")


@pytest.mark.parametrize(
    "other",
    [
        ({**ITEM[0], "image": IMAGE.double()}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.reshape(3, 2)}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.nextafter(IMAGE + 1)}, 1, "a"),
        ({**ITEM[0], "image": IMAGE.view(torch.int32)}, 1, "a"),
        ({"image": IMAGE, "size": torch.tensor([3.0])}, 1, "a"),
        ({**ITEM[0], "more": None}, 1, "a"),
        (ITEM[0], 2, "a"),
        (ITEM[0], "1", "a"),
        (ITEM[0], 1, "b"),
    ],
)
def test_a_digest_tells_whatever_differs(other):
    assert len(item_digest(*ITEM)) == DIGEST
    assert item_digest(*ITEM) != item_digest(*other)


@pytest.mark.parametrize(
    ("label", "other"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2]), np.array([1, 2.0])),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
        (np.array(["a"]), np.array(["b"])),
        (np.array(["2020-01-01"], "M8[s]"), np.array(["2020-01-02"], "M8[s]")),
        (torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([2.0], dtype=torch.bfloat16)),
        ([0.1], [0.2]),
        ({"a": torch.zeros(2000)}, {"a": torch.zeros(2000).index_fill(0, torch.tensor([999]), 1)}),
        (np.zeros(2000, object), np.array([0] * 999 + [1] + [0] * 1000, object)),
        ("é", "\udcff"),
        (np.zeros((0, 2)), np.zeros((2, 0))),
    ],
    ids=lambda value: str(value)[:20].encode(errors="replace").decode(),
)
def test_labels_of_any_kind_are_in_the_digest(label, other):
    assert item_digest(IMAGE, label, "a") == item_digest(IMAGE.clone(), label, "a")
    assert item_digest(IMAGE, label, "a") != item_digest(IMAGE, other, "a")


@pytest.mark.parametrize("label", [1.0, True, np.int64(1), np.array([1]), torch.tensor(1)])
def test_a_label_is_its_number_whatever_holds_it(label):
    assert item_digest(ITEM[0], label, "a") == item_digest(*ITEM)


def test_a_digest_is_of_values_not_of_how_they_lie_in_memory():
    wide = torch.stack([IMAGE, IMAGE + 1], -1)[..., 0]
    assert not wide.is_contiguous()
    assert item_digest(wide, wide.numpy(), "a") == item_digest(IMAGE, IMAGE.numpy(), "a")
    swapped = dict(reversed(ITEM[0].items()))
    assert item_digest(swapped, 1, "a") == item_digest(*ITEM)
    assert item_digest(IMAGE, object(), "a") == item_digest(IMAGE, object(), "a")


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_batches_carry_the_digests_of_their_items_when_asked(workers):
    data = [(IMAGE.numpy() + index, index % 2) for index in range(5)]
    spans = [range(3), range(3, 5)]
    batches = list(reading("ifa.analyze", data, spans, (2, 3), workers, digest=True))
    want = [item_digest(IMAGE + index, index % 2, str(index)) for index in range(5)]
    assert [len(batch.digests) for batch in batches] == [3, 2]
    assert [row.tobytes() for batch in batches for row in batch.digests] == want
    for batch in reading("ifa.analyze", data, spans, (2, 3), workers):
        assert batch.digests.shape == (0, DIGEST)
    assert collate("ifa", data, range(2)).digests.dtype == np.uint8


# Errors


class Two(Exception):
    def __init__(self, number, why):
        super().__init__(f"{why} in {number}")


class Locked(Exception):
    def __init__(self):
        super().__init__("no file")
        self.lock = threading.Lock()


class Silent(Exception):
    def __str__(self):
        raise ValueError("no words")


class Failing:
    """Data of which one item fails, and perhaps only in a process that reads them."""

    def __init__(self, fail, length=8):
        self.fail, self.length = fail, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return (IMAGE, self.fail() if index == 5 else 0)


def raising(error):
    def fail():
        raise error

    return Failing(fail)


def read(data, workers, spans=(range(3), range(3, 6), range(6, 8))):
    return list(reading("ifa.analyze", data, spans, (2, 3), workers))


def left():
    return [process for process in multiprocessing.active_children() if "read" in process.name]


SAID = "ifa.analyze: expected sample 5 to be read, got "


@pytest.mark.parametrize("workers", [None, 0, 1, 2])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(2, "no such file", "a.png"), "FileNotFoundError: [Errno 2] no such file: 'a.png'"),
        (Two(3, "odd"), "Two: odd in 3 "),
        (Locked(), "Locked: no file "),
        (Silent(), "Silent from the data set."),
        (KeyError("image"), "KeyError: 'image' "),
        (StopIteration(), "StopIteration from"),
        (ValueError("two\nlines"), "ValueError: two lines "),
        (MemoryError(), "MemoryError from"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_data_set_raises_names_the_sample(error, text, workers):
    with pytest.raises(RuntimeError, match=f"^{re.escape(SAID + text)}") as caught:
        read(raising(error), workers)
    assert str(caught.value).endswith(
        "from the data set. See what data[5] does by itself, mend it, or leave the sample out."
    )
    crosses = not workers or not isinstance(error, Two | Locked)
    assert isinstance(caught.value.__cause__, type(error) if crosses else type(None))
    if workers:
        (note,) = caught.value.__notes__
        assert "in __getitem__" in note
        assert type(error).__name__ in note
    assert not left()


def test_an_error_crosses_also_where_pickled_ones_take_their_cause_along(monkeypatch):
    """As tblib has them do, which Dask installs for the whole process."""

    def whole(error):
        return type(error), error.args, {"__cause__": error.__cause__}

    monkeypatch.setitem(copyreg.dispatch_table, RuntimeError, whole)
    with pytest.raises(RuntimeError, match=f"^{re.escape(SAID)}Locked: no file"):
        read(raising(Locked()), 1)


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit("no file"), GeneratorExit()])
def test_what_would_end_a_reader_is_an_error(error, workers):
    with pytest.raises(RuntimeError, match=re.escape(f"{SAID}{type(error).__name__}")):
        read(raising(error), workers)
    assert not left()


def test_a_key_pressed_while_this_thread_reads_is_what_it_is():
    with pytest.raises(KeyboardInterrupt):
        read(raising(KeyboardInterrupt()), 0)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("end", "text"),
    [
        (lambda: os._exit(3), "that ended with exit code 3 meanwhile. Look at what the data set"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "that ended by SIGKILL meanwhile. Where m"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "that ended by SIGTERM meanwhile. Look at"),
    ],
    ids=["exit", "SIGKILL", "SIGTERM"],
)
def test_a_process_that_dies_says_of_which_sample(end, text, workers):
    said = "ifa.analyze: expected sample 5 to be read by a process of its own, but "
    with pytest.raises(RuntimeError, match=f"^{re.escape(said + text)}"):
        read(Failing(end), workers)
    assert not left()


class Broken:
    """A label that can be written, but not read."""

    def __reduce__(self):
        return Two, (1,)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("label", "error", "text"),
    [
        (
            threading.Lock,
            TypeError,
            "expected labels that pickle, so that a process can hand them over, got TypeError: "
            "cannot pickle '_thread.lock' object for sample 5. Read them in a thread: workers",
        ),
        (Broken, RuntimeError, "expected samples 3 to 5 from the process that read them, got Type"),
    ],
    ids=["lock", "broken"],
)
def test_a_label_that_no_process_can_hand_over(label, error, text, workers):
    with pytest.raises(error, match=f"^{re.escape(f'ifa.analyze: {text}')}"):
        read(Failing(label), workers)
    assert not left()
    assert len(read(Failing(label), None)) == 3  # a thread need not


def test_errors_of_ours_keep_their_kind_in_a_process():
    data = Failing(lambda: 0)
    data.length = 4
    items = [data[0], (IMAGE[:1], 0)]
    for workers in (None, 0, 1):
        with pytest.raises(
            ValueError, match=r"^ifa.analyze: expected inputs of one shape, .*le 1 "
        ):
            read(items, workers, [range(2)])
        with pytest.raises(IndexError, match=r"^ifa.analyze: expected data that do not change"):
            read(items[:1], workers, [range(2)])


# Processes


def test_batches_of_processes_come_in_order_and_draw_no_number():
    data = [(IMAGE + index, index, f"n{index}") for index in range(40)]
    spans = [range(start, min(start + 3, 40)) for start in range(0, 40, 3)]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for workers in (1, 2, 3, 100):
        batches = read(data, workers, spans)
        assert [label for batch in batches for label in batch.labels] == list(range(40))
        assert torch.equal(
            torch.cat([batch.inputs for batch in batches])[:, 0, 0], torch.arange(40.0)
        )
        assert [name for batch in batches for name in batch.ids] == [f"n{i}" for i in range(40)]
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not left()


@pytest.mark.parametrize("slow", [False, True])
def test_who_stops_early_leaves_no_process(slow):
    data = Failing((lambda: time.sleep(60)) if slow else (lambda: 0))
    batches = reading("ifa.analyze", data, [range(3), range(3, 6), range(6, 8)], (2, 3), 2)
    next(batches)
    assert len(left()) == 2
    batches.close()
    assert not left()


def test_a_run_that_fails_leaves_no_process(tmp_path):
    model = net(1)
    data = [
        (values, 9 if index == 5 else label)
        for index, (values, label) in enumerate(digits_like(model, 8))
    ]
    with pytest.raises(ValueError, match="got 9 for sample 5") as caught:
        ifa.analyze(model, data, layer="conv2", workers=2, batch_size=2, progress=False)
    assert caught.tb is not None  # it holds whatever was open
    assert not left()


def _read_slowly(pipe):
    data = Failing(lambda: 0)
    batches = reading("ifa.analyze", data, [range(1)] * 20, (2, 3), 2)
    next(batches)
    pipe.send([process.pid for process in multiprocessing.active_children()])
    time.sleep(60)


def _lives(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_who_is_killed_leaves_no_process():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_read_slowly, args=(theirs,))
    process.start()
    numbers = ours.recv()
    assert len(numbers) == 2
    process.kill()
    process.join()
    until = time.monotonic() + 20
    while any(map(_lives, numbers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(_lives, numbers))


class ElseWhere(Failing):
    """Data that fail in another process than that in which they were made."""

    def __init__(self, data, fail):
        self.data, self.process, self.fail = data, os.getpid(), fail

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if index == 5 and os.getpid() != self.process:
            self.fail()
        return self.data[index]


@pytest.mark.parametrize(
    "fail", [raising(Locked()).fail, lambda: os._exit(1)], ids=["raises", "ends"]
)
def test_a_run_says_what_a_process_could_not_read_and_goes_on_later(fail, tmp_path):
    model = net(1)
    data = digits_like(model, 8)
    options = {"layer": "conv2", "shard": 2, "batch_size": 2, "progress": False}
    with pytest.raises(RuntimeError, match=r"^ifa\.analyze: expected sample 5 to be read"):
        ifa.analyze(model, ElseWhere(data, fail), store=tmp_path / "run", workers=2, **options)
    assert not left()
    tree = ifa.analyze(model, data, store=tmp_path / "run", workers=1, **options)
    assert tree["conv2"].identical(ifa.analyze(model, data, **options)["conv2"])


def test_data_that_processes_cannot_be_given(monkeypatch):
    spawn = multiprocessing.get_context("spawn")
    for name in ("Process", "Pipe", "RawValue"):
        monkeypatch.setattr(f"ifa.store.workers.multiprocessing.{name}", getattr(spawn, name))
    with pytest.raises(TypeError, match=r"^ifa\.analyze: expected data that pickle, as processes"):
        read(Failing(lambda: 0), 1)
    assert not left()


def test_processes_in_a_daemonic_process(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(
        ValueError, match=r"^ifa\.analyze: expected workers=None or 0 in a daemonic"
    ):
        read(Failing(lambda: 0), 2)


# Data


def test_a_batch_of_several_dtypes():
    data = [(IMAGE.double() if index == 5 else IMAGE, 0) for index in range(8)]
    text = (
        "ifa.analyze: expected inputs of one dtype, torch.float32 as those of sample 3 (id '3'), "
        "got torch.float64 for sample 5 (id '5'). Convert them alike."
    )
    with pytest.raises(TypeError, match=re.escape(text)):
        read(data, 0)


@pytest.mark.parametrize("length", [8.0, -1, None, "8"], ids=repr)
def test_a_length_that_is_no_number_of_samples(length):
    text = "ifa.analyze: expected a data set whose length is a whole number, got "
    with pytest.raises(TypeError, match=re.escape(text)):
        ifa.analyze(net(1), Failing(lambda: 0, length), layer="conv2", progress=False)


def test_a_length_that_cannot_be_said():
    class Endless(Failing):
        def __len__(self):
            raise NotImplementedError("it is a stream")

    with pytest.raises(TypeError, match="whole number, got NotImplementedError: it is a stream"):
        ifa.analyze(net(1), Endless(lambda: 0), layer="conv2", progress=False)


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_a_length_that_lies(workers):
    model = net(1)
    data = digits_like(model, 8)

    class More(list):
        def __len__(self):
            return 9

    text = (
        r"^ifa\.analyze: expected data that do not change while they are read, got no sample 8 of"
    )
    with pytest.raises(IndexError, match=text):
        ifa.analyze(model, More(data), layer="conv2", workers=workers, progress=False)
