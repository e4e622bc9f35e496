"""Files that are whole or absent: atomic writes, weights without pickle and with their own hash, a lock on a folder."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vaestro.errors import VaestroError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to be written piece by piece; it becomes `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise VaestroError(f"cannot write {path}: {error.strerror}; free some space or choose another folder with --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary name and rename; a full disk or a lost permission leaves the old file as it was."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


def vanish(folder: Path) -> None:
    """Delete a folder, if it is there, by another name: a kill on the way leaves none that is half of what it was."""
    gone = folder.with_name(f".{os.getpid()}.{folder.name}.deleted")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """`write_bytes` of indented JSON."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises VaestroError where it is missing, unreadable or not an object."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VaestroError(f"{path} is missing; is {path.parent} the folder of a run?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise VaestroError(f"{path} cannot be read ({error}); the file is damaged: restore it from a copy") from None
    if not isinstance(data, dict):
        raise VaestroError(f"{path} does not hold a JSON object; it was not written by vaestro")
    return data


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {t.dtype} {tuple(t.shape)} ".encode())
        total.update(t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return total.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Write tensors and a JSON object as one safetensors file, atomically; returns the hash of the tensors, which the file holds too."""
    own = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    sha256 = digest(own)
    write_bytes(path, save(own, {"about": json.dumps(dict(about)), "sha256": sha256}))
    return sha256


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON object of a file that `save_tensors` wrote; raises VaestroError if it was cut, altered or is foreign."""
    if not path.is_file():
        raise VaestroError(f"{path} is missing; the folder holds no trained weights")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise VaestroError(f"{path} is cut or damaged ({error}); restore it from a copy or train again") from None
    if "sha256" not in meta or "about" not in meta:
        raise VaestroError(f"{path} was not written by vaestro: it carries no hash of its contents")
    if digest(tensors) != meta["sha256"]:
        raise VaestroError(f"{path} was altered: its contents do not match the hash it carries; restore it from a copy or train again")
    return tensors, json.loads(meta["about"])


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the system lets go of it however the process ends. Raises VaestroError if it is in use."""
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise VaestroError(f"cannot write in {folder}: {error.strerror}; choose another folder with --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VaestroError(f"{folder} is in use by another process; wait for it, or stop it first") from None
        yield
