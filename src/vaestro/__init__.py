"""A toolkit and an arena for variational autoencoders; every name is imported at its first use, so that `import vaestro` takes no time."""

import importlib
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

# Read once, when torch is imported. Threads that wait actively cost tenfold on shared cores, and threads that sleep at once a third on quiet ones:
# they wait actively for some microseconds (GNU's OpenMP counts them in spins), then sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from vaestro import families, networks, objectives, plays, posteriors, priors
    from vaestro.api import open_run, resume, train
    from vaestro.conditional import Conditional
    from vaestro.core import Model, Seen, Site
    from vaestro.data import load
    from vaestro.errors import UsageError, VaestroError
    from vaestro.models import VAE
    from vaestro.recipes import Recipe, recipe, solo
    from vaestro.training.diagnosis import diagnose
    from vaestro.uses.arithmetic import arithmetic, attribute
    from vaestro.uses.augment import augment
    from vaestro.uses.classify import classified, classify
    from vaestro.uses.cluster import cluster, clusters
    from vaestro.uses.complete import complete
    from vaestro.uses.denoise import denoise
    from vaestro.uses.detect import detect
    from vaestro.uses.embed import write_codes
    from vaestro.uses.evaluate import evaluate
    from vaestro.uses.explain import explain
    from vaestro.uses.fitting import fit_prior
    from vaestro.uses.generate import generate, sample
    from vaestro.uses.impute import impute
    from vaestro.uses.interpolate import interpolate
    from vaestro.uses.panel import panel
    from vaestro.uses.plot import plot
    from vaestro.uses.recognise import recognise
    from vaestro.uses.reconstruct import embed, reconstruct
    from vaestro.uses.traverse import traverse
    from vaestro.uses.vary import vary

_HOMES = {
    "vaestro.api": ("open_run", "resume", "train"),
    "vaestro.conditional": ("Conditional",),
    "vaestro.core": ("Model", "Seen", "Site"),
    "vaestro.data": ("load",),
    "vaestro.errors": ("UsageError", "VaestroError"),
    "vaestro.models": ("VAE",),
    "vaestro.recipes": ("Recipe", "recipe", "solo"),
    "vaestro.training.diagnosis": ("diagnose",),
    "vaestro.uses.arithmetic": ("arithmetic", "attribute"),
    "vaestro.uses.augment": ("augment",),
    "vaestro.uses.classify": ("classified", "classify"),
    "vaestro.uses.cluster": ("cluster", "clusters"),
    "vaestro.uses.complete": ("complete",),
    "vaestro.uses.denoise": ("denoise",),
    "vaestro.uses.detect": ("detect",),
    "vaestro.uses.embed": ("write_codes",),
    "vaestro.uses.evaluate": ("evaluate",),
    "vaestro.uses.explain": ("explain",),
    "vaestro.uses.fitting": ("fit_prior",),
    "vaestro.uses.generate": ("generate", "sample"),
    "vaestro.uses.impute": ("impute",),
    "vaestro.uses.interpolate": ("interpolate",),
    "vaestro.uses.panel": ("panel",),
    "vaestro.uses.plot": ("plot",),
    "vaestro.uses.recognise": ("recognise",),
    "vaestro.uses.reconstruct": ("embed", "reconstruct"),
    "vaestro.uses.traverse": ("traverse",),
    "vaestro.uses.vary": ("vary",),
}
_MODULES = (
    "arena",
    "estimators",
    "families",
    "flows",
    "networks",
    "objectives",
    "optimizers",
    "plays",
    "posteriors",
    "priors",
    "recipes",
    "schedules",
    "testing",
)
_NAMES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "VAE",
    "Conditional",
    "Model",
    "Recipe",
    "Seen",
    "Site",
    "UsageError",
    "VaestroError",
    "arithmetic",
    "attribute",
    "augment",
    "classified",
    "classify",
    "cluster",
    "clusters",
    "complete",
    "denoise",
    "detect",
    "diagnose",
    "embed",
    "evaluate",
    "explain",
    "families",
    "fit_prior",
    "generate",
    "impute",
    "interpolate",
    "load",
    "networks",
    "objectives",
    "open_run",
    "panel",
    "plays",
    "plot",
    "posteriors",
    "priors",
    "recipe",
    "recognise",
    "reconstruct",
    "resume",
    "sample",
    "solo",
    "train",
    "traverse",
    "vary",
    "write_codes",
]


def _version() -> str:
    """The version of the installed package; a bare copy of the sources has none."""
    try:
        return metadata.version("vaestro")
    except metadata.PackageNotFoundError:
        return "0+source"


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use."""
    if name == "__version__":
        found: Any = _version()
    elif name in _MODULES:
        found = importlib.import_module(f"vaestro.{name}")
    elif name in _NAMES:
        found = getattr(importlib.import_module(_NAMES[name]), name)
    else:
        raise AttributeError(f"module 'vaestro' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Every public name."""
    return sorted([*__all__, "__version__"])
