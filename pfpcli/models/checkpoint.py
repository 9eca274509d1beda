"""Files of torch.save: a module, a state dict, or a checkpoint that holds one of the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pfpcli.errors import InputError
from pfpcli.models import arch
from pfpcli.models.artefact import Artefact, LoadOptions
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.models.pickles import unpickle

#: Keys under which training scripts keep the model or its weights, in the order of preference.
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "ema", "model_ema", "state_dict_ema")


def load_checkpoint(artefact: Artefact, options: LoadOptions) -> LoadedModel:
    """Load a file of torch.save.

    Args:
        artefact: the file.
        options: the architecture of a state dict, and whether the file is trusted.

    Raises:
        InputError: the file would run code, is broken, or holds neither a module nor weights; a state dict comes
            without an architecture, or does not fit it.
    """
    with artefact.path.open("rb") as file:
        content = unpickle(file, artefact.name, options.trust)
    found = _model_in(content)
    if found is None:
        raise InputError(
            f"{artefact.name}: holds {_described(content)}, not a model or its weights",
            "save the model with torch.save(model, path), or its weights with torch.save(model.state_dict(), path)",
        )
    if isinstance(found, nn.Module):
        size = arch.known_input_size(None, {}, found)
        return LoadedModel(artefact.name, "module", found.cpu().eval(), None, size, artefact.sha256)
    if options.arch is None:
        raise InputError(
            f"{artefact.name}: this is a state_dict ({len(found)} tensors), not a model; "
            "pfp needs the architecture too",
            "pass the function that builds it, e.g. `--arch torchvision:resnet18` or `--arch models:resnet20`",
        )
    module = arch.build(options.arch, options.arch_kwargs)
    arch.fit(artefact.name, module, found, options.arch, options.arch_kwargs)
    size = arch.known_input_size(options.arch, options.arch_kwargs, module)
    return LoadedModel(artefact.name, "state_dict", module.cpu().eval(), None, size, artefact.sha256)


def _model_in(content: Any) -> nn.Module | dict[str, Tensor] | None:
    """Return the module or the state dict that the content is or holds.

    A checkpoint holds it under one of `HOLDERS`, or under another key if there is only one module or state dict.
    """
    direct = _module_or_weights(content)
    if direct is not None or not isinstance(content, Mapping):
        return direct
    found = {key: _module_or_weights(value) for key, value in content.items()}
    held = {key: value for key, value in found.items() if value is not None}
    return next((held[key] for key in HOLDERS if key in held), next(iter(held.values())) if len(held) == 1 else None)


def _module_or_weights(value: Any) -> nn.Module | dict[str, Tensor] | None:
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, Mapping) or not value:
        return None
    tensors = {key: part for key, part in value.items() if isinstance(key, str) and isinstance(part, Tensor)}
    return tensors if len(tensors) == len(value) else None


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = [repr(key) for key in list(content)[:4]] + ["…"] * (len(content) > 4)
        return f"a dict with the keys {', '.join(keys)}" if keys else "an empty dict"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)}"
    return f"a {type(content).__name__}"
