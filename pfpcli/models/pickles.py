"""Which pickles and .pt2 archives pfp loads from a file that is not trusted.

A pickle is a program: it names callables and calls them. pfp allows three kinds of names only:

1. the names that `torch.load(weights_only=True)` allows: tensors, numbers, plain containers;
2. layers: subclasses of nn.Module, and enums, that are defined in `LAYER_MODULES` of the installed libraries and named
   by the module that defines them. A pickle can call these classes, set their attributes and nest them. Functions and
   `functools.partial`, which would make a function of any class, are not allowed. The models of torchvision and timm
   that were tried need no other names, except the vision transformers of torchvision, which hold a partial;
3. the plain values that training scripts save next to the weights (`_values`).

Layers that turn their arguments into Python source (`SOURCE_WRITERS`, everything of torch.fx and torch.jit) are not
allowed, since names in the pickle would become part of that source.

A .pt2 archive consists of JSON and raw tensors, but may also contain pickles, compiled code and expressions that torch
evaluates. `check_program` checks all of them.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from enum import Enum
from typing import Any, BinaryIO

import numpy
import torch
from torch import fx, nn

from pfpcli.errors import InputError
from pfpcli.graph.safe_names import UNSAFE
from pfpcli.models.arch import current_folder_importable, library, reason

LAYER_MODULES = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "timm.models.", "timm.layers.")
SOURCE_WRITERS = ("torchvision.models.feature_extraction.", "timm.models._features_fx.")

TRUST_HINT = "if you trust whoever made the file, add --trust"


def unpickle(file: BinaryIO, name: str, trust: bool) -> Any:
    """Load the object that `torch.save` wrote, with its tensors on the CPU.

    Args:
        file: the file, open at its beginning.
        name: its name, for messages.
        trust: whether to call every name in the pickle, also of modules in the current folder.

    Raises:
        InputError: the file is broken, needs a class that is missing, or is not trusted and would run code.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about old formats and changed source code
        return _unpickle_all(file, name) if trust else _unpickle_harmless(file, name)


def _unpickle_harmless(file: BinaryIO, name: str) -> Any:
    values = _values()
    layers = {dotted: _layer(dotted, name) for dotted in _globals(file, name) if dotted not in values}
    strange = sorted(dotted for dotted, found in layers.items() if found is None)
    if strange:
        raise InputError(f"{name}: holds {_listed(strange)}; loading it would run code from the file", TRUST_HINT)
    allowed: list[Any] = [(found, dotted) for dotted, found in (values | layers).items()]
    with torch.serialization.safe_globals(allowed):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(f"{name}: cannot be loaded without running code from the file", TRUST_HINT) from error
        except Exception as error:
            raise broken(name, error) from error


def _unpickle_all(file: BinaryIO, name: str) -> Any:
    with current_folder_importable():
        try:
            return torch.load(file, map_location="cpu", weights_only=False)
        except ModuleNotFoundError as error:
            raise InputError(
                f"{name}: needs the Python module {error.name}, which cannot be found",
                "run pfp from the folder that holds it, or add that folder to PYTHONPATH",
            ) from error
        except AttributeError as error:
            found = re.search(r"attribute '([\w.<>]+)' on <module '([\w.]+)'", str(error))
            if found is None:
                raise broken(name, error) from error
            raise _absent(name, f"{found[2]}.{found[1]}") from error
        except Exception as error:
            raise broken(name, error) from error


def broken(name: str, error: BaseException) -> InputError:
    """Return the error of a file that was cut off or contradicts itself."""
    return InputError(f"{name}: cannot be read ({reason(error)})", "copy or download it again, or save it again")


def _globals(file: BinaryIO, name: str) -> list[str]:
    """Return the dotted names in a pickle that torch does not allow by itself; none for the format before torch 1.6.

    In that format, `torch.load` refuses everything except tensors and plain containers.
    """
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except ValueError:
        return []
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{name}: was saved with another pickle protocol than 2, so pfp cannot tell what code it would run",
            f"save it again without `pickle_protocol=`, or, {TRUST_HINT}",
        ) from error
    except Exception as error:
        raise broken(name, error) from error
    finally:
        file.seek(0)


def _layer(dotted: str, name: str) -> type | None:
    """Return the layer or enum with a dotted name, None for anything else. Imports modules of the libraries only."""
    if not dotted.startswith(LAYER_MODULES) or dotted.startswith(SOURCE_WRITERS):
        return None
    if not all(part.isidentifier() for part in dotted.split(".")):
        return None
    library(dotted.partition(".")[0], name)
    found = _defined(dotted)
    if found is None:
        raise _absent(name, dotted)
    writes_source = isinstance(found, type) and issubclass(found, fx.GraphModule | torch.jit.ScriptModule)
    harmless = isinstance(found, type) and issubclass(found, nn.Module | Enum) and not writes_source
    # other names than that of the definition would reach everything that a module imports
    return found if harmless and f"{found.__module__}.{found.__qualname__}" == dotted else None


def _defined(dotted: str) -> Any:
    """Return the object with a dotted name such as `package.module.Outer.Inner`, None if there is none."""
    place, _, rest = dotted.rpartition(".")
    while place:
        try:
            found: Any = importlib.import_module(place)
        except ModuleNotFoundError:
            place, _, part = place.rpartition(".")
            rest = f"{part}.{rest}"
            continue
        for part in rest.split("."):
            found = getattr(found, part, None)
        return found
    return None


