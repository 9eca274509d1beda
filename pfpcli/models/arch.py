"""From `--arch` and a state dict to a network with those weights.

`build` calls the factory "torchvision:NAME", "timm:NAME" or "package.module:FACTORY" with keyword arguments; `fit`
copies named tensors into the network. Nothing is downloaded: pretrained weights are switched off. Unknown names,
missing libraries, factories that fail or return no module, and weights that do not fit are refused; the hint names the
most similar name, if there is one.
"""

from __future__ import annotations

import difflib
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pfpcli.errors import InputError

# Prefixes that training adds to names: DataParallel and DDP, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")

# Counters that training keeps among the weights. No output depends on them.
COUNTERS = ("num_batches_tracked", "n_averaged")


def build(arch: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build the network that a factory returns, with random weights.

    Args:
        arch: "torchvision:NAME", "timm:NAME" or "package.module:FACTORY".
        kwargs: keyword arguments of the factory.

    Raises:
        InputError: the name is unknown, its library is missing, or the factory fails.
    """
    place, _, name = arch.partition(":")
    if not place or not name:
        raise InputError(
            f"--arch {arch}: expected WHERE:NAME",
            "for example `--arch torchvision:resnet18`, `--arch timm:resnet18` or `--arch models:resnet20`",
        )
    # a file may name an architecture of a library, and a file of that library's name may lie beside it
    importable = nullcontext() if place in FACTORIES else current_folder_importable()
    with importable, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn about initial weights, which are replaced
        factory = FACTORIES[place](arch, name) if place in FACTORIES else _own_factory(arch, place, name)
        try:
            module = factory(**kwargs)
        except (Exception, SystemExit) as error:
            call = f"{name}({', '.join(f'{key}={value!r}' for key, value in kwargs.items())})"
            raise InputError(f"--arch {arch}: {call} failed: {reason(error)}", ARGUMENTS_HINT) from error
    if not isinstance(module, nn.Module):
        raise InputError(
            f"--arch {arch}: returned a {type(module).__name__}, expected a torch.nn.Module",
            "pass the function that builds and returns the network, e.g. `--arch models:resnet20`",
        )
    return module


def fit(file: str, module: nn.Module, weights: Mapping[str, Tensor], arch: str, kwargs: Mapping[str, Any]) -> None:
    """Copy weights into a network.

    A name that the network does not have loses the prefixes that training added, if the network has the rest.

    Args:
        file: name of the file of the weights, for messages.
        module: the network; its parameters and buffers are overwritten.
        weights: dotted name -> tensor.
        arch: the factory of the network, for messages.
        kwargs: keyword arguments of the factory, for the hint.

    Raises:
        InputError: tensors are missing, unexpected or of another shape.
    """
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    found = _without_prefixes(weights, expected)
    missing = [name for name in expected if name not in found and not name.endswith(COUNTERS)]
    unexpected = [name for name in found if name not in expected and not name.endswith(COUNTERS)]
    shapes = {n: (found[n].shape, expected[n].shape) for n in expected if n in found}
    reshaped = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing (first {missing[0]}, {_times(expected[missing[0]].shape)})")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected (first {unexpected[0]}, {_times(found[unexpected[0]].shape)})")
    if reshaped:
        first, (here, there) = next(iter(reshaped.items()))
        problems.append(f"{len(reshaped)} of another shape (first {first}: {_times(here)} here, {_times(there)} there)")
    if problems:
        classes = _classes(reshaped) if place_of(arch) in FACTORIES and not missing and not unexpected else None
        hint = ARGUMENTS_HINT if classes is None else _classes_hint(classes, kwargs)
        raise InputError(f"{file}: does not fit {arch}; of its tensors, {', '.join(problems)}", hint)
    module.load_state_dict(found, strict=False)


def known_input_size(arch: str | None, kwargs: Mapping[str, Any], module: nn.Module) -> tuple[int, ...] | None:
    """Return the (C, H, W) that torchvision's presets or timm's config give for a network, None without either.

    Args:
        arch: the factory of the network; None for a module that was loaded or passed as a whole.
        kwargs: keyword arguments of the factory; timm's `in_chans` and `img_size` change the size.
        module: the network.
    """
    if arch is not None and place_of(arch) == "torchvision":
        return _torchvision_size(arch.partition(":")[2])
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
    if not isinstance(size, tuple | list):
        return None
    image = kwargs.get("img_size", tuple(size[1:]))
    return (kwargs.get("in_chans", size[0]), *((image, image) if isinstance(image, int) else image))


def place_of(arch: str) -> str:
    """Return the library or the user's module in which a factory is looked up."""
    return arch.partition(":")[0]


def library(name: str, asker: str) -> ModuleType:
    """Import torchvision or timm.

    Args:
        name: "torchvision" or "timm".
        asker: the file or flag that needs the library; the message starts with it.

    Raises:
        InputError: it is not installed, or does not work with the installed torch.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise InputError(f"{asker}: importing {name} failed: {reason(error)}") from error
        raise InputError(
            f"{asker}: needs {name}, which is not installed", f'install it with `pip install "pfp[{name}]"`'
        ) from error
    except Exception as error:
        raise InputError(
            f"{asker}: importing {name} failed: {reason(error)}",
            f"install the {name} that goes with torch {torch.__version__}",
        ) from error


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Make the user's modules in the current folder importable, as `python script.py` in that folder does."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint with the most similar of some names; "" if none is similar."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def reason(error: BaseException) -> str:
    """Return type and first line of an error, for the end of a message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


ARGUMENTS_HINT = "pass what the weights were trained with, e.g. `--arch-kwargs '{\"num_classes\": 10}'`"


def _torchvision_factory(arch: str, name: str) -> Callable[..., nn.Module]:
    models = library("torchvision", f"--arch {arch}").models
    if name not in models.list_models():
        raise _unknown(arch, "torchvision", name, models.list_models())
    builder = models.get_model_builder(name)
    downloads = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")
    off = {key: None for key in downloads if key in signature(builder).parameters}
    return lambda **kwargs: builder(**{key: v for key, v in kwargs.items() if key not in downloads}, **off)


def _timm_factory(arch: str, name: str) -> Callable[..., nn.Module]:
    timm = library("timm", f"--arch {arch}")
    if not timm.is_model(name):  # refuses hub addresses, too, which would download
        raise _unknown(arch, "timm", name, timm.list_models())
    # weights come from the checkpoint alone; some releases of timm unpickle whatever a checkpoint_path names
    return lambda **kwargs: timm.create_model(name, **{**kwargs, "pretrained": False, "checkpoint_path": ""})


def _own_factory(arch: str, place: str, name: str) -> Callable[..., Any]:
    try:
        found: Any = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            raise InputError(f"--arch {arch}: there is no module {error.name}", WHERE_HINT) from error
        raise InputError(f"--arch {arch}: importing {place} failed: {reason(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"--arch {arch}: importing {place} failed: {reason(error)}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"--arch {arch}: {place} has no {name}", nearest(part, dir(found)))
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"--arch {arch}: {name} is a {type(found).__name__}, expected a function that builds the network"
        )
    return partial(found)


