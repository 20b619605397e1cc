"""Processes that read ahead: what they read in its order, errors as they were, and none left over.

Each has a pipe of its own, so that the end of a process is the end of its pipe: nobody waits for
one that died, and none outlives who takes what it reads.
"""

import ctypes
import multiprocessing
import pickle
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.multiprocessing  # tensors cross in shared memory

AHEAD = 2  # spans that each process may be ahead
GRACE = 0.5  # seconds until a process that reads what nobody asks for any more is killed
READER = "ifa-read"  # what threads that read for others are called


class Reader(NamedTuple):
    """A process that reads."""

    process: Any
    pipe: Connection
    at: Any  # number of the sample that it reads, in shared memory


class Failed(NamedTuple):
    """What a process sends instead of a batch."""

    error: Exception
    cause: BaseException | None
    trace: str  # its traceback, as text


def in_processes(
    where: str,
    data: Any,
    read: Callable[[Any, range], Any],
    spans: Sequence[range],
    workers: int,
) -> Iterator[Any]:
    """Yield what `read(data, span)` returns, in the order of spans; `where` is what errors name."""
    if multiprocessing.current_process().daemon:
        raise ValueError(
            f"{where}: expected workers=None or 0 in a daemonic process, such as one of a "
            f"multiprocessing.Pool, which cannot start others, got {workers}. Read in its thread."
        )
    readers: list[Reader] = []
    ahead = AHEAD * workers
    try:
        for _ in range(workers):
            readers.append(_started(where, data, read, readers))
        for number in range(len(spans) + ahead):
            reader = readers[number % workers]
            found = [_received(where, reader, spans[number - ahead])] if number >= ahead else []
            if number < len(spans):
                with suppress(OSError):  # it died: that is said when its batch is missed
                    reader.pipe.send(spans[number])
            yield from found
    finally:
        _end(readers)


def said(error: BaseException) -> str:
    """Write an exception in one line, whatever it is."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # of the exception's own making
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _started(
    where: str, data: Any, read: Callable[[Any, range], Any], others: Sequence[Reader]
) -> Reader:
    ours, theirs = multiprocessing.Pipe()
    at = multiprocessing.RawValue(ctypes.c_longlong, -1)
    inherited = [ours, *(other.pipe for other in others)]
    arguments = (theirs, at, where, data, read, inherited)
    name = f"{READER}-{len(others)}"
    process = multiprocessing.Process(target=_serve, args=arguments, name=name, daemon=True)
    try:
        process.start()
    except (TypeError, AttributeError, pickle.PicklingError) as error:  # if it is not a fork
        ours.close()
        raise TypeError(
            f"{where}: expected data that pickle, as processes that read them need here, got "
            f"{said(error)}. Read them in a thread: workers=None."
        ) from error
    finally:
        theirs.close()
    return Reader(process, ours, at)


def _received(where: str, reader: Reader, span: range) -> Any:
    try:
        while not reader.pipe.poll(1) and reader.process.is_alive():
            pass  # other processes may have inherited the pipe: its end alone does not tell
        found = pickle.loads(reader.pipe.recv_bytes() if reader.pipe.poll() else b"")
    except Exception as error:
        if isinstance(error, EOFError | OSError):  # of one that died only what it sent is left
            reader.process.join(1)
        raise _lost(where, reader, span, error) from error
    if not isinstance(found, Failed):
        return found
    found.error.add_note(f"In the process that read it:\n{found.trace}")
    raise found.error from found.cause


def _lost(where: str, reader: Reader, span: range, error: Exception) -> Exception:
    code = reader.process.exitcode
    if code is None:
        return RuntimeError(
            f"{where}: expected {_listed(span)} from the process that read them, got "
            f"{said(error)}. Read them in a thread: workers=None."
        )
    at = reader.at.value
    place = f"sample {at}" if at >= 0 else "its first sample"
    end = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    advice = {
        -signal.SIGKILL: "Where memory ran out, give fewer workers or smaller batches.",
        -signal.SIGBUS: "Where shared memory ran out, give fewer workers or smaller batches.",
    }.get(code, "Look at what the data set does there, or read in this process: workers=0.")
    return RuntimeError(
        f"{where}: expected {place} to be read by a process of its own, but that ended {end} "
        f"meanwhile. {advice}"
    )


def _end(readers: Sequence[Reader]) -> None:
    """End processes: those that wait do it by themselves, others are in the midst of an item."""
    for reader in readers:
        reader.pipe.close()
    until = time.monotonic() + GRACE
    for reader in readers:
        reader.process.join(max(0.0, until - time.monotonic()))
        if reader.process.is_alive():
            reader.process.kill()
            reader.process.join()
        reader.process.close()


class _Watched:
    """Data that say which sample is being read."""

    def __init__(self, data: Any, at: Any):
        self.data, self.at = data, at

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        self.at.value = index
        return self.data[index]


def _serve(
    pipe: Connection,
    at: Any,
    where: str,
    data: Any,
    read: Callable[[Any, range], Any],
    inherited: Sequence[Connection],
) -> None:
    """Read what is asked for until nobody asks any more; the main function of a process."""
    for end in inherited:  # while they are open here nobody learns that who asks is gone
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.current_thread().name = READER
    torch.set_num_threads(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # of this process
        seed(len(inherited))
    watched = _Watched(data, at)
    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(_reply(where, watched, read, pipe.recv()))


def _reply(where: str, data: _Watched, read: Callable[[Any, range], Any], span: range) -> Any:
    try:
        batch = read(data, span)
    except BaseException as error:
        return _failure(where, span, error)
    try:
        return ForkingPickler.dumps(batch)
    except Exception as error:
        refused = TypeError(
            f"{where}: expected labels that pickle, so that a process can hand them over, got "
            f"{said(error)} for {_unpickled(span, batch.labels)}. Read them in a thread: "
            "workers=None."
        )
        refused.__cause__ = error
        return _failure(where, span, refused)


def _unpickled(span: range, labels: Sequence[Any]) -> str:
    for index, label in zip(span, labels, strict=True):
        try:
            ForkingPickler.dumps(label)
        except Exception:
            return f"sample {index}"
    return _listed(span)


def _failure(where: str, span: range, error: BaseException) -> bytes:
    """Write an error, with its cause where that pickles."""
    trace = "".join(traceback.format_exception(error))
    cause = error.__cause__
    # it goes beside: where tblib is installed, as Dask does, an error takes what it came of along
    error.__cause__ = error.__context__ = None
    if not isinstance(error, Exception) or not _crosses(error):
        cause = error
        error = RuntimeError(f"{where}: expected {_listed(span)} to be read, got {said(error)}.")
    cause = cause if cause is None or _crosses(cause) else None
    return pickle.dumps(Failed(error, cause, trace))


def _crosses(error: BaseException) -> bool:
    """Tell whether an exception can be handed over as it is."""
    try:
        other = pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return type(other) is type(error) and said(other) == said(error)


def _listed(span: range) -> str:
    return f"samples {span[0]} to {span[-1]}" if len(span) > 1 else f"sample {span[0]}"