def _absent(name: str, dotted: str) -> InputError:
    module, _, attribute = dotted.rpartition(".")
    if module.split(".")[-1] == "__main__":  # `python -m` names the module package.__main__
        return InputError(
            f"{name}: needs {attribute}, which was defined in the script that saved it",
            "move it into a module of its own and save again, or save model.state_dict() and pass --arch",
        )
    package = dotted.partition(".")[0]
    version = getattr(importlib.import_module(package), "__version__", "")
    return InputError(
        f"{name}: needs {attribute}, which the module {module} here ({package} {version or 'of yours'}) does not have",
        "use the version that the file was saved with, or save model.state_dict() and pass --arch",
    )


def _listed(dotted: list[str]) -> str:
    """Return "the class models.Net, which is not a layer ..."; at most three names, then a count."""
    # a pickle does not say which names are classes; their names begin with a capital
    classes = all(name.rpartition(".")[2].lstrip("_")[:1].isupper() for name in dotted)
    kind = ("the classes " if len(dotted) > 1 else "the class ") if classes else ""
    shown = dotted[:3] + [f"{len(dotted) - 3} more"] * (len(dotted) > 3)
    text = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    verb = "is not a layer" if len(dotted) == 1 else "are not layers"
    return f"{kind}{text}, which {verb} of torch.nn, torchvision or timm"


def _values() -> dict[str, Any]:
    """Return name -> class of the values that training scripts save next to weights: arguments and NumPy numbers."""
    scalar = numpy.float64(0).__reduce__()[0]  # the name of its private module depends on NumPy's version
    numbers = [type(numpy.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return {
        "argparse.Namespace": Namespace,
        "numpy.dtype": numpy.dtype,
        "numpy.core.multiarray.scalar": scalar,
        "numpy._core.multiarray.scalar": scalar,
        **{f"numpy.dtypes.{number.__name__}": number for number in numbers},
    }


def check_program(file: BinaryIO, name: str) -> None:
    """Check that loading a .pt2 archive runs no code.

    Args:
        file: the zip archive, open at its beginning; it is rewound.
        name: its name, for messages.

    Raises:
        InputError: the archive contains compiled code, a pickle of more than tensors, an expression that is no size,
            or two members of one name, of which torch might read the unchecked one.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            dangers = [danger for member in members_of(archive, name) if (danger := _danger(archive, member))]
    except InputError:
        raise
    except Exception as error:
        raise broken(name, error) from error
    if dangers:
        raise InputError(f"{name}: holds {dangers[0]}; loading it would run code from the file", TRUST_HINT)
    file.seek(0)


def members_of(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Return the names of the members of an archive.

    Args:
        archive: the archive.
        name: its name, for messages.

    Raises:
        InputError: two have the same name, so that torch might read the one that was not checked.
    """
    members = archive.namelist()
    if len({member.lower() for member in members}) < len(members):
        raise InputError(f"{name}: holds two members of the same name", "save it again with torch")
    return members


def _danger(archive: zipfile.ZipFile, member: str) -> str:
    """Return what could run code in a member of a .pt2 archive; "" if nothing could."""
    if "/aotinductor/" in f"/{member}":
        return f"compiled code ({member})"
    if member.endswith(".json") or "/models/" in f"/{member}":
        return _danger_in(json.loads(archive.read(member)))
    old_pickle = member.startswith(("serialized_state_dict", "serialized_constants", "serialized_example_inputs"))
    if not (member.endswith(".pt") or old_pickle):
        return ""
    # where this fails, torch.export.load tries again without weights_only
    try:
        torch.load(io.BytesIO(archive.read(member)), map_location="cpu", weights_only=True)
    except Exception:
        return f"a pickle of more than tensors ({member})"
    return ""


def _danger_in(tree: Any) -> str:
    """Return what could run code in parsed JSON: a pickled payload, an expression, or a name; "" if nothing could."""
    if isinstance(tree, list):
        return next(filter(None, map(_danger_in, tree)), "")
    if not isinstance(tree, dict):
        return ""
    if tree.get("use_pickle") or not _RAW_PAYLOAD.fullmatch(str(tree.get("path_name", "weight_0"))):
        return f"a pickled object ({tree.get('path_name')})"
    if not _SIZE.fullmatch(str(tree.get("expr_str", ""))):
        return f"an expression that is no size ({tree['expr_str']!r:.60})"
    for key, value in tree.items():
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and not _NAMES.get(key, _ANY).fullmatch(name):
                return f"a {key.replace('_', ' ')} that is no name ({name!r:.60})"
    return _danger_in(list(tree.values()))


# torch reads members with these names as raw numbers.
_RAW_PAYLOAD = re.compile(r"(weight|tensor)_\d+")

# torch writes these names into the source code of the graph.
_ANY, _IDENTIFIER, _DOTTED = re.compile(r"(?s).*"), re.compile(r"\w*"), re.compile(f"[^{UNSAFE.pattern[1:-1]}]*")
_NAMES = {
    **dict.fromkeys(("name", "forward_arg_names", "as_name", "graph_name"), _IDENTIFIER),
    **dict.fromkeys(("parameter_name", "buffer_name", "tensor_constant_name", "buffer_mutated_name", "fqn"), _DOTTED),
}

# torch evaluates sizes as sympy's srepr writes them: nested calls of names with a capital. No other form is allowed.
_SIZE = re.compile(r"(?:[A-Z]\w*|[a-z]+=|'[\w.+-]*'|-?\d+|true|false|[(),\s])*")