FACTORIES: dict[str, Callable[[str, str], Callable[..., nn.Module]]] = {
    "torchvision": _torchvision_factory,
    "timm": _timm_factory,
}

WHERE_HINT = "run pfp from the folder that holds it, or add that folder to PYTHONPATH"


def _unknown(arch: str, place: str, name: str, names: Iterable[str]) -> InputError:
    listing = "torchvision.models.list_models()" if place == "torchvision" else "timm.list_models()"
    return InputError(
        f"--arch {arch}: {place} has no model {name}",
        nearest(name, names) or f'list the names with `python -c "import {place}; print(*{listing})"`',
    )


def _torchvision_size(name: str) -> tuple[int, ...] | None:
    models = importlib.import_module("torchvision.models")
    try:
        transforms = models.get_model_weights(name).DEFAULT.transforms()
    except (AttributeError, ValueError):  # a model without published weights
        return None
    # presets of detection, segmentation and video do not resize images to one size
    crop = getattr(transforms, "crop_size", None)
    return (3, crop[0], crop[0]) if crop and type(transforms).__name__ == "ImageClassification" else None


def _without_prefixes(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {_fitting_name(name, expected): name for name in weights if name not in expected}
    return {
        **{name: weights[old] for name, old in renamed.items()},
        **{n: weights[n] for n in weights if n in expected},
    }


def _fitting_name(name: str, expected: Mapping[str, Tensor]) -> str:
    """Return the name without its prefixes if the network has that name, else the name itself."""
    bare = name
    while bare not in expected:
        prefix = next((prefix for prefix in PREFIXES if bare.startswith(prefix)), None)
        if prefix is None:
            return name
        bare = bare.removeprefix(prefix)
    return bare


def _classes(reshaped: Mapping[str, tuple[torch.Size, torch.Size]]) -> int | None:
    """Return the number of classes of the file if another number of classes explains every difference, else None."""
    same_tail = all(here[1:] == there[1:] and len(here) == len(there) > 0 for here, there in reshaped.values())
    counts = {(here[0], there[0]) for here, there in reshaped.values()} if same_tail else set()
    return counts.pop()[0] if len(counts) == 1 else None


def _classes_hint(classes: int, kwargs: Mapping[str, Any]) -> str:
    changed = json.dumps({**kwargs, "num_classes": classes})
    return f"build it with the file's {classes} classes: `--arch-kwargs '{changed}'`"


def _times(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a scalar"
