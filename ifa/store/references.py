"""Networks and data by reference: where their code is, safe weights and a configuration."""

import copy
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ifa.store.checkpoints import check_state_file, load_weights
from ifa.store.libraries import LIBRARIES
from ifa.store.preparations import preparation
from ifa.store.sources import called, imported

_SAVED = (".pt", ".pth", ".pt2", ".ts", ".torchscript", ".ckpt", ".bin", ".safetensors", ".onnx")
_LOG = logging.getLogger(__name__)
_LOADING = threading.RLock()  # factories may seed the process's generator: one at a time


@dataclass(frozen=True)
class ModelRef:
    """A model that a worker process can load by itself.

    Parameters
    ----------
    factory
        Where the network is from:

        - ``"package.module:name"`` or ``"path/to/file.py:name"``: a callable that returns a
          `torch.nn.Module`, or a module, which is copied. Importing it runs its code: use it as you
          would use the package. A file is imported as any module, once in a process, under the name
          that it has from its own folder, in which it finds its neighbours;
        - ``"hf:FOLDER"``: what ``save_pretrained`` of transformers left, of the architecture that
          its ``config.json`` names, with eager attention and in float32;
          ``"hf:FOLDER/config.json"``: the architecture alone;
        - ``"timm:NAME"``: a network of timm.

        Nothing is downloaded. Without weights, those of the last two are random, of seed 0, and the
        log says so.
    weights
        File of a state dictionary: safetensors, or one that ``torch.load(weights_only=True)``
        reads. In a checkpoint it is the mapping that fits; ``"file#key"`` chooses one of several.
        The prefixes ``module.``, ``_orig_mod.``, ``model.`` and ``net.`` are taken off where all
        names then fit; the log, ``logging.getLogger("ifa")``, says so. None keeps what there is.
    config
        Keyword arguments of the factory; for ``hf:`` what to change in the configuration.

    Examples
    --------
    >>> import ifa
    >>> reference = ifa.ModelRef("torch.nn:Linear", config={"in_features": 2, "out_features": 1})
    >>> reference.load()
    Linear(in_features=2, out_features=1, bias=True)
    """

    factory: str
    weights: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    def load(self) -> nn.Module:
        """Build the model, load its weights strictly, and put it in evaluation mode."""
        with _LOADING:
            return self._load()

    def _load(self) -> nn.Module:
        library, _, name = self.factory.partition(":")
        if library in LIBRARIES:
            model, trained = LIBRARIES[library](name, self.config, self.weights is None)
            if not trained and self.weights is None:
                _LOG.warning("%s: its weights are random (seed 0); give weights=", self.factory)
        else:
            model = _own(self.factory, self.config)
        if self.weights is not None:
            for note in load_weights(model, self.weights):
                _LOG.info(note)
        return model.eval()

    def preparation(self, how: str) -> Callable[[Any], Any]:
        """Return what makes this network's input of a picture, a `PIL.Image.Image`.

        Parameters
        ----------
        how
            ``"hf"``, the image processor in the network's folder; ``"timm"``, timm's transform for
            evaluation, from the sizes, mean and deviation that the network is registered with;
            ``"hf:FOLDER"`` and ``"timm:NAME"``, those of another network; or a function of your
            own, ``"package.module:name"`` or ``"path/to/file.py:name"``.

        Returns
        -------
        callable
            picture → a tensor (channel, row, column), or what the processor gives, a batch of one,
            where this is more than the pixels. For ``prepare=`` of `ifa.data`; it can be sent to
            other processes.
        """
        return preparation("ifa.ModelRef.preparation", how, self.factory, self.config)


@dataclass(frozen=True)
class DataRef:
    """Data that a worker process can load by itself.

    A data set that is in memory would be sent to every process; of this only the reference is.

    Parameters
    ----------
    factory
        ``"package.module:name"`` or ``"path/to/file.py:name"``: a callable that returns a data set,
        as `ifa.analyze` takes it, the same in every process; ``"ifa.data:folder"``, and the others
        of `ifa.data`. Importing it runs its code: use it as you would use the package.
    config
        Keyword arguments of the factory.

    Examples
    --------
    >>> import ifa
    >>> reference = ifa.DataRef("ifa.nets:digits", config={"split": "held-out"})
    >>> len(reference.load())
    899
    """

    factory: str
    config: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """Call the factory."""
        with _LOADING:
            return called(self.factory, "ifa.DataRef", **self.config)

    def loaded(self) -> Any:
        """Return what was loaded before in this thread, or load it.

        Data are read by one thread at a time, so that each thread that computes has its own.
        """
        key = json.dumps([self.factory, self.config], sort_keys=True, default=repr)
        kept: OrderedDict[str, Any] = vars(_DATA).setdefault("kept", OrderedDict())
        if key not in kept:
            kept[key] = self.load()
        kept.move_to_end(key)
        while len(kept) > _MOST_DATA:
            kept.popitem(last=False)
        return kept[key]


_DATA = threading.local()
_MOST_DATA = 2  # of each thread


def _own(factory: str, config: dict[str, Any]) -> nn.Module:
    """Build a network of the user's own code, or of a package's."""
    where = "ifa.ModelRef"
    if Path(factory).suffix in _SAVED:
        raise _no_code(Path(factory))
    model = imported(factory, where)
    if not isinstance(model, nn.Module):
        model = called(factory, where, **config)
    elif config:
        raise TypeError(
            f"{where}: expected no config for {factory}, which is a network already, got "
            f"{', '.join(config)}. Write a function that returns the network."
        )
    else:
        model = copy.deepcopy(model)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{where}: expected {factory} to return a torch.nn.Module, got {type(model).__name__}."
        )
    return model


def _no_code(path: Path) -> Exception:
    """Say why a file that was saved is no network."""
    if not path.is_file():
        return FileNotFoundError(f"ifa.ModelRef: expected a network, got {path}, which is no file.")
    try:
        check_state_file(path)
    except ValueError as error:
        return error
    return ValueError(
        f"ifa.ModelRef: expected where a network's code is, got {path}, a file of weights. Give "
        f"both: ifa.ModelRef('path/to/net.py:factory', weights={str(path)!r})."
    )
