"""Read weights safely and say exactly what does not fit."""

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from palpate import registry
from palpate.errors import CheckpointError
from palpate.models._state import WRAPPERS


def load_state(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Load a state dict: .safetensors, or torch's format with weights_only.

    Args:
        path: file; the dict may be bare or stand under "model", "state_dict" or
            "model_state_dict".
        allow_pickle: load a pickled object as well, which can run any code in the file.

    Raises:
        CheckpointError: missing, truncated, a pickle that was not allowed, or no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"expected weights at {path}, got no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: expected plain tensors, got a pickled object, which can run code on loading;"
            " save a state dict, or set allow_pickle: true if you trust the file"
        ) from None
    except Exception as error:  # noqa: BLE001 - bytes that are no weights fail in any way
        why = f"{type(error).__name__}: {_one_line(error)}"
        raise CheckpointError(f"{path}: cannot be read as weights: {why}") from None
    if isinstance(content, nn.Module):
        content = content.state_dict()
    return _state_dict(content, path)


def fit_state(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module, all or nothing.

    Raises:
        CheckpointError: names the keys that are missing, unknown, or of another shape.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unknown = sorted(state.keys() - own.keys())
    other = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    problems: list[str] = []
    if other:
        key = min(other)
        problems.append(
            f"{len(other)} of another shape, such as {key}: expected {tuple(own[key].shape)},"
            f" got {tuple(state[key].shape)}"
        )
    problems += [
        f"{len(keys)} {what}, such as {', '.join(keys[:3])}"
        for what, keys in (("missing", missing), ("unknown", unknown))
        if keys
    ]
    if problems:
        raise CheckpointError(f"{path.name} does not fit the model: {'; '.join(problems)}")
    module.load_state_dict(dict(state))


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):  # pyright: ignore
        raise CheckpointError(f"{path}: expected a state dict, got {type(content).__name__}")
    return dict(content)  # pyright: ignore


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def contents(component: Any) -> dict[str, Any]:
    """What a component's parameters do not say but stand for, by parameter; nothing else.

    Files count as the SHA-256 of what they hold; another component as its name, its version, all
    its parameters and what these stand for.

    Raises:
        CheckpointError: no such file.
    """
    found: dict[str, Any] = {}
    for name, (family, spec) in registry.nested(component).items():
        given = {k: v for k, v in spec.items() if k != "name"}
        part = registry.create(family, spec["name"], given)
        own = {"name": spec["name"], "version": part.version}
        found[name] = {**registry.describe(part), **contents(part), **own}
    for f in dataclasses.fields(component):
        value = getattr(component, f.name)
        several: Any = value if isinstance(value, tuple) else (value,)
        if several and all(isinstance(v, Path) for v in several):
            where = f"{registry.name_of(component)}: {f.name}"
            hashes = [_content(path, where) for path in several]
            found[f.name] = hashes if isinstance(value, tuple) else hashes[0]
    return found


def _content(path: Path, where: str) -> str:
    """Of a file, or of all files of a folder and their names in it."""
    if not path.exists():
        raise CheckpointError(f"{where}: expected a file at {path}, got no such file")
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    sha = hashlib.sha256()
    for file in inside:
        sha.update(str(file.relative_to(path)).encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()
