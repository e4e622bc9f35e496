"""The rate in two parts on models where both are known, what is refused, and what use costs by closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaestro.core import Batch, Model, Program, Site, content
from vaestro.data.schema import Field, Real, Schema
from vaestro.evaluation.metrics import Cost, Subject, measure
from vaestro.evaluation.metrics.rates import mixture
from vaestro.recipes import parse
from vaestro.testing.linear import LinearGaussian

BOTH = ["mutual_information", "aggregate_kl"]


def subject(model: Model, x: Tensor, **more: object) -> Subject:
    return Subject(model, lambda: [{"x": part} for part in x.split(100)], Field("x", Real(), tuple(x.shape[1:])), samples=3, **more)  # type: ignore[arg-type]


def test_a_mixture_of_five_rows_by_hand() -> None:
    r = torch.Generator().manual_seed(0)
    pairs = torch.randn(5, 5, generator=r, dtype=torch.float64)
    own, prior = pairs.diagonal(), torch.randn(5, generator=r, dtype=torch.float64)
    found = mixture(own, prior, pairs)
    log_q = [math.log(sum(math.exp(pairs[n, m]) for m in range(5)) / 5) for n in range(5)]
    assert found.information.mean() == pytest.approx(np.mean([float(own[n]) - log_q[n] for n in range(5)]))
    assert found.aggregate.mean() == pytest.approx(np.mean([log_q[n] - float(prior[n]) for n in range(5)]))
    influence = [sum(math.exp(pairs[n, m]) / sum(math.exp(pairs[n, j]) for j in range(5)) for n in range(5)) - 1 for m in range(5)]
    np.testing.assert_allclose(found.aggregate, [log_q[n] - float(prior[n]) + influence[n] for n in range(5)])


@pytest.mark.parametrize("wrong", [False, True])
def test_a_linear_model_tells_what_it_should(wrong: bool) -> None:
    exact = LinearGaussian(4, 2, 1.5)
    torch.manual_seed(1)
    x = exact.evidence.sample((1500,))
    scores = measure(BOTH, subject(exact.wrong if wrong else exact.right, x)).scores
    posterior = (2.0 if wrong else 1.0) * exact.S
    map_ = exact.W @ exact.S / exact.noise**2
    spread = map_.T @ exact.evidence.covariance_matrix @ map_ + posterior  # q(z) is normal
    shift = torch.full((2,), 0.2 if wrong else 0.0, dtype=torch.float64)
    information = 0.5 * float(spread.logdet() - posterior.logdet())
    aggregate = 0.5 * float(spread.trace() + shift @ shift - 2 - spread.logdet())
    for name, truth in zip(BOTH, (information, aggregate), strict=True):
        assert 0 < scores[name].error < 0.1
        assert scores[name].value == pytest.approx(truth, abs=4 * scores[name].error + 0.02), name
    if not wrong:
        assert aggregate == pytest.approx(0, abs=1e-9), "the exact posterior of rows of the model itself averages to its prior"


def test_the_standard_error_is_that_of_repetition() -> None:
    exact = LinearGaussian(4, 2, 1.5)
    torch.manual_seed(2)
    found = [measure(BOTH, subject(exact.wrong, exact.evidence.sample((80,)), seed=i)).scores["aggregate_kl"] for i in range(40)]
    assert np.std([f.value for f in found], ddof=1) == pytest.approx(np.mean([f.error for f in found]), rel=0.45)


def test_information_cannot_pass_ln_rows() -> None:
    sharp = LinearGaussian(5, 2, 0.001)
    torch.manual_seed(3)
    score = measure(BOTH, subject(sharp.right, sharp.evidence.sample((50,)))).scores["mutual_information"]
    assert score.value == pytest.approx(math.log(50), abs=0.05)
    one = measure(BOTH, subject(sharp.right, sharp.evidence.sample((1,)))).scores
    assert one["mutual_information"].value == pytest.approx(0, abs=1e-5)
    assert math.isnan(one["mutual_information"].error)


class Apart(Model):
    """Two sites, each a copy of one number of x with noise 0.5; the second is told the first: I(x; z) is that of one site of two numbers."""

    def program(self, batch: Batch | None = None) -> Program:
        x = None if batch is None else content(batch["x"])
        z1 = yield Site("z1", law(torch.zeros(1), 1.0), None if x is None else law(x[:, :1], 0.5))
        z2 = yield Site("z2", law(z1, 1.0), None if x is None else law(x[:, 1:] + z1, 0.5))
        yield Site("x", law(torch.cat([z1, z2 - z1], -1), 1.0))


def law(mean: Tensor, scale: float) -> Independent:
    return Independent(Normal(mean, scale), 1)


def test_several_latent_sites_by_replay() -> None:
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(4))
    scores = measure(BOTH, subject(Apart(), x)).scores
    information = 2 * 0.5 * math.log(1.25 / 0.25)
    assert scores["mutual_information"].rows is not None and len(scores["mutual_information"].rows) == 300
    assert scores["mutual_information"].value == pytest.approx(information, abs=4 * scores["mutual_information"].error + 0.05)
    aggregate = 2 * 0.5 * (1.25 - 1 - math.log(1.25))
    assert scores["aggregate_kl"].value == pytest.approx(aggregate, abs=4 * scores["aggregate_kl"].error + 0.05)


SCHEMA = Schema("toy", (Field("x", Real(1.0), (6,)),), {"train": 10, "validation": 2, "test": 5})


@pytest.mark.parametrize(("call", "words"), [("ae", "is a point"), ("iaf", "cannot score what another row drew"), ("gan", "has no posterior")])
def test_refusals(call: str, words: str) -> None:
    made = parse(f"{call}:hidden=8").cook(SCHEMA)
    refused = measure(BOTH, subject(made.model, torch.randn(7, 6))).refused
    assert words in refused["mutual_information"] and words in refused["aggregate_kl"]


def test_multiply_adds_are_those_of_the_layers() -> None:
    made = parse("vae:hidden=8,latents=3").cook(SCHEMA)
    scores = measure(["generate_multiply_adds", "encode_multiply_adds", "weights_size", "samples_per_second"], subject(made.model, torch.randn(7, 6))).scores
    assert scores["encode_multiply_adds"].value == 6 * 8 + 8 * 2 * 3
    assert scores["generate_multiply_adds"].value == 3 * 8 + 8 * 2 * 6
    numbers = sum(p.numel() for p in made.model.parameters()) + sum(b.numel() for b in made.model.buffers())
    assert scores["weights_size"].value == pytest.approx(4 * numbers / 2**20)
    assert scores["samples_per_second"].value > 0 and scores["samples_per_second"].error >= 0


def test_multiply_adds_of_a_convolution() -> None:
    class Convolved(Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 5, 3, padding=1)

        def program(self, batch: Batch | None = None) -> Program:
            z = yield Site("z", Independent(Normal(torch.zeros(2, 4, 4), 1.0), 3), None if batch is None else Independent(Normal(content(batch["x"]), 1.0), 3))
            yield Site("x", Independent(Normal(self.layer(z).mean(-3, keepdim=True).expand(-1, 2, -1, -1), 1.0), 3))

    score = measure(["generate_multiply_adds"], subject(Convolved(), torch.randn(3, 2, 4, 4))).scores["generate_multiply_adds"]
    assert score.value == 16 * 5 * 2 * 9


def test_peak_memory_is_told_where_it_was_recorded() -> None:
    made = parse("vae:hidden=8").cook(SCHEMA)
    assert "recorded no peak" in measure(["peak_memory"], subject(made.model, torch.randn(7, 6), cost=Cost(1, 1.0, 1))).refused["peak_memory"]
    known = measure(["peak_memory"], subject(made.model, torch.randn(7, 6), cost=Cost(1, 1.0, 1, 3 * 2**20)))
    assert known.scores["peak_memory"].value == 3
