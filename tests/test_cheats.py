"""Cheats lose visibly: each in the column that is meant to catch it, in a real arena on small digits, beside honest entrants that pass."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, MultivariateNormal, Normal, StudentT

from vaestro.arena import load_challenge
from vaestro.arena.entry import Entrant, own_entrant
from vaestro.arena.folder import Arena, start
from vaestro.arena.worker import do
from vaestro.codes.onehot import Hard
from vaestro.data import load
from vaestro.data.schema import Counted, Field, Measured, Named, Ordered, Positive, Schema, Table
from vaestro.errors import UsageError
from vaestro.evaluation.mass import apart, of_columns, summed, weighed
from vaestro.evaluation.metrics import Subject, measure
from vaestro.evaluation.metrics.audit import believed
from vaestro.families import Binned, Gaussian, Logistic
from vaestro.families.columns import normal, student
from vaestro.families.fields import Fields, FieldsDistribution
from vaestro.recipes import RECIPES, parse
from vaestro.testing.models import toy_table

CHEATS = ("copycat", "collapsed", "blurry", "overclaimer", "loud", "crowded", "freed", "shortened", "memoriser", "peeker", "informed", "outspoken", "conjured")
MOVING = ("learner", "drifter")  # whose scores are not those of one model
HONEST = ("vae:latents=16,hidden=64", "mixture:components=20", "kernel_density", "png")
COLUMNS = (
    "nll",
    "audit",
    "split_gap",
    "copied_pca64",
    "coverage_pca64",
    "recall_pca64",
    "frechet_pca64",
    "blur",
    "elbo",
    "kl",
    "membership",
    "reconstruction_mse",
)
FILE = Path(__file__).parent / "my_cheats.py"


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The results of every entrant in one small arena, by the name of the recipe."""
    before = dict(RECIPES._parts)
    folder = tmp_path_factory.mktemp("cheats")
    shipped = load_challenge("digits")
    text = shipped.file.read_text(encoding="utf-8").replace('source = "digits-dynamic"', 'source = "digits"')  # whose rows do not change at each reading
    text = text.replace(shipped.rules.data.sha256, load("digits").sha256)
    lines = [line for line in text.splitlines() if not line.startswith(("metrics", "entrants", "classical"))]
    listed = f"metrics = {list(COLUMNS)}\nentrants = {list(HONEST)}\n".replace("'", '"')
    tier = '[tiers.tiny]\nlabel = "a test"\nsteps = 400\nseeds = [0]\nrows = 500\nsamples = 50\n'
    (folder / "challenge.toml").write_text("\n".join(lines[:5]) + "\n" + listed + "\n".join(lines[5:]) + "\n" + tier, encoding="utf-8")
    arena = Arena(folder / "out", load_challenge(folder), "tiny")
    start(arena)
    found = {}
    threads = torch.get_num_threads()
    try:
        for entrant in [Entrant(parse(c)) for c in HONEST] + [own_entrant(f"{FILE}:{name}") for name in (*CHEATS, *MOVING)]:
            found[entrant.call.entry.name] = do(entrant.job(0, arena.challenge, "tiny", arena.folder))
    finally:
        torch.set_num_threads(threads)
        RECIPES._parts.clear()
        RECIPES._parts.update(before)
    assert {n: r.reason for n, r in found.items() if r.status != "done" and n not in MOVING} == {}
    return found


def value(board, name, column):
    return board[name].metrics[column].value


def test_a_copycat_shows_in_the_copies(board):
    cell = board["copycat"].metrics["copied_pca64"]
    assert cell.value - 3 * cell.error > 0.9
    for honest in ("vae", "mixture"):
        assert value(board, honest, "copied_pca64") < 0.5
    assert "no density" in board["copycat"].refused["nll"]


def test_a_collapsed_generator_shows_in_coverage_and_recall(board):
    for column in ("coverage_pca64", "recall_pca64"):
        assert value(board, "collapsed", column) < 0.2
        assert value(board, "collapsed", column) < value(board, "vae", column) / 3
    assert value(board, "collapsed", "frechet_pca64") > 2 * value(board, "mixture", "frechet_pca64")


def test_a_blurry_model_shows_in_blur_and_in_its_samples(board):
    assert value(board, "blurry", "blur") < 0.5 * value(board, "vae", "blur")
    assert value(board, "blurry", "reconstruction_mse") > 1.3 * value(board, "vae", "reconstruction_mse")


