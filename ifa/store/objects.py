"""A run on an object store, by obstore: objects are whole or absent, and none is ever renamed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from ifa.store.places import AT_ONCE, Entries, Files, Place, digest_of

# A process that is forked has none of the threads that obstore works in, and would wait forever.
_USED: list[int] = []


@dataclass(frozen=True)
class Objects:
    """All objects of a store whose names begin with a prefix."""

    store: Any  # obstore's
    url: str  # what errors call it
    prefix: str = ""  # with a slash at its end, if it is not empty
    local: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"{self.url}/{self.prefix}".rstrip("/")

    @property
    def name(self) -> str:
        return str(self).rsplit("/", 1)[-1]

    def fixed(self) -> "Objects":
        return self

    def below(self, name: str) -> "Objects":
        return Objects(self.store, self.url, f"{self.prefix}{name}/")

    def read(self, name: str) -> bytes:
        with self._asked("read", name) as obstore:
            return obstore.get(self.store, self.prefix + name).bytes().to_bytes()

    def write(self, name: str, content: bytes) -> None:
        with self._asked("write", name) as obstore:
            obstore.put(self.store, self.prefix + name, content, use_multipart=False)

    def write_once(self, name: str, content: bytes) -> bool:
        with self._asked("write", name) as obstore:
            try:
                obstore.put(self.store, self.prefix + name, content, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def exists(self, name: str) -> bool:
        with self._asked("look for", name) as obstore:
            if not name:
                return any(obstore.list(self.store, self.prefix or None, chunk_size=1))
            try:
                obstore.head(self.store, self.prefix + name)
            except FileNotFoundError:
                return False
        return True

    def list(self, *, deep: bool = True) -> Entries:
        with self._asked("list", "") as obstore:
            prefix, cut = self.prefix or None, len(self.prefix)
            if deep:
                every = (each for batch in obstore.list(self.store, prefix) for each in batch)
                return {each["path"][cut:]: each["size"] for each in every}
            top = obstore.list_with_delimiter(self.store, prefix)
            folders = {each[cut:].strip("/"): "a folder" for each in top["common_prefixes"]}
            return folders | {each["path"][cut:]: each["size"] for each in top["objects"]}

    def zarr(self) -> Any:
        from zarr.storage import ObjectStore

        class Below(ObjectStore):
            """A store whose keys begin with a prefix."""

            prefix = self.prefix

            async def get(self, key: str, *args: Any, **options: Any) -> Any:
                return await super().get(self.prefix + key, *args, **options)

        return Below(self.store, read_only=True)

    def held(self, wait: float) -> nullcontext[bool]:
        return nullcontext(True)

    def make(self, name: str) -> None:
        pass

    def put(self, files: Iterable[tuple[str, bytes]]) -> Files:
        found: Files = {}
        with ThreadPoolExecutor(AT_ONCE, "ifa-put") as threads:
            going = deque()
            for name, content in files:
                found[name] = digest_of(content)
                going.append(threads.submit(self.write, name, content))
                if len(going) == AT_ONCE:
                    going.popleft().result()
            for one in going:
                one.result()
        return found

    def build(self, name: str, files: Mapping[str, bytes]) -> None:
        place = self.below(name)
        place.put((each, content) for each, content in files.items() if each != "zarr.json")
        place.write("zarr.json", files["zarr.json"])

    def built(self, name: str) -> bool:
        return self.exists(f"{name}/zarr.json")

    def whole(self, build: Callable[[Place], object]) -> None:
        build(self)

    def remove(self, name: str, but: Iterable[str] = ()) -> None:
        place = self.below(name)
        strays = [place.prefix + each for each in place.list().keys() - {*but}]
        with self._asked("remove", name) as obstore:
            if strays:
                obstore.delete(self.store, strays)

    def sweep(self) -> None:
        pass

    def _said(self, name: str) -> str:
        return f"{self}/{name}".rstrip("/")

    @contextmanager
    def _asked(self, what: str, name: str) -> Iterator[Any]:
        """Hand out obstore; what a store answers names what was asked of it."""
        import obstore

        _check_fork()
        try:
            yield obstore
        except obstore.exceptions.BaseError as error:
            reason = str(error).split("\n\nDebug source")[0]
            raise OSError(
                f"ifa.store: expected to {what} {self._said(name)}, got "
                f"{type(error).__name__}: {reason}. Look at the store's address, region and "
                "credentials: the AWS_* variables, or an obstore store in place of the URL. Once "
                "it answers, run again: what is done is kept."
            ) from error


def at_url(where: str, url: str) -> Objects:
    """Take a URL such as s3://bucket/run as a place; the environment has the credentials."""
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise ImportError(
            f"{where}: expected obstore for {url}, which is not installed. "
            "Install it: pip install 'ifa[s3]'."
        ) from error
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.strip("/").partition("/")
    # a server of one's own is asked for without TLS only where its address says so
    plain = _endpoint().startswith("http://")
    options: Any = {"client_options": {"allow_http": True}} if plain else {}
    home = f"{scheme}://{bucket}"
    try:
        store: Any = from_url(home, **options)
    except Exception as error:
        raise ValueError(
            f"{where}: expected the URL of an object store, such as s3://bucket/run, got {url} "
            f"({error}). Give one, or the path of a folder."
        ) from error
    return Objects(store, home, f"{prefix}/" if prefix else "")


def of_obstore(store: Any) -> Objects:
    """Take an obstore store, with its own options, as a place."""
    config = getattr(store, "config", {})
    bucket, prefix = config.get("bucket", ""), getattr(store, "prefix", None) or ""
    kind = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}.get(type(store).__name__)
    url = f"{kind}://{bucket}/{prefix}" if kind else type(store).__name__
    return Objects(store, url.rstrip("/"))


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if name in os.environ), "")


def _check_fork() -> None:
    if not _USED:
        _USED.append(os.getpid())
    if _USED[0] != os.getpid():
        raise RuntimeError(
            "ifa.store: expected an object store to be used by processes that are started anew, "
            "got one that was forked from a process which had used it. Start them by 'spawn': "
            "ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn')), or by Dask."
        )
