"""The interpreter, traces and partly seen values, against brute force."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MultivariateNormal, Normal, kl_divergence

from vaestro.core import Draw, Model, Seen, Site, content, draw, replaying, run, sampling, take
from vaestro.errors import UsageError
from vaestro.objectives import elbo
from vaestro.plays import alone
from vaestro.recipes.book import solo
from vaestro.training.monitor import vital_signs


class Discrete(Model):
    """y in 3 classes, z in 2 given y, x two bits given y and z: small enough to enumerate."""

    observed = ("x", "y")

    def __init__(self) -> None:
        super().__init__()
        r = torch.Generator().manual_seed(5)
        self.a, self.b, self.c, self.d, self.e = (torch.randn(s, generator=r, dtype=torch.float64) for s in ((3,), (3, 2), (3, 2, 2), (3,), (3, 2)))

    def program(self, batch=None):
        x = None if batch is None else content(batch["x"])
        y = yield Site("y", Categorical(logits=self.a), None if x is None else Categorical(logits=self.d + x.sum(-1, keepdim=True)))
        z = yield Site("z", Categorical(logits=self.b[y]), None if x is None else Categorical(logits=self.e[y] * x[..., :1]))
        yield Site("x", Independent(Bernoulli(logits=self.c[y, z]), 1))


def log_joint(m: Discrete, x: Tensor, y: int, z: int) -> Tensor:
    return m.a.log_softmax(0)[y] + m.b[y].log_softmax(0)[z] + Bernoulli(logits=m.c[y, z]).log_prob(x).sum(-1)


def log_q(m: Discrete, x: Tensor, y: int, z: int) -> Tensor:
    return (m.d + x.sum()).log_softmax(0)[y] + (m.e[y] * x[0]).log_softmax(0)[z]


class Coins(Model):
    """Independent bits, without a latent."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([0.3, -1.0, 2.0]))

    def program(self, batch=None):
        yield Site("x", Independent(Bernoulli(logits=self.logits), 1))


def test_without_latents_every_draw_says_the_same_and_objectives_are_one_number_a_row() -> None:
    """Such a model of one's own could not be trained: its loss was one number for all rows."""
    coins, x = Coins(), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    due = Bernoulli(logits=coins.logits.detach()).log_prob(x).sum(-1)
    trace = coins({"x": x}, 3)
    assert torch.equal(trace.log_w, due.expand(3, 2)) and torch.equal(trace.log_px, trace.log_w)
    assert torch.allclose(elbo()(trace), -due) and elbo()(trace).shape == (2,)
    signs = vital_signs(solo(coins, alone(elbo())), [{"x": x}, {"x": x[:1]}], 1.0)
    assert signs == {"validation": pytest.approx(-float(torch.stack([due[0], due[1], due[0]]).mean()))}
    half = coins({"x": Seen(x, torch.tensor([True, False]))}, 3)
    assert torch.allclose(half.log_px, torch.stack([due[0], torch.tensor(0.0)]).expand(3, 2))


@pytest.fixture
def model() -> Discrete:
    return Discrete()


BITS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)


def test_log_w_of_every_draw_is_the_ratio_of_the_joints(model):
    t = model({"x": BITS}, 50)
    for i in range(50):
        for b in range(4):
            y, z = int(t["y"].value[i, b]), int(t["z"].value[i, b])
            assert torch.isclose(t.log_w[i, b], log_joint(model, BITS[b], y, z) - log_q(model, BITS[b], y, z))


def test_weights_average_to_the_evidence(model):
    log_w = model({"x": BITS}, 40_000).log_w
    exact = torch.stack([torch.stack([log_joint(model, x, y, z) for y in range(3) for z in range(2)]).logsumexp(0) for x in BITS])
    error = log_w.exp().std(0) / math.sqrt(len(log_w)) / exact.exp()
    assert ((log_w.logsumexp(0) - math.log(len(log_w)) - exact).abs() < 5 * error).all()


def test_a_given_label_costs_its_log_p_and_nothing_else(model):
    y = torch.tensor([0, 1, 2, 1])
    t = model({"x": BITS, "y": y}, 7)
    for i, b in itertools.product(range(7), range(4)):
        z = int(t["z"].value[i, b])
        expected = log_joint(model, BITS[b], int(y[b]), z) - (model.e[y[b]] * BITS[b][0]).log_softmax(0)[z]
        assert torch.isclose(t.log_w[i, b], expected)
    assert t["y"].posterior is None
    assert set(t.latents) == {"z"}


def test_labels_seen_in_some_rows_equal_both_kinds_of_row_apart(model):
    y, mask = torch.tensor([0, 1, 2, 1]), torch.tensor([True, False, True, False])
    t = model({"x": BITS, "y": Seen(y, mask)}, 500)
    assert (t["y"].value[:, mask] == y[mask]).all()
    for i, b in itertools.product(range(20), range(4)):
        yy, zz = int(t["y"].value[i, b]), int(t["z"].value[i, b])
        q = (model.e[yy] * BITS[b][0]).log_softmax(0)[zz] if mask[b] else log_q(model, BITS[b], yy, zz)
        assert torch.isclose(t.log_w[i, b], log_joint(model, BITS[b], yy, zz) - q)
    assert torch.allclose(t.log_w.mean(0), (t.log_px - t.kl).mean(0), atol=0.2)  # the two halves of the bound
    assert torch.equal(t["y"].kl[..., 0], torch.zeros(()).double().expand_as(t["y"].kl[..., 0]))


