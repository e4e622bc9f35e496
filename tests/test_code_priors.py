"""Learnt priors over codes: exact masses by enumeration, draws that fit them, causality, and the nats that they save."""

import itertools
import math

import pytest
import torch
from torch.distributions import kl_divergence

from vaestro.codes import AveragedBook, OneHotCodes, ScalarQuantiser, VectorQuantiser
from vaestro.conditional import Conditional
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.families import Bernoulli
from vaestro.models import VAE, Coded
from vaestro.networks import mlp
from vaestro.networks.causal import MaskedCodes, Transformer
from vaestro.priors import CodePrior, StandardNormal, UniformCodes, UniformOneHot, masked_codes, transformer_codes
from vaestro.priors.fitted import Latents
from vaestro.recipes import parse
from vaestro.testing import check_model, toy_schema
from vaestro.training.loop import Loop

BUILDS = {
    "transformer": lambda prior: transformer_codes(latents(prior), width=8, layers=1, heads=2),
    "masked": lambda prior: masked_codes(latents(prior), width=6, layers=2),
}
every_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
GRIDS = [((4,), 3), ((2, 2), 3), ((1,), 5), ((2, 3), 2), ((2, 1, 2), 3)]


def latents(prior) -> Latents:
    return Latents(tuple(prior().event_shape), prior, prior, Field("x", Binary(), (1, 8, 8)))


def strings_of(grid, codes) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(codes), repeat=math.prod(grid)))).reshape(-1, *grid)


