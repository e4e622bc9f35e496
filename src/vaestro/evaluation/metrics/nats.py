"""Metrics of density: bounds on the likelihood and their parts, in nats and in bits."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from vaestro.data.schema import Real, Table
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import Subject

IN_ONE_PASS = "from the importance samples of `nll`, in the same pass"


def elbo(subject: Subject) -> Score:
    """E_q[log p(x | z)] - KL(q(z | x) || p(z)) per row, in nats."""
    return Score.of_rows(subject.likelihood.elbo)


def nll(subject: Subject) -> Score:
    """-log p(x) per row by importance sampling, in nats: an upper bound in expectation."""
    return Score.of_rows(-subject.likelihood.log_px)


def bits_per_dim(subject: Subject) -> Score:
    """The same in bits per dimension of the data, by the schema; raises UsageError for Real data without a step."""
    found = subject.likelihood
    at = subject.field.bits_per_dim(0.0)
    return Score.of_rows(at - found.log_px * (subject.field.bits_per_dim(1.0) - at))


def kl(subject: Subject) -> Score:
    """KL(q(z | x) || p(z)) per row, in nats."""
    return Score.of_rows(subject.likelihood.kl)


def cross_entropy(subject: Subject) -> Score:
    """-E_q[log p(x | z)] per row, in nats. Its floor is 0 for counted data, whose masses are at most one; a density has none."""
    floor = None if isinstance(subject.field.kind, Real | Table) else 0.0
    return Score.of_rows(-subject.likelihood.reconstruction, floor)


def cross_entropy_floor(intensities: Tensor) -> Tensor:
    """What no model can beat on binary rows drawn with these intensities [n, *shape] in [0, 1]: sum of -v ln v - (1 - v) ln (1 - v), nats [n].

    The often quoted "binary cross-entropy" of grey pictures is mostly this number; it is exactly 0 where the pictures are binary.
    """
    v = intensities.double()
    return -(torch.xlogy(v, v) + torch.xlogy(1 - v, 1 - v)).flatten(1).sum(1)


def effective_samples(subject: Subject) -> Score:
    """The share of the importance samples that carries weight, ess / samples, per row."""
    found = subject.likelihood
    return Score.of_rows(found.ess / found.samples)


def bound_gap(subject: Subject) -> Score:
    """What the bound still gained over the last factor of ten of the samples, per row, in nats: the order of the bias that is left."""
    ladder = subject.likelihood.ladder
    steps = sorted(ladder)
    below = [k for k in steps if k * 10 <= steps[-1]]
    if not below:
        return Score(math.nan, math.nan)
    return Score.of_rows(ladder[steps[-1]] - ladder[below[-1]])


DENSITY = frozenset({Need.DENSITY})
BURDA = "Burda et al. 2016, equation 8"
KINGMA = "Kingma & Welling 2014, equation 3"

for found in (
    Metric("nll", "negative log-likelihood", "nats", Direction.LOWER, "importance sampling; samples, chunk and seed are in the result", BURDA, nll, DENSITY),
    Metric("elbo", "evidence lower bound", "nats", Direction.HIGHER, f"{IN_ONE_PASS}; the KL in closed form where one is registered", KINGMA, elbo, DENSITY),
    Metric("bits_per_dim", "bits per dimension", "bits", Direction.LOWER, "nll by the data's schema: nats / (ln 2 x size)", BURDA, bits_per_dim, DENSITY),
    Metric("kl", "KL of the posterior to the prior", "nats", Direction.LOWER, IN_ONE_PASS, KINGMA, kl, DENSITY | {Need.LATENTS}),
    Metric("cross_entropy", "reconstruction", "nats", Direction.LOWER, f"{IN_ONE_PASS}; its floor stands beside it", KINGMA, cross_entropy, DENSITY),
    Metric("effective_samples", "effective share of samples", "share", Direction.HIGHER, IN_ONE_PASS, "Owen 2013, section 9.3", effective_samples, DENSITY),
    Metric("bound_gap", "gain over the last tenfold of samples", "nats", Direction.LOWER, f"{IN_ONE_PASS}; NaN below 10 samples", BURDA, bound_gap, DENSITY),
):
    METRICS.enter(replace(found, group=Group.DENSITY))
