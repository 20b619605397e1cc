"""Runs on object stores: S3 by moto's server, whole and failing; drivers killed and at once."""

import builtins
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import s3
from cheap_runs import bits, cheap_run
from slow_runs import Starter
from test_pages import ROOT, blocks, given

import ifa

pytest.importorskip("obstore")


@pytest.fixture(scope="module")
def address():
    with s3.server() as address:
        yield address


@pytest.fixture
def store(address, monkeypatch, request):
    """Say where a run of the test may be, for any S3 client."""
    for name, value in s3.environment(address).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.BUCKET}/{request.node.name.replace('[', '-').strip(']')}/run"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return bits(cheap_run(tmp_path_factory.mktemp("folder") / "run"))


def test_a_run_on_s3_has_the_bits_of_one_in_a_folder(store, address, expected, monkeypatch):
    """One request in twenty fails as it is made: refused, done but answered wrongly, or lost."""
    with s3.Proxy(address, share=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        assert bits(cheap_run(store)) == expected
        assert any(fate for *_, fate in proxy.asked)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert bits(ifa.open(store)) == expected
    ifa.verify(store)
    with pytest.raises(ValueError, match=f"the run at {store} to be of this very analysis"):
        cheap_run(store, seed=1)


def test_the_page_runs(store, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # of the server that plays S3
    code = blocks(ROOT / "docs" / "how-to" / "object-stores.md").replace("bucket", s3.BUCKET)
    exec(compile(code, "object-stores.md", "exec"), given())


@pytest.fixture
def memory():
    """A store of obstore without a server, and what changes its objects."""
    from obstore.store import MemoryStore

    return MemoryStore()


def test_a_store_of_obstore_is_a_place(memory, expected):
    assert bits(cheap_run(memory)) == expected
    assert bits(ifa.open(memory)) == expected
    ifa.verify(memory)


def test_what_was_changed_on_an_object_store_is_found(memory):
    import obstore

    cheap_run(memory)
    obstore.put(memory, "samples.zarr/label/c/3", b"other")
    obstore.put(memory, "samples.zarr/mine", b"")
    with pytest.raises(ValueError, match=r"2 differences: samples\.zarr/label/c/3 was changed"):
        ifa.open(memory)
    with pytest.raises(ValueError, match=r"samples\.zarr/mine was not committed"):
        ifa.verify(memory)
    obstore.put(memory, "COMMIT.json", b"{}")
    with pytest.raises(ValueError, match=r"COMMIT\.json cannot be read"):
        ifa.open(memory)


def test_a_prefix_with_other_objects_is_left_alone(memory):
    import obstore

    obstore.put(memory, "holiday.jpg", b"")
    with pytest.raises(ValueError, match=r"with other files in it\. Nothing was touched"):
        cheap_run(memory)
    assert [one["path"] for one in obstore.list(memory).collect()] == ["holiday.jpg"]


# filters of warnings are the process's, and its threads set them at once
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_of_two_drivers_at_once_one_wins_and_both_have_the_bits(memory, expected):
    barrier, found = threading.Barrier(4), []

    def drive(seed):
        barrier.wait()
        try:
            found.append((seed, bits(cheap_run(memory, seed=seed))))
        except ValueError as error:
            found.append((seed, str(error)))

    threads = [threading.Thread(target=drive, args=(seed,)) for seed in (0, 0, 1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = {seed for seed, value in found if not isinstance(value, str)}
    assert sorted(seed for seed, _ in found) == [0, 0, 1, 1]
    mine = [value for seed, value in found if seed == winner]
    assert mine[0] == mine[1] == bits(ifa.open(memory))
    assert winner or mine[0] == expected
    assert all("got another: seed" in said for seed, said in found if seed != winner)
    ifa.verify(memory)


def test_rows_of_another_process_that_differ_are_refused(memory, monkeypatch):
    """A marker is made once: where another driver got other rows, that is said."""
    import obstore

    put, taken = obstore.put, []

    def first(store, path, content, **options):
        if path == "shards/00002.npz" and not taken:
            taken.append(True)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(obstore, "put", put)
                _other_marker(store, path)
        return put(store, path, content, **options)

    monkeypatch.setattr(obstore, "put", first)
    with pytest.raises(ValueError, match=r"shards/00002\.npz is of another process"):
        cheap_run(memory)


def _other_marker(store, path):
    import obstore

    from ifa.store.markers import marker_text, read_marker

    text = obstore.get(store, "shards/00000.npz").bytes().to_bytes()
    marker, states = read_marker("here", path, text)
    obstore.put(store, path, marker_text(marker._replace(shard=2), states))


def test_a_store_that_does_not_answer_is_named(monkeypatch):
    from obstore.store import S3Store

    retry = {"max_retries": 0}
    options = {"endpoint": "http://127.0.0.1:1", "client_options": {"allow_http": True}}
    away = S3Store("bucket", skip_signature=True, retry_config=retry, **options)
    with pytest.raises(OSError, match=r"ifa\.store: expected to list s3://bucket, got Generic"):
        cheap_run(away)


def test_without_obstore_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def lacking(name, *rest):
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ImportError, match=r"expected obstore for s3://b/run.* 'ifa\[s3\]'"):
        ifa.open("s3://b/run")


def test_a_process_forked_from_one_that_used_a_store_is_told(memory, monkeypatch):
    monkeypatch.setattr("ifa.store.objects._USED", [os.getpid() + 1])
    with pytest.raises(RuntimeError, match="started anew, got one that was forked"):
        ifa.open(memory)


@pytest.mark.deep
def test_a_run_in_a_folder_loads_neither_obstore_nor_moto(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:2]; import cheap_runs, ifa;"
        "cheap_runs.cheap_run(sys.argv[2]); ifa.open(sys.argv[2]);"
        "assert not {'obstore', 'moto', 'boto3', 'distributed'} & {*sys.modules}"
    )
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", code, here, str(tmp_path / "run")], check=True)


# Long runs

KINDS = ("analyze", "maps", "table")


@pytest.fixture(scope="module")
def starter(address):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment(address).items():
            patch.setenv(name, value)
        with Starter() as starter:
            yield starter


def _done(starter, home, run, kind, **options):
    errors = home / "errors"
    code = starter.run(kind=kind, store=str(run), errors=str(errors), **options)
    assert code in (0, -signal.SIGKILL), errors.read_text()
    return not code


def _objects(store):
    from ifa.store.places import place_of

    place = place_of("test", store)
    return {name: place.read(name) for name in place.list() if name != "COMMIT.json"}


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_ten_kills_of_the_driver_on_s3_lose_nothing(kind, starter, store, tmp_path):
    begun = time.monotonic()
    assert _done(starter, tmp_path, f"{store}-whole", kind)
    takes, draw, inside = time.monotonic() - begun, random.Random(0), 0
    for number in range(10):
        if _done(starter, tmp_path, f"{store}-{inside}", kind, after=draw.uniform(0, takes)):
            continue  # it came to its end
        inside += number % 3 == 2  # some go on where the last was killed
    for number in range(inside + 1):
        run = f"{store}-{number}"
        assert _done(starter, tmp_path, run, kind)
        assert _objects(run) == _objects(f"{store}-whole")
        ifa.verify(run)


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_driver_wastes_work_and_spoils_nothing(kind, address, starter, store, tmp_path):
    assert _done(starter, tmp_path, f"{store}-whole", kind)
    with Starter() as other:
        for number, late in enumerate((0, 0.1, 0.3, 0.6)):
            run, codes = f"{store}-{number}", []

            def first(run=run, codes=codes):
                codes.append(_done(starter, tmp_path, run, kind))

            thread = threading.Thread(target=first)
            thread.start()
            time.sleep(late)
            codes.append(other.run(kind=kind, store=run, errors=str(tmp_path / "second")) == 0)
            thread.join()
            assert all(codes), (tmp_path / "second").read_text()
            assert _objects(run) == _objects(f"{store}-whole")
            ifa.verify(run)


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_one_request_in_twenty_fails(kind, address, store, tmp_path, monkeypatch):
    import slow_runs

    slow_runs.run(kind, f"{store}-whole")
    with s3.Proxy(address, share=0.05, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        for number in range(5):
            slow_runs.run(kind, f"{store}-{number}")
        failed = sum(bool(fate) for *_, fate in proxy.asked)
        print(f"{failed} of {len(proxy.asked)} requests failed")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for number in range(5):
        assert _objects(f"{store}-{number}") == _objects(f"{store}-whole")
        ifa.verify(f"{store}-{number}")
