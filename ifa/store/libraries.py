"""Networks of transformers and of timm, made from local files alone."""

import difflib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ifa.store.checkpoints import SHOWN, said, some

_WHERE = "ifa.ModelRef"
_FILES = ("*.safetensors", "*.bin")  # of weights
_DEFAULTS = {"attn_implementation": "eager", "dtype": torch.float32}  # gradients go through both
_FIXED = {"local_files_only", "trust_remote_code", "return_unused_kwargs"}
_OTHERS = "Give another network's code: path/to/net.py:factory."


def hugging_face(place: str, changes: dict[str, Any], weights: bool) -> tuple[nn.Module, bool]:
    """Build the network of a folder or a configuration, and say whether weights were read."""
    path, folder = Path(place), folder_of(_WHERE, place)
    transformers = library(_WHERE, "transformers")
    options = {name: changes.get(name, default) for name, default in _DEFAULTS.items()}
    changes = {name: change for name, change in changes.items() if name not in _DEFAULTS}
    config = _configuration(transformers, folder, changes)
    architecture = _architecture(transformers, config, folder)
    if path != folder or not weights:
        with _seeded():
            return _placeless(architecture._from_config(config, **options)), False
    if not any(file for pattern in _FILES for file in folder.glob(pattern)):
        raise FileNotFoundError(
            f"{_WHERE}: expected {folder} to hold weights, got no file {' or '.join(_FILES)}. Give "
            f"weights=, or 'hf:{folder / 'config.json'}' for random ones."
        )
    model = _trained(transformers, architecture, folder, config=config, **options)
    return _placeless(model), True


def _placeless(model: Any) -> nn.Module:
    """Forget where a network was read: in another place it is the same one."""
    for module in model.modules():
        if hasattr(module, "name_or_path"):
            module.name_or_path = module.config.name_or_path = ""
    return model


def _trained(transformers: Any, architecture: Any, folder: Path, **options: Any) -> nn.Module:
    """Read a folder's weights, all of which have to fit."""
    options |= {"local_files_only": True, "output_loading_info": True}
    options |= {"ignore_mismatched_sizes": True}  # they are in the report
    with _quiet(transformers):
        try:
            model, report = architecture.from_pretrained(folder, **options)
        except (
            *(OSError, ImportError, RuntimeError, ValueError),
            *(SafetensorError, pickle.UnpicklingError),
        ) as error:
            raise ValueError(
                f"{_WHERE}: expected {folder} to hold weights that transformers "
                f"{transformers.__version__} reads without running code, got {said(error)}. Save "
                "the network again with model.save_pretrained."
            ) from error
    _check_report(folder, architecture.__name__, report)
    return model


def folder_of(where: str, place: str) -> Path:
    """Return the folder of a configuration; nothing is looked for anywhere else."""
    path = Path(place)
    folder = path.parent if path.name == "config.json" else path
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{where}: expected a folder with a config.json after 'hf:', or that file, got "
            f"{place!r}, where there is none. Nothing is downloaded: write such a folder with "
            "model.save_pretrained."
        )
    return folder


def _configuration(transformers: Any, folder: Path, changes: dict[str, Any]) -> Any:
    if _FIXED & changes.keys():
        raise TypeError(
            f"{_WHERE}: expected config= to change the network, got "
            f"{', '.join(sorted(_FIXED & changes.keys()))}. Nothing is downloaded, and no code of "
            "a folder is run."
        )
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            return_unused_kwargs=True,
            **changes,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{_WHERE}: expected a configuration that transformers {transformers.__version__} "
            f"knows, without code of its own, got {folder / 'config.json'} ({said(error)}). "
            f"{_OTHERS}"
        ) from error
    if unused:
        raise TypeError(
            f"{_WHERE}: expected config= to name what {type(config).__name__} has, got "
            f"{', '.join(map(repr, unused))}. See {folder / 'config.json'}."
        )
    return config


def _architecture(transformers: Any, config: Any, folder: Path) -> Any:
    """Return the class that a configuration names, or transformers' own for images."""
    name = (config.architectures or [""])[0]
    mapping = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    known = getattr(transformers, name, None) if name else mapping.get(type(config), None)
    if known is None or not issubclass(known, transformers.PreTrainedModel):
        raise LookupError(
            f"{_WHERE}: expected {folder / 'config.json'} to name an architecture of transformers "
            f"{transformers.__version__}, got {name or 'none, and it is none of images'}. "
            f"{_OTHERS}"
        )
    return known


def _check_report(folder: Path, name: str, report: dict[str, Any]) -> None:
    """Refuse weights that transformers would leave out or make up."""
    kinds = {"missing_keys": "missing", "unexpected_keys": "not in the network"}
    wrong = [f"{kind} {some(sorted(report[key]))}" for key, kind in kinds.items() if report[key]]
    wrong += [
        f"size mismatch for {key}: {tuple(theirs)} in the file, {tuple(ours)} in the network"
        for key, theirs, ours in sorted(report["mismatched_keys"])
    ][:SHOWN]
    if wrong:
        raise ValueError(
            f"{_WHERE}: expected weights for {name}, but those in {folder} do not fit it: "
            f"{'; '.join(wrong)}. Give the configuration they were trained with."
        )


def timm(name: str, options: dict[str, Any], weights: bool) -> tuple[nn.Module, bool]:
    """Build a network of timm, of random weights."""
    timm_settings(_WHERE, name)
    downloads = sorted({"pretrained", "checkpoint_path"} & options.keys())
    if downloads:
        raise TypeError(
            f"{_WHERE}: expected config= without {', '.join(downloads)}: nothing is downloaded, "
            "and weights are read safely. Give weights=, a local file."
        )
    with _seeded():
        return library(_WHERE, "timm").create_model(name, pretrained=False, **options), False


def timm_settings(where: str, name: str) -> Any:
    """Return what timm knows of one of its networks: size, mean and deviation of pictures."""
    known = library(where, "timm")
    try:
        found = known.get_pretrained_cfg(name) if known.is_model(name) else None
    except RuntimeError:  # of other weights than timm has
        found = None
    if found is None:
        near = difflib.get_close_matches(name, known.list_models(), 3)
        raise LookupError(
            f"{where}: expected a network that timm {known.__version__} has, got {name!r}. Near it "
            f"are: {', '.join(near) or 'none; see timm.list_models()'}."
        )
    return found


def library(where: str, name: str) -> Any:
    """Import an optional library, or say what is missing."""
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision's operators may not load
        beside = " with a torchvision made for your torch" * (name == "timm")
        raise LookupError(
            f"{where}: expected {name}, whose networks are asked for, to be importable, but it is "
            f"not ({said(error)}). Install it{beside}, or give a network's code: net.py:factory."
        ) from error


@contextmanager
def _seeded() -> Iterator[None]:
    """Make random weights the same in every process, and leave the generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from drawing bars and tables; what does not fit is an error of ours."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


LIBRARIES: dict[str, Callable[[str, dict[str, Any], bool], tuple[nn.Module, bool]]] = {
    "hf": hugging_face,
    "timm": timm,
}