def test_an_imagined_site_costs_nothing():
    class TwoViews(Model):
        observed = ("a", "b")

        def program(self, batch=None):
            q = None if not batch else Normal(torch.stack(list(map(content, batch.values()))).mean(0), 1.0)
            z = yield Site("z", Normal(torch.tensor(0.0), 1.0), q)
            yield Site("a", Normal(z, 1.0))
            yield Site("b", Normal(z, 2.0))

    a = torch.randn(5)
    t = TwoViews()({"a": a}, 3)
    assert t["b"].log_p == 0.0
    assert t["b"].log_q == 0.0
    z = t["z"]
    assert torch.allclose(t.log_w, Normal(z.value, 1.0).log_prob(a) + z.prior.log_prob(z.value) - z.posterior.log_prob(z.value))
    assert torch.allclose(t.log_px, Normal(z.value, 1.0).log_prob(a))


def test_entries_seen_marginalise_the_others_and_are_never_read():
    loc = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([[1.0, math.nan, 2.0], [math.nan, math.nan, math.inf]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    site = Site("x", Independent(Normal(loc.expand(2, 3), 1.5), 1))
    d = take(site, (4, 2), Seen(value, mask))
    full = MultivariateNormal(loc.detach()[[0, 2]], 1.5**2 * torch.eye(2, dtype=torch.float64))
    assert torch.allclose(d.log_p[:, 0], full.log_prob(value[0, [0, 2]]).expand(4))
    assert torch.equal(d.log_p[:, 1], torch.zeros(4, dtype=torch.float64))
    assert torch.isfinite(d.value).all()
    d.log_p.sum().backward()
    assert torch.isfinite(loc.grad).all()
    assert loc.grad[1] == 0


def test_rows_seen_leave_finite_gradients_where_unseen_values_are_nan():
    loc = torch.zeros(3, requires_grad=True)
    site = Site("y", Normal(torch.zeros(3), 1.0), Normal(loc, 1.0))
    d = take(site, (5, 3), Seen(torch.tensor([1.0, math.nan, 2.0]), torch.tensor([True, False, True])))
    assert torch.equal(d.value[:, 0], torch.ones(5))
    assert (d.log_q[:, [0, 2]] == 0).all()
    (d.log_p - d.log_q).sum().backward()
    assert torch.isfinite(loc.grad).all()
    assert loc.grad[0] == loc.grad[2] == 0


def test_what_cannot_be_given_in_part_is_refused_in_words():
    whole = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(UsageError, match="cannot score a part of an event"):
        take(Site("x", whole), (3,), Seen(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)))
    with pytest.raises(TypeError, match="given by whole rows"):
        q = Independent(Normal(torch.zeros(2), 1.0), 1)
        take(Site("z", q, q), (3,), Seen(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="site 'z' drew"):
        take(Site("z", Normal(torch.zeros(2), 1.0), Normal(torch.zeros(2), 1.0)), (4, 3), None)


def test_replaying_a_trace_scores_it_the_same(model):
    t = model({"x": BITS}, 6)
    again = run(model.program({"x": BITS}), replaying({n: d.value for n, d in t.items()}))
    assert torch.allclose(again.log_w, t.log_w)


def test_x_is_encoded_once_however_many_samples_are_taken():
    calls = []

    class Once(Model):
        def program(self, batch=None):
            calls.append(len(batch["x"]))
            z = yield Site("z", Normal(0.0, 1.0), Normal(batch["x"], 1.0))
            yield Site("x", Normal(z, 1.0))

    t = Once()({"x": torch.randn(4)}, 100)
    assert t["z"].value.shape == (100, 4)
    assert t["z"].posterior.batch_shape == (4,)
    assert calls == [4]


def test_generating_draws_the_prior_and_keeps_what_is_given(model):
    t = model.generate(30_000)
    frequency = torch.bincount(t["y"].value, minlength=3) / 30_000
    assert torch.allclose(frequency.double(), model.a.softmax(0), atol=0.012)
    assert t["x"].value.shape == (30_000, 2)
    t = model.generate(5, given={"y": torch.full((5,), 2)})
    assert (t["y"].value == 2).all()


def test_kl_of_a_site_is_exact_where_registered_and_one_sample_elsewhere():
    p, q = Normal(torch.zeros(2), 1.0), Normal(torch.ones(2), 0.5)
    d = take(Site("z", p, q), (3, 2), None)
    assert torch.equal(d.kl, kl_divergence(q, p))
    mixture = torch.distributions.MixtureSameFamily(Categorical(logits=torch.zeros(2)), Normal(torch.tensor([-1.0, 1.0]), 1.0))
    d = take(Site("z", mixture, q), (3, 2), None)
    assert torch.allclose(d.kl, q.log_prob(d.value) - mixture.log_prob(d.value))


def test_content_hides_what_was_not_seen():
    value, rows = torch.tensor([[1.0, 2.0], [math.nan, 4.0]]), torch.tensor([True, False])
    assert torch.equal(content(Seen(value, rows)), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    assert torch.equal(content(Seen(value, value == 4)), torch.tensor([[0.0, 0.0], [0.0, 4.0]]))


def test_draws_are_differentiable_where_the_distribution_is():
    loc = torch.zeros(3, requires_grad=True)
    value, log_q = draw(Normal(loc, 1.0), (5,))
    value.sum().backward()
    assert torch.equal(loc.grad, torch.full((3,), 5.0))
    assert isinstance(log_q, Tensor)
    assert Draw(value, Normal(0.0, 1.0), None, 0.0, 0.0, False).posterior is None
    assert sampling((2,), {})(Site("z", Normal(0.0, 1.0))).log_p == 0.0
