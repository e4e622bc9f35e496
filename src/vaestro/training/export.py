"""A run as two ONNX files that need neither torch nor vaestro: data to latents, and latents to data."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vaestro.core import Draw, Model, Site, Trace, run, take
from vaestro.data.schema import Table
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.metrics.subject import mean_or_draw
from vaestro.models import SemiAmortised, conditions_of
from vaestro.models.hamiltonian import HamiltonianVAE
from vaestro.seeds import forked
from vaestro.training.files import whole
from vaestro.training.runs import Run

NEEDED = ("onnx", "onnxscript")
CHECK = 3  # rows on which the files are compared with the model
CLOSE = 1e-4  # largest difference between the two, relative to numbers of size one


class Encoder(nn.Module):
    """x [n, *shape] in unit values to the means of all latent groups side by side, [n, latents], each group given the means of those above."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """The posterior means."""
        means: list[Tensor] = []

        def choose(site: Site) -> Draw:
            if site.posterior is None:
                return Draw(x, site.prior, None, 0.0, 0.0, True)
            mean = mean_or_draw(site.posterior).expand(x.shape[0], *site.posterior.event_shape)  # no len(x): that would fix the number of rows
            means.append(mean.flatten(1).to(x.dtype))  # codes are whole numbers, and one file's output is the other's input
            return Draw(mean, site.prior, site.posterior, 0.0, 0.0, False)

        run(self.model.program({"x": x}), choose)
        return torch.cat(means, 1)


class Decoder(nn.Module):
    """All latent groups side by side, [n, latents], to the mean of p(x | z), [n, *shape] in unit values."""

    def __init__(self, model: Model, sizes: dict[str, torch.Size]) -> None:
        super().__init__()
        self.model, self.sizes = model, sizes

    def forward(self, z: Tensor) -> Tensor:
        """The likelihood's mean."""
        groups = dict(zip(self.sizes, z.split([s.numel() for s in self.sizes.values()], 1), strict=True))

        def choose(site: Site) -> Draw:
            if site.name in groups:
                return Draw(groups[site.name].unflatten(1, self.sizes[site.name]), site.prior, None, 0.0, 0.0, True)
            return Draw(site.prior.mean, site.prior, None, 0.0, 0.0, False)

        mean: Tensor = run(self.model.program(), choose)["x"].prior.mean
        return mean


def latents_of(model: Model, x: Tensor) -> tuple[dict[str, torch.Size], Tensor]:
    """The shape of each latent group of a model, in its order, and draws of them side by side, [n, latents]."""
    with forked():
        torch.manual_seed(0)
        trace: Trace = run(model.program({"x": x}), lambda site: take(site, (len(x),), {"x": x}.get(site.name)))
    drawn = [d.value.flatten(1).to(x.dtype) for d in trace.latents.values()]
    return {name: d.prior.event_shape for name, d in trace.latents.items()}, torch.cat([x.new_zeros(len(x), 0), *drawn], 1)


def export_onnx(of: Run, path: Path) -> list[tuple[Path, str]]:
    """Write `NAME-encoder.onnx` and `NAME-decoder.onnx` for a path NAME.onnx; returns both paths and what they hold.

    Where onnxruntime is installed, each file's output is compared with the model's on a few rows before it is kept.
    Raises UsageError for another ending or a decoder that draws at random, VaestroError where the extra is missing, a part cannot be
    exported, or the numbers differ.
    """
    if path.suffix != ".onnx" or not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: give a name that ends in .onnx, in a folder that exists")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise VaestroError(f"export needs the package {missing[0]}, which is not installed; pip install 'vaestro[onnx]'")
    model, shape = of.model.cpu().eval(), of.field.shape
    _refuse(of)
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(CHECK, *shape, generator=generator) > 0.5).float()
    with torch.no_grad():
        sizes, z = latents_of(model, x)
        encoder, decoder = Encoder(model).eval(), Decoder(model, sizes).eval()
        if not torch.equal(encoder(x), encoder(x)):
            raise UsageError(f"the encoder of {of.folder.name} draws its latents at random, so no file can hold it; export a run of vae, or use vaestro.embed")
        if not torch.equal(decoder(z), decoder(z)):
            raise UsageError(f"the decoder of {of.folder.name} draws at random, pixel by pixel for example, so no file can hold it; export a run of vae")
        told = [
            (path.with_name(f"{path.stem}-encoder.onnx"), f"x [n, {', '.join(map(str, shape))}] to latents [n, {z.shape[1]}]", encoder, x),
            (path.with_name(f"{path.stem}-decoder.onnx"), f"latents [n, {z.shape[1]}] to the mean of x [n, {', '.join(map(str, shape))}]", decoder, z),
        ]
        for place, _, part, example in told:
            _write(place, part, example)
    return [(place, what + (", checked with onnxruntime" if find_spec("onnxruntime") else "")) for place, what, _, _ in told]


def _refuse(of: Run) -> None:
    """Raises UsageError for models that two files of numbers cannot hold."""
    if isinstance(of.field.kind, Table):
        raise UsageError(f"{of.name} reads columns of a table with their gaps, which a file of numbers cannot hold; use the run itself, as with vaestro.embed")
    conditions = conditions_of(of.model)
    if conditions:
        raise UsageError(f"{of.about['call']} is told {conditions[0]!r} beside x, and the files of an export read x or latents alone; use the run itself")
    if len(of.model.observed) > 1:
        raise UsageError(f"{of.about['call']} has classes among its latents, which an export cannot draw; use the run itself, or vaestro.classify")
    if not latents_of(of.model, torch.zeros(1, *of.field.shape))[0]:
        raise UsageError(f"{of.about['call']} has no posterior, so there is no encoder to export; export a run of bigan or vae")
    if (isinstance(of.model, SemiAmortised) and of.model.ascent.steps) or (isinstance(of.model, HamiltonianVAE) and of.model.leapfrog.steps):
        raise UsageError(f"{of.about['call']} refines its latents by gradients, which no file can hold; use vaestro.embed, or export a run of vae")


def _write(path: Path, part: nn.Module, example: Tensor) -> None:
    """One file, under a temporary name until it was checked."""
    name = "x" if isinstance(part, Encoder) else "z"
    with whole(path) as temporary:
        try:
            _export(temporary, part, example, name)
            _check(temporary, part, example, name)
        except (OSError, VaestroError):
            raise
        except Exception as error:  # the exporter and the runtime raise whatever they like
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise VaestroError(
                f"{path.name} cannot be exported ({reason}); a network of standard layers can, such as network=mlp or network=convolutional"
            ) from error


def _export(path: Path, part: nn.Module, example: Tensor, name: str) -> None:
    """The file that torch writes; the number of rows stays open."""
    with _quietly():
        program: Any = torch.onnx.export(
            part,
            (example,),
            input_names=[name],
            output_names=["z" if name == "x" else "x"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None, "the exporter returns a program or raises"
        program.save(str(path))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's talk, which is of its own insides."""
    talk = logging.getLogger("torch.onnx")
    level = talk.level
    talk.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.setLevel(level)


def _check(file: Path, part: nn.Module, example: Tensor, name: str) -> None:
    """Raises VaestroError where the file's numbers are not the model's, for one row and for several."""
    if find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for rows in (example, example[:1]):
        found = session.run(None, {name: rows.numpy()})[0]
        due = part(rows).numpy()
        error = float(np.abs(found - due).max() / max(1.0, float(np.abs(due).max())))
        if found.shape != due.shape or not error < CLOSE:
            raise VaestroError(
                f"the ONNX form of this model differs from it by {error:.2g}; it was not kept: report the recipe, and use the run itself meanwhile"
            )