@pytest.mark.parametrize(
    ("name", "nats", "words"),
    [
        ("overclaimer", 5.0, r"log q\) of 'z' sums to e\^-5.0"),
        ("loud", 6.4, r"log p\) of 'x' sums to e\^6.4"),
        ("crowded", math.log(5), r"log p\) of 'z' sums to e\^1.[56]"),
    ],
)
def test_nats_that_are_claimed_and_not_there_are_refused(board, name, nats, words):
    cell = board[name].metrics["audit"]
    assert cell.value == pytest.approx(nats, abs=0.1) and cell.error < 0.04
    for column in ("nll", "elbo", "split_gap"):
        assert column not in board[name].metrics
        assert re.search(words, board[name].refused[column])


def test_a_kl_that_its_own_draws_refute_is_refused(board):
    found = board["freed"]
    assert {"elbo", "kl"}.isdisjoint(found.metrics) and "nll" in found.metrics
    assert re.search(r"overclaimed by \d+\.\d nats a row: the closed form of its KL says less", found.refused["elbo"])


@pytest.mark.parametrize(("name", "words"), [("informed", "reads the row that it scores: .* of 'z'"), ("outspoken", "has a forward of its own")])
def test_nats_of_no_law_are_refused(board, name, words):
    assert {"nll", "elbo", "split_gap"}.isdisjoint(board[name].metrics)
    assert re.search(words, board[name].refused["nll"])


def test_lengths_that_nobody_verified_are_not_called_so(board):
    assert value(board, "png", "audit") == 0
    for name in ("shortened", "conjured"):
        assert "audit" not in board[name].metrics and "compressor" in board[name].refused["audit"]


def test_a_memoriser_shows_in_copies_and_membership(board):
    assert value(board, "memoriser", "copied_pca64") > 0.8
    assert value(board, "memoriser", "membership") > 0.9
    assert value(board, "vae", "membership") < 0.5


@pytest.mark.parametrize(
    ("name", "words"), [("learner", r"nats of the same rows before, and .* after\)"), ("drifter", "changed its weights while it was scored")]
)
def test_a_model_that_moves_while_it_is_scored_has_no_score(board, name, words):
    assert board[name].status == "failed" and not board[name].metrics
    assert re.search(words, board[name].reason)


def test_learning_the_test_rows_shows_in_the_gap_of_the_splits(board):
    assert value(board, "peeker", "nll") < min(value(board, name, "nll") for name in ("vae", "mixture", "kernel_density", "png"))  # it would lead the board
    assert value(board, "peeker", "split_gap") > 8


@pytest.mark.parametrize("name", [c.partition(":")[0] for c in HONEST])
def test_honest_entrants_pass(board, name):
    assert abs(value(board, name, "split_gap")) < 4
    cell = board[name].metrics["audit"]
    assert abs(cell.value) < 0.05 + 5 * cell.error
    assert math.isfinite(value(board, name, "nll"))


def test_a_compressor_stands_on_the_board_without_samples(board):
    assert board["png"].samples_per_second is None and board["png"].seconds is not None and board["png"].steps == 0
    assert "no rows" in board["png"].refused["frechet_pca64"]


class Scaled(Independent):
    """A law whose joint log density is off by a constant."""

    def log_prob(self, value):
        return super().log_prob(value) + 1.5


class Narrow(Normal):
    """Draws half as wide as its log density says."""

    def rsample(self, sample_shape=torch.Size()):
        return self.loc + (super().rsample(sample_shape) - self.loc) / 2


