"""Features of data rows kept in files, so that they are computed once and never taken for those of other rows or of another network."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, float32

from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.judge import Features
from vaestro.evaluation.metrics.held import Read, Sought
from vaestro.evaluation.networks import made
from vaestro.registry import says
from vaestro.training.files import digest, load_tensors, save_tensors

FORMAT = 1
NAME, WIDEST = "features", 100_000  # numbers a row: Inception v3 has 2,048
WORDS = {
    "network_sha256": "another network of that name",
    "preprocessing": "pictures that were prepared in another way",
    "data_sha256": "other data",
    "rows_sha256": "other rows",
    "drawn": "another draw of the rows",
}  # of what tells two files apart, in the order in which it is said


@dataclass(frozen=True)
class FeatureFolder:
    """Files of features, one a network and set of rows: a `Shelf` for `Held`, which writes what it lacks and refuses what is of other rows.

    Each is a safetensors file with one tensor `features`, float32 [rows, d]. Its header says the network's name and sha256, the preprocessing, the data's name
    and sha256, the split, the field, and the number and sha256 of the rows. It is written under a temporary name and carries its own hash.
    """

    folder: Path

    def __call__(self, network: Features, sought: Sought, read: Read) -> Tensor:
        """The features that are kept of these rows by this network, or those that `read` gives, which are kept from then on.

        A network that does not say what it is made of, such as one that takes the rows as they are, is read anew. Raises VaestroError for a file that is
        damaged, or that holds the features of another network, other data, rows, draws or preprocessing.
        """
        if not says(made, network):
            return read()
        about = described(network, sought)
        path = self.folder / re.sub(r"[^\w.-]", "_", f"{network.name}-{sought.split}-{sought.rows}.safetensors")
        if path.is_file():
            return load_features(path, about)
        found = read()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VaestroError(f"features cannot be kept in {self.folder}: {error.strerror}; give another folder") from None
        save_features(path, found, about)
        return found


def described(network: Features, sought: Sought) -> dict[str, Any]:
    """What a file says of the features of these rows by this network; raises UsageError for a network that does not say what it is made of."""
    weights, words = made(network)
    return {"format": FORMAT, "network": network.name, "network_sha256": digest(weights), "preprocessing": words, **asdict(sought)}


def save_features(path: Path, features: Tensor, about: dict[str, Any]) -> None:
    """Write features [n, d] with what they are of, as `described` gives it; raises UsageError where they are not that many finite rows."""
    if features.dim() != 2 or len(features) != about["rows"] or features.dtype != float32 or not bool(features.isfinite().all()):
        raise UsageError(f"features {tuple(features.shape)} of {about['rows']} rows are not [rows, numbers], float32 and finite, so they are not kept")
    save_tensors(path, {NAME: features}, about)


def load_features(path: Path, about: dict[str, Any] | None = None) -> Tensor:
    """The features [n, d] that a file holds, float32; with `about`, only if they are of what it describes.

    Raises VaestroError for a file that is damaged or foreign, or whose network, preprocessing, data, rows or draw are others.
    """
    _require_size(path)
    tensors, found = load_tensors(path)
    for key, words in ({} if about is None else {"format": "another format", "network": "another network"} | WORDS).items():
        if about is not None and found.get(key) != about[key]:
            told = f" ({found.get(key)}, not {about[key]})" if key in ("network", "preprocessing", "drawn") else ""
            raise VaestroError(f"{path} holds features of {words}{told}; give another folder, or delete the file so that it is made anew")
    features = tensors[NAME]
    if len(features) != found.get("rows") or not bool(features.isfinite().all()):
        raise VaestroError(f"{path} does not hold the finite rows that it speaks of; delete it, so that it is made anew")
    return features


def _require_size(path: Path) -> None:
    """Raises VaestroError before anything large is read."""
    try:
        with safe_open(path, "pt") as file:
            held, names = file.get_slice(NAME), list(file.keys())
            shape, dtype, rows = held.get_shape(), held.get_dtype(), json.loads((file.metadata() or {})["about"])["rows"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise VaestroError(f"{path} is no file of features ({type(error).__name__}); delete it, so that it is made anew") from None
    if names != [NAME] or len(shape) != 2 or shape[0] != rows or not 0 < shape[1] <= WIDEST or dtype != "F32":
        raise VaestroError(f"{path} holds {dtype} numbers {shape} for {rows} rows, which are no features [rows, numbers]; delete it, so that it is made anew")
