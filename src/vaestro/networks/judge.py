"""The judge of images as a network: three convolutions and a classifier's last layer, and the ones that come with the package."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vaestro.data.schema import Shape
from vaestro.errors import UsageError, VaestroError, did_you_mean

VERSION = "1"
WIDTH = 64


@dataclass(frozen=True)
class Card:
    """What a judge is and where it comes from."""

    data: str
    data_sha256: str
    shape: Shape
    classes: int
    accuracy: float  # on the validation split, grey
    accuracy_binary: float  # on the validation split, binarised by a draw
    seed: int
    version: str = VERSION


class Judge(nn.Module):
    """Three strided convolutions, 64 features, class logits; about 60,000 numbers at 28x28. It serves grey and binarised pictures alike."""

    name = "judge"
    scale: Tensor  # brings the training rows' features to unit variance on average, so that distances have a readable size

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        channels, height, width = card.shape
        for _ in range(3):
            height, width = (height + 1) // 2, (width + 1) // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * height * width, WIDTH), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, card.classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Unit values [n, C, H, W] to class logits [n, classes]."""
        return torch.as_tensor(self.head(self.body(2 * x - 1)))

    @property
    def modes(self) -> int:
        """How many classes it tells apart."""
        return self.card.classes

    @torch.inference_mode()
    def classes(self, features: Tensor) -> Tensor:
        """The most likely class of each row of features [n, 64], as `features` gives them, [n]."""
        return torch.as_tensor(self.head(features / self.scale).argmax(1))

    def require_shape(self, images: Tensor) -> None:
        """Raises UsageError for pictures [n, C, H, W] of another shape than it learnt from."""
        shape = tuple(images.shape[1:])
        if shape != self.card.shape:
            raise UsageError(f"the judge of {self.card.data!r} reads pictures of shape {self.card.shape}, not {shape}; use the judge of these data")

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """uint8 or unit values [n, C, H, W] to features [n, 64], float32; raises UsageError for another shape of picture."""
        self.require_shape(images)
        return torch.cat([self.body(2 * unit(part) - 1) * self.scale for part in batched(images)] or [torch.zeros(0, WIDTH)])


class ByChannel:
    """A judge of grey pictures that looks at each channel of a colour picture by itself: features side by side, a class for each combination."""

    def __init__(self, judge: Judge, channels: int) -> None:
        self.judge, self.channels, self.name = judge, channels, judge.name
        self.modes = judge.modes**channels

    def features(self, images: Tensor) -> Tensor:
        """uint8 or unit values [n, channels, H, W] to features [n, channels * 64]; raises UsageError for another shape of picture."""
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise UsageError(f"this judge reads pictures of {self.channels} channels, not of shape {tuple(images.shape[1:])}; use the judge of these data")
        return torch.cat([self.judge.features(images[:, c : c + 1]) for c in range(self.channels)], 1)

    def classes(self, features: Tensor) -> Tensor:
        """The most likely class of each row [n], its digits the classes of the channels, the first one highest."""
        found = torch.zeros(len(features), dtype=torch.int64)
        for part in features.split(WIDTH, 1):
            found = found * self.judge.modes + self.judge.classes(part)
        return found


def batched(rows: Tensor, size: int = 1000) -> tuple[Tensor, ...]:
    """The rows in pieces of `size`."""
    return tuple(rows[start : start + size] for start in range(0, len(rows), size))


def unit(images: Tensor) -> Tensor:
    """uint8 pictures as unit values; floating ones are unit values already."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def open_judge(path: Path) -> Judge:
    """The judge of a safetensors file; raises VaestroError for a file that is missing, broken or something else."""
    try:
        with safe_open(path, "pt") as f:
            card = json.loads((f.metadata() or {})["card"])
            judge = Judge(Card(**{**card, "shape": tuple(card["shape"])}))
            judge.load_state_dict({n: f.get_tensor(n).float() for n in f.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise VaestroError(f"{path.name} is not a judge network ({type(e).__name__}); take it again from the package, or train one") from e
    return judge.eval().requires_grad_(False)


JUDGES = Path(str(files("vaestro") / "evaluation" / "judges"))


def judges() -> list[str]:
    """The data sets that have a shipped judge."""
    return sorted(p.stem for p in JUDGES.glob("*.safetensors"))


def load(name: str) -> Judge:
    """The shipped judge of a data set; binary, static and grey versions of the same pictures share one. Raises UsageError for data that have none."""
    known = judges()
    stems = [j for j in known if name == j or name in (f"{j}-dynamic", f"{j}-static", f"{j}-grey")]
    if not stems:
        raise UsageError(f"there is no judge network for {name!r}{did_you_mean(name, known)}; for other data use principal components (pca64)")
    return open_judge(JUDGES / f"{stems[0]}.safetensors")


class JudgeMaps(nn.Module):
    """What each layer of a judge makes of pictures [n, C, H, W] in unit values: its four rectified maps [n, ...], the judge's weights held fixed.

    Raises UsageError for pictures of another shape than the judge reads.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, from the first layer to the last."""
        self.judge.require_shape(x)
        found, h = [], 2 * x - 1
        for layer in self.judge.body:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                found.append(h)
        return found
