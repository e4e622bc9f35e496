"""A run whose model is known in closed form: pictures x = W z + m + 0.5 e of 2x3 pixels, z ~ N(0, I), with the exact posterior or a wrong one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vaestro
from vaestro.conditional import Conditional
from vaestro.families import FixedGaussian, Gaussian
from vaestro.families.base import unpositive
from vaestro.models import VAE
from vaestro.networks.base import Network
from vaestro.priors import StandardNormal
from vaestro.training.runs import Run

SHAPE, LATENTS, NOISE = (1, 2, 3), 2, 0.5
W = torch.tensor([[1.5, 0.3], [-1.0, 1.0], [0.5, -2.0], [0.2, 0.7], [-0.6, 0.1], [1.0, 1.0]])
M = torch.tensor([0.5, -0.2, 0.1, 0.0, 0.3, -0.4])
PRECISION = torch.eye(LATENTS) + W.T @ W / NOISE**2
POSTERIOR = torch.linalg.inv(PRECISION)  # the covariance of p(z | x)
GAIN = POSTERIOR @ W.T / NOISE**2  # its mean is GAIN (x - M)


def layer(weight: torch.Tensor, bias: torch.Tensor, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Network:
    """A linear network with these weights."""
    made = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return Network(nn.Sequential(nn.Flatten(), made), *shapes)


def linear_run(folder: Path, spread: float = 0.0) -> Run:
    """The run; its posterior has the exact mean and the exact scales of each latent, or the scale `spread` for both, if that is given."""
    data = np.random.default_rng(0).normal(size=(60, *SHAPE)).astype(np.float32)
    run = vaestro.train("vae:latents=2,hidden=4", data, steps=2, out=folder / "run")
    scales = torch.full((LATENTS,), spread) if spread else POSTERIOR.diagonal().sqrt()
    likelihood = Conditional(layer(W, M, ((LATENTS,), SHAPE)), FixedGaussian(NOISE, 3))
    weight = torch.cat([GAIN, torch.zeros(LATENTS, 6)])
    posterior = Conditional(layer(weight, torch.cat([-GAIN @ M, unpositive(scales)]), (SHAPE, (2 * LATENTS,))), Gaussian())
    parts = nn.ModuleDict({"model": VAE(StandardNormal((LATENTS,)), posterior, likelihood)}).eval()
    return replace(run, recipe=replace(run.recipe, parts=parts))
