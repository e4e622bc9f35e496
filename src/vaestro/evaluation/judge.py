"""A small judge of images: a classifier of the training split whose last hidden layer gives the features of the set metrics."""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.errors import UsageError
from vaestro.networks.judge import JUDGES, Card, Judge, batched, judges, load, open_judge, unit
from vaestro.seeds import forked, mix

__all__ = ["JUDGES", "Card", "Features", "Judge", "Pca", "data_hash", "judges", "load", "open_judge", "save", "train", "unit_scale"]

EPOCHS, LEAST, BATCH, PEAK = 15, 1500, 256, 3e-3  # epochs, and steps at least


@runtime_checkable
class Features(Protocol):
    """What set metrics see of a picture: a named map from unit values [n, *shape] to numbers [n, d]."""

    name: str

    def features(self, images: Tensor) -> Tensor:
        """uint8 levels of 255 or unit values [n, *shape] to float32 [n, d]."""


class Pca(nn.Module):
    """The judge of data without labels: coordinates along the leading principal components of the training rows."""

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.name = "pca64"

    @classmethod
    def fit(cls, images: Tensor, components: int = 64) -> "Pca":
        """The first `components` (fewer if there are fewer rows or numbers) of the training rows [n, *shape]; raises UsageError for fewer than 2 rows."""
        if len(images) < 2:
            raise UsageError(f"principal components need at least 2 rows, and there are {len(images)}; give more training rows")
        n, size = len(images), images[0].numel()
        mean = sum((unit(p).flatten(1).double().sum(0) for p in batched(images)), torch.zeros(size, dtype=torch.float64)) / n
        cov = torch.zeros(size, size, dtype=torch.float64)
        for part in batched(images):
            centred = unit(part).flatten(1).double() - mean
            cov += centred.T @ centred
        basis = torch.linalg.eigh(cov).eigenvectors.flip(1)[:, : min(components, n - 1, size)]
        signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()  # else the library's choice of sign would show
        return cls(mean.float(), (basis * signs).float())

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """uint8 or unit values [n, *shape] to coordinates [n, components], float32."""
        if images[:1].flatten(1).shape[1] != len(self.mean):
            raise UsageError(f"these principal components read {len(self.mean)} numbers a row, not {images[:1].flatten(1).shape[1]}; fit them to these data")
        return torch.cat([(unit(part).flatten(1) - self.mean) @ self.basis for part in batched(images)] or [self.basis[:0]])


def data_hash(images: Tensor, labels: Tensor) -> str:
    """sha256 of the rows a judge learnt from: uint8 pictures, then int64 labels."""
    digest = hashlib.sha256(np.ascontiguousarray(images.numpy()).tobytes())
    digest.update(np.ascontiguousarray(labels.long().numpy()).tobytes())
    return digest.hexdigest()


def train(data: str, train_rows: tuple[Tensor, Tensor], validation_rows: tuple[Tensor, Tensor], seed: int = 0) -> Judge:
    """A judge of (pictures uint8 [n, C, H, W], labels [n]); half the batches are binarised by a fresh draw. Deterministic under `seed` on one machine."""
    images, labels = train_rows
    card = Card(data, data_hash(images, labels), tuple(images.shape[1:]), int(labels.max()) + 1, 0.0, 0.0, seed)
    with forked(images.device):
        torch.manual_seed(seed)
        judge = Judge(card)
        per_epoch = -(-len(images) // BATCH)
        epochs = max(EPOCHS, -(-LEAST // per_epoch))
        optimizer = torch.optim.AdamW(judge.parameters(), PEAK, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=epochs * per_epoch)
        for _ in range(epochs):
            for number, index in enumerate(batched(torch.randperm(len(images)), BATCH)):
                grey = unit(images[index])
                x = grey if number % 2 else torch.bernoulli(grey)
                optimizer.zero_grad()
                F.cross_entropy(judge(x), labels[index]).backward()
                optimizer.step()
                schedule.step()
        judge.eval().requires_grad_(False)
        judge.half().float()  # the precision that is shipped
        judge.scale = unit_scale(judge, images)
        torch.manual_seed(mix(seed, 1))
        grey = unit(validation_rows[0])
        scores = [float((judge(x).argmax(1) == validation_rows[1]).float().mean()) for x in (grey, torch.bernoulli(grey))]
    judge.card = Card(**{**asdict(card), "accuracy": scores[0], "accuracy_binary": scores[1]})
    return judge


def unit_scale(judge: Judge, images: Tensor) -> Tensor:
    """The factor that brings the features of these pictures to unit variance on average, in half precision; 1 where they do not vary."""
    variance = judge.features(images).var(0).mean()
    return torch.where(variance > 0, variance.rsqrt(), 1.0).half().float().clone()


def save(judge: Judge, path: Path) -> None:
    """Half-precision weights and the card, written atomically to one safetensors file."""
    temporary = path.with_name(path.name + ".part")
    save_file({n: v.half().contiguous() for n, v in judge.state_dict().items()}, temporary, {"card": json.dumps(asdict(judge.card))})
    temporary.chmod(0o644)  # the library writes for its owner only, and a package is read by all
    temporary.replace(path)


def _split(dataset: str, split: str) -> tuple[Tensor, Tensor]:
    from vaestro.data import load as load_data

    arrays = load_data(dataset).split(split).arrays
    x = np.asarray(arrays["x"])
    scaled = x if x.max() > 16 else np.round(x * (255 / 16)).astype(np.uint8)  # digits have 17 levels
    return torch.from_numpy(scaled.copy()), torch.from_numpy(np.asarray(arrays["label"]).astype(np.int64))


def main(arguments: list[str] | None = None) -> None:
    """`python -m vaestro.evaluation.judge train NAME`: trains the judge of a grey data set on its training split and writes it into the package."""
    parser = argparse.ArgumentParser(prog="python -m vaestro.evaluation.judge")
    parser.add_argument("verb", choices=["train"])
    parser.add_argument("name", help="mnist, fashion-mnist or digits")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    source = given.name if given.name == "digits" else f"{given.name}-grey"
    judge = train(given.name, _split(source, "train"), _split(source, "validation"), given.seed)
    JUDGES.mkdir(exist_ok=True)
    save(judge, JUDGES / f"{given.name}.safetensors")
    print(json.dumps(asdict(judge.card), indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