@pytest.mark.parametrize("law", [Normal, Laplace, lambda m, s: StudentT(4.0, m, s)])
def test_quadrature_finds_one(law):
    dist = Independent(law(torch.tensor([[0.0, 100.0], [-3.0, 1e-3]]).double(), torch.tensor([[1.0, 1e-4], [30.0, 1.0]]).double()), 1)
    torch.manual_seed(0)
    torch.testing.assert_close(summed(dist, 0), torch.zeros(2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_enumeration_finds_one_and_more():
    torch.manual_seed(0)
    for family, n in ((Binned(Gaussian(3), 17), 17), (Binned(Logistic(3), 256), 256)):
        dist = family(torch.randn(4, 2 * 2, 3, 3))
        torch.testing.assert_close(summed(dist, n), torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    loud = Scaled(Bernoulli(logits=torch.randn(3, 5)), 1)
    torch.testing.assert_close(apart(loud, torch.ones(3, 5)), torch.full((3,), 1.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("dist", "off"),
    [
        (Independent(Normal(torch.randn(8, 40), 0.1), 1), 0.0),
        (Scaled(Normal(torch.randn(8, 40), 0.1), 1), 1.5),
        (MultivariateNormal(torch.zeros(8, 20), torch.eye(20) * 2 + 0.5), 0.0),
        (Independent(Hard(torch.randn(8, 3, 6)), 1), 0.0),
    ],
)
def test_draws_weigh_a_law(dist, off):
    torch.manual_seed(0)
    found = weighed(dist)
    mean, error = float(found.log.mean()), float(found.error.square().sum().sqrt() / len(found.error))
    assert abs(mean - off) < 5 * error + 0.01


def columns(unit):
    """Columns of every kind, those that are measured in units of this size."""
    return (
        Measured("real", 3 * unit, unit), Measured("grid", 0.0, 2 * unit, step=unit), Measured("fine", 0.0, unit, step=unit / 1e4),
        Positive("size", math.log(unit), 0.7), Positive("price", math.log(unit), 0.7, step=unit / 100), Positive("coin", math.log(unit), 0.7, step=unit),
        Counted("claims", 1.0, 1.0), Counted("many", 12.0, 1.0), Ordered("stars", ("a", "b", "c")), Named("sex", ("F", "M")), Named("town", tuple("uvwxyz")),
    )  # fmt: skip


class Boast(FieldsDistribution):
    """Rows of a table whose joint log density is off by a constant."""

    def log_prob(self, value):
        return super().log_prob(value) + 1.5


class Boasts(FieldsDistribution):
    """The same, said of each column."""

    def log_prob_by_column(self, value):
        return super().log_prob_by_column(value) + 0.25


class Whole(Distribution):
    """A law of rows that says nothing of single columns."""

    def __init__(self, of):
        self.of = of
        super().__init__(of.batch_shape, of.event_shape, validate_args=False)

    def sample(self, sample_shape=torch.Size()):
        return self.of.sample(sample_shape)

    def log_prob(self, value):
        return self.of.log_prob(value)


@pytest.mark.parametrize("law", [normal, student])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_rows_of_a_table_are_weighed_in_their_own_units(unit, law):
    table = Table(columns(unit))
    family = Fields(table, law)
    torch.manual_seed(0)
    dist = family(0.7 * torch.randn(8, family.params))
    for made, off in ((dist, 0.0), (Boast(family, dist.h), 1.5), (Boasts(family, dist.h), 0.25 * len(table.columns))):
        found = of_columns(made, table.columns)
        mean, error = float(found.log.mean()), float(found.error.square().sum().sqrt() / len(found.error))
        assert abs(mean - off) < 5 * error + 0.01, (mean, error)
    few = Table(table.columns[:1] + table.columns[-2:])
    found = of_columns(Whole(Fields(few, law)(0.7 * torch.randn(8, Fields(few).params))), few.columns)
    assert abs(float(found.log.mean())) < 5 * float(found.error.square().sum().sqrt() / len(found.error)) + 0.01


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_honest_nats_of_a_table_are_believed_whatever_its_units(unit):
    """The density of values of small units is large, and that is no overclaim."""
    field = Field("x", Table(columns(unit)), (11,))
    torch.manual_seed(1)
    model = parse("vae:latents=1,hidden=4").cook(Schema("s", (field,), {"train": 40})).model
    x = toy_table(field.kind, 40)
    subject = Subject(model, lambda: [{"x": x}], field, samples=5)
    report = measure(["audit", "nll"], subject)
    assert abs(report.scores["audit"].value) < 0.05
    assert believed(subject, report) == report


def test_draws_that_are_not_those_of_the_density_show():
    torch.manual_seed(0)
    found = weighed(Independent(Narrow(torch.zeros(8, 2), torch.ones(2)), 1))  # each weight is r / q, r half as wide: E = 2 / sqrt(7 / 4)... above 1
    assert float(found.log.mean()) < -0.4


def test_laws_that_draws_cannot_tell_of_are_said_to_be_so():
    far = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)), Independent(Normal(torch.tensor([[-60.0] * 8, [60.0] * 8]), 0.1), 1)
    )
    with pytest.raises(UsageError, match="stays unproven"):
        weighed(far)