def stirred(prior: CodePrior) -> CodePrior:
    """The prior with a head that says something: it starts nearly uniform."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return prior


def fit(prior: CodePrior, z: torch.Tensor, steps: int, rate: float = 1e-2) -> None:
    optimizer = torch.optim.Adam(prior.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (-prior().log_prob(z).mean()).backward()
        optimizer.step()


@every_build
@pytest.mark.parametrize(("grid", "codes"), GRIDS)
def test_the_masses_of_all_strings_sum_to_one(build, grid, codes):
    prior = stirred(build(UniformCodes(grid, codes)).double())
    every = strings_of(grid, codes)
    log_p = prior().log_prob(every).detach()
    assert log_p.shape == (codes ** math.prod(grid),) and log_p.dtype == torch.float64
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert float(log_p.std()) > 0.3, "and it is not the uniform one"
    one_hot = stirred(build(UniformOneHot(grid, codes)).double())
    vectors = torch.nn.functional.one_hot(every, codes).double()
    assert float(one_hot().log_prob(vectors).detach().exp().sum()) == pytest.approx(1, abs=1e-9)
    assert one_hot().event_shape == (*grid, codes) and prior().event_shape == grid


@every_build
def test_draws_fit_the_masses(build):
    prior = stirred(build(UniformCodes((2, 2), 3)))
    p = prior().log_prob(strings_of((2, 2), 3)).detach().exp().double()
    drawn = prior().sample((20_000,))
    number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    expected, found = p * 20_000, torch.bincount(number, minlength=81).double()
    full = expected > 5
    chi, free = float(((found - expected)[full].square() / expected[full]).sum()), int(full.sum()) - 1
    assert free > 5 and chi < free + 5 * math.sqrt(2 * free) + 25


@every_build
def test_draws_have_every_leading_shape(build):
    prior = build(UniformCodes((2, 2), 3))
    for lead in ((), (1,), (4,), (2, 3)):
        z = prior().sample(lead)
        assert z.shape == (*lead, 2, 2) and prior().log_prob(z).shape == lead
    assert prior().expand((5,)).sample((2,)).shape == (2, 5, 2, 2) and prior().expand((5,)).log_prob(prior().sample()).shape == (5,)
    v = build(UniformOneHot((2, 2), 3))().sample((4,))
    assert v.shape == (4, 2, 2, 3) and torch.equal(v.sum(-1), torch.ones(4, 2, 2))
    torch.manual_seed(1)
    first = prior().sample((7,))
    torch.manual_seed(1)
    assert torch.equal(first, prior().sample((7,)))


@pytest.mark.parametrize(
    "net",
    [Transformer(6, 3, 8, 2, 2), MaskedCodes((2, 3), 3, 6, 3, 3), MaskedCodes((6,), 3, 6, 5, 3), MaskedCodes((1, 3, 2), 3, 6, 2, 7)],
    ids=["transformer", "picture", "vector", "books"],
)
def test_a_place_reads_only_the_places_before_it(net):
    seen = []
    net.code.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad_()) or output)
    logits = net(torch.randint(3, (1, 6)))
    reached = torch.stack([torch.autograd.grad((logits[0, i] * torch.randn(3)).sum(), seen[0], retain_graph=True)[0][0].abs().sum(-1) for i in range(6)])
    for i, j in itertools.product(range(6), range(reached.shape[1])):
        assert (float(reached[i, j]) > 0) == (j < i), f"place {i} and the code at place {j}"


@every_build
def test_a_string_that_stops_early_has_the_same_logits(build):
    net = stirred(build(UniformCodes((2, 3), 3))).net
    z = torch.randint(3, (4, 6))
    for m in range(1, 7):
        assert torch.allclose(net(z[:, :m]), net(z)[:, :m], atol=1e-5)


@every_build
def test_every_parameter_is_trained(build):
    prior = build(UniformCodes((2, 3), 3))
    fit(prior, torch.randint(3, (20, 2, 3)), 2)
    prior().log_prob(torch.randint(3, (50, 2, 3))).sum().backward()
    hungry = [name for name, p in prior.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert not hungry


@every_build
def test_repetitions_are_scored_once(build):
    prior = stirred(build(UniformCodes((2, 2), 3)))
    z, rows = torch.randint(3, (5, 2, 2)), []
    prior.net.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    assert torch.equal(prior().log_prob(z.expand(7, 5, 2, 2)), prior().log_prob(z).expand(7, 5)) and rows == [5, 5]


@every_build
def test_what_is_no_code_has_no_mass(build):
    prior = build(UniformCodes((2, 2), 3))
    assert prior().log_prob(torch.tensor([[[0, 1], [2, 3]], [[0, -1], [0, 0]]])).tolist() == [-math.inf, -math.inf]
    assert bool(prior().support.check(prior().sample((3,))).all())


@every_build
def test_a_fitted_prior_reaches_the_entropy_of_its_strings(build):
    """A chain whose next code is the one before it nine times out of ten: n log K would be 4.39 nats."""
    torch.manual_seed(2)
    z = torch.randint(3, (600, 4))
    for i in range(1, 4):
        z[:, i] = torch.where(torch.rand(600) < 0.85, z[:, i - 1], z[:, i])
    stay = 0.85 + 0.05
    entropy = math.log(3) - 3 * (stay * math.log(stay) + 0.1 * math.log(0.05))
    prior = build(UniformCodes((4,), 3))
    fit(prior, z, 100, 2e-2)
    assert abs(-float(prior().log_prob(z).mean().detach()) - entropy) < 0.12 < 4 * math.log(3) - entropy


def coded(quantiser) -> Coded:
    encoder, decoder = mlp((5,), (quantiser.params, *quantiser.grid), (7,)), mlp((quantiser.params, *quantiser.grid), (5,), (7,))
    return Coded(UniformCodes(quantiser.shape, quantiser.codes), Conditional(encoder, quantiser), Conditional(decoder, Bernoulli()))


@every_build
@pytest.mark.parametrize(
    "quantiser",
    [
        lambda: VectorQuantiser([AveragedBook(4, 2)], (3,)),
        lambda: VectorQuantiser([AveragedBook(3, 2), AveragedBook(3, 2)], (2, 1)),
        lambda: ScalarQuantiser((3, 2), (2, 2)),
    ],
    ids=["vector", "residual", "scalar"],
)
def test_the_uniform_prior_gives_way_and_the_bound_stays_true(build, quantiser):
    model = coded(quantiser()).eval()
    batch = {"x": (torch.rand(6, 5) > 0.5).float()}
    uniform = model(batch)
    model.prior = stirred(build(model.prior))
    check_model(model, batch)
    learnt = model(batch)
    assert learnt.normalised and torch.allclose(learnt.log_px, uniform.log_px, atol=1e-6)
    rate = -model.prior().log_prob(model.posterior(batch["x"]).index)
    assert torch.allclose(learnt.kl, rate, atol=1e-5) and torch.allclose(kl_divergence(model.posterior(batch["x"]), model.prior()), rate, atol=1e-5)


@every_build
def test_the_nats_of_a_trained_model_fall_to_the_learnt_rate(build):
    recipe = parse("vq_vae:codes=6,dimension=3,hidden=6x6").cook(toy_schema(Binary()))
    torch.manual_seed(1)
    picture = (torch.rand(3, 1, 8, 8) > 0.5).float()
    data = {"x": picture[torch.randint(3, (60,))]}
    loop = Loop(recipe, 0, 30, torch.device("cpu"))
    for _ in range(30):
        loop.step(lambda: data)
    model = recipe.model.eval()
    before = importance(model, data, 3)
    z = model.posterior(data["x"]).index
    model.prior = build(model.prior)
    fit(model.prior, z, 40, 2e-2)
    after = importance(model, data, 3)
    assert before.kl == pytest.approx(4 * math.log(6)) and float(after.kl.mean()) == pytest.approx(-float(model.prior().log_prob(z).mean().detach()), rel=1e-4)
    assert float(after.kl.mean()) < 3 < 4 * math.log(6), "three pictures need log 3 nats"
    assert after.mean - before.mean == pytest.approx(float(before.kl.mean() - after.kl.mean()), rel=1e-4)
    assert model.generate(4)["x"].value.shape == (4, 1, 8, 8)


@every_build
def test_one_hot_codes_take_a_learnt_prior_too(build):
    encoder, decoder = mlp((5,), (3, 2), (7,)), mlp((2, 3), (5,), (7,))
    model = VAE(UniformOneHot((2,), 3), Conditional(encoder, OneHotCodes(3, 1)), Conditional(decoder, Bernoulli())).eval()
    batch = {"x": (torch.rand(6, 5) > 0.5).float()}
    model.prior = stirred(build(model.prior))
    check_model(model, batch)
    trace = model(batch, 20_000)
    q = model.posterior(batch["x"]).base_dist.probs
    every = strings_of((2,), 3)
    mass = q[:, 0, every[:, 0]] * q[:, 1, every[:, 1]]
    exact = (mass * (mass.log() - model.prior().strings.log_prob(every))).sum(1)
    assert torch.allclose(trace.kl.mean(0), exact, atol=0.05)


def test_a_prior_over_codes_needs_codes():
    with pytest.raises(UsageError, match="whose latents are no codes"):
        transformer_codes(latents(StandardNormal((3,))))
    with pytest.raises(UsageError, match="heads cannot share"):
        transformer_codes(latents(UniformCodes((3,), 3)), width=10, heads=4)
    again = masked_codes(latents(transformer_codes(latents(UniformOneHot((3,), 3)), width=4, heads=1)), width=4)
    assert type(again).__name__ == "OneHotCodePrior", "a fitted prior can be fitted anew"


@every_build
def test_strings_are_scored_in_pieces_alike(build, monkeypatch):
    prior = stirred(build(UniformCodes((2, 2), 3)))
    z = torch.randint(3, (30, 2, 2))
    with torch.no_grad():
        whole = prior().log_prob(z)
        monkeypatch.setattr("vaestro.priors.strings.AT_ONCE", 50)
        assert torch.allclose(prior().log_prob(z), whole, atol=1e-5)
    assert prior().log_prob(z[:0]).shape == (0,)


def test_a_batch_of_one_and_mixed_precision():
    prior = transformer_codes(latents(UniformCodes((2, 2), 3)), width=8, heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        log_p = prior().log_prob(torch.zeros(1, 2, 2, dtype=torch.long))
    assert log_p.dtype == torch.float32 and log_p.shape == (1,) and bool(log_p.isfinite().all())
