"""Checks of whole models, bounds, plays and recipes."""

import copy
import math

import torch
from torch import Tensor

from vaestro.core import Model, content, replaying, run
from vaestro.data.schema import Binary, Category, Field, Integer, Kind, Real, Schema, Shape
from vaestro.errors import UsageError
from vaestro.objectives import Objective, elbo
from vaestro.plays import Clock
from vaestro.recipes import Call, Recipe, parse
from vaestro.testing.linear import LinearGaussian
from vaestro.training.loop import Loop, owned, weights

KINDS: tuple[Kind, ...] = (Binary(), Integer(5), Real())
STEPS = 20


def toy_schema(kind: Kind, shape: Shape = (1, 8, 8)) -> Schema:
    """A schema of one field `x` of this kind and a label, for trying recipes on."""
    return Schema("toy", (Field("x", kind, shape), Field("label", Category(2))), {"train": 10, "validation": 10, "test": 10})


def toy_batch(kind: Kind, rows: int = 6, shape: Shape = (1, 8, 8)) -> dict[str, Tensor]:
    """Random rows of a kind, as a model sees them: levels as unit values, else normal numbers."""
    levels = 2 if isinstance(kind, Binary) else kind.levels if isinstance(kind, Integer) else 0
    return {"x": torch.randint(levels, (rows, *shape)).float() / (levels - 1) if levels else torch.randn(rows, *shape)}


def check_model(model: Model, batch: dict[str, Tensor], k: int = 4) -> None:
    """Shapes [k, b]; equal seeds give equal traces; a replayed trace scores the same; a row's score depends on that row alone; dreams are whole."""
    model.eval()
    rows = len(content(next(iter(batch.values()))))
    torch.manual_seed(1)
    trace = model(batch, k)
    torch.manual_seed(1)
    again = model(batch, k)
    assert trace.log_w.shape == (k, rows), f"log w is shaped {tuple(trace.log_w.shape)}, not [samples, batch] = {(k, rows)}"
    assert torch.equal(trace.log_w, again.log_w), "equal seeds gave different traces; draw random numbers from torch's generator only"
    assert torch.allclose(elbo()(trace), (trace.kl - trace.log_px).mean(0) + trace.penalty), "the ELBO is not log p(x | z) - KL of the trace"
    values = {n: d.value for n, d in trace.items()}
    replayed = run(model.program(batch), replaying(values))
    assert torch.allclose(replayed.log_w, trace.log_w, rtol=1e-4, atol=1e-3), "a replayed trace scores differently from the draw"
    lead = {n: v if n in batch else v[:, : rows // 2] for n, v in values.items()}
    half = {n: v[: rows // 2] for n, v in batch.items()}
    alone = run(model.program(half), replaying(lead | {n: half[n] for n in half if n in values}))
    assert torch.allclose(alone.log_w, trace.log_w[:, : rows // 2], rtol=1e-4, atol=1e-3), "the score of a row depends on the other rows of its batch"
    for name, d in model.generate(3).items():
        assert d.value.shape == (3, *trace[name].prior.event_shape), f"a dream of {name!r} is shaped {tuple(d.value.shape)}"


def check_bound(bound: Objective, samples: int = 8, rows: int = 20_000) -> None:
    """Minus `bound` lies between the ELBO and log p(x) on a linear-Gaussian model, and equals log p(x) where every weight does, under the true posterior.

    For bounds made of importance weights alone; the value that is reported must be the bound, not only its gradient.
    """
    world = LinearGaussian()
    x = world.evidence.sample(torch.Size((rows,)))
    exact = world.evidence.log_prob(x)
    tight = -bound(world.right({"x": x[:100]}, samples))
    assert tight.shape == (100,), f"an objective is one number a row; this one is shaped {tuple(tight.shape)}"
    assert torch.allclose(tight, exact[:100], atol=1e-6), "under the true posterior the bound is not log p(x)"
    loose = -bound(world.wrong({"x": x}, samples))
    error = 5 * (loose - exact).std() / math.sqrt(rows)
    assert (loose - world.elbo(x, 0.2, 2.0)).mean() > -error, "the bound lies below the ELBO"
    assert (loose - exact).mean() < error, "the bound lies above log p(x)"


def check_play(recipe: Recipe, batch: dict[str, Tensor]) -> None:
    """Every trainable parameter has one owner, gets a gradient from it, and stays bit-identical while the others move."""
    players = owned(recipe)
    loop = Loop(recipe, 0, 10, torch.device("cpu"))
    fed: dict[str, set[str]] = {player: set() for player in players}
    before = {n: w.clone() for n, w in recipe.parts.named_parameters()}
    for move in recipe.play(recipe.parts, batch, Clock(9, 10)):
        loop.move(move, Clock(9, 10))
        for name, parameter in recipe.parts.named_parameters():
            if name not in players[move.player]:
                assert torch.equal(before[name], parameter), f"the step of {move.player!r} moved {name!r}, which is not its own"
            elif parameter.grad is not None and bool(parameter.grad.abs().sum() > 0):
                fed[move.player].add(name)
        before = {n: w.clone() for n, w in recipe.parts.named_parameters()}
    for player, parameters in players.items():
        hungry = parameters.keys() - fed[player]
        assert not hungry, f"{player!r} gives no gradient to {', '.join(sorted(hungry))}"


def check_recipe(text: str, shape: Shape = (1, 8, 8)) -> None:
    """A call on every kind of data: it trains with finite numbers, plays fair, scores, dreams, and comes back from its weights; elsewhere it refuses.

    Also: the call round-trips through its text, and the recipe says what it is, its formula, its paper and the number it answers to.
    """
    call = parse(text)
    assert str(parse(str(call))) == str(call), f"{text} does not come back from its own text"
    entry = call.entry
    for said in ("summary", "paper", "formula", "published"):
        assert getattr(entry, said), f"recipe {entry.name!r} does not say its {said}"
    for kind in KINDS:
        if type(kind) in entry.fits:
            check_fit(call, kind, shape)
            continue
        try:
            call.cook(toy_schema(kind, shape))
        except UsageError:
            continue
        raise AssertionError(f"recipe {entry.name!r} does not fit {kind!r} and yet was built for it")


def check_fit(call: Call, kind: Kind, shape: Shape) -> None:
    """One call on one kind of data."""
    schema, batch = toy_schema(kind, shape), toy_batch(kind, shape=shape)
    check_play(call.cook(schema), batch)
    recipe = call.cook(schema)
    loop = Loop(recipe, 0, STEPS, torch.device("cpu"))
    for _ in range(STEPS):
        loop.step(lambda: batch)
    broken = [term for term, mean in loop.flush().items() if not math.isfinite(mean)]
    assert not broken, f"{call} on {kind!r} trains to infinite or NaN {', '.join(broken)}"
    check_model(recipe.model, batch)
    other = call.cook(schema, seed=1)
    for name, w in weights(other.parts).items():
        w.copy_(weights(recipe.parts)[name])
    for copied in (other.model.eval(), copy.deepcopy(recipe.model).eval()):
        torch.manual_seed(2)
        expected = recipe.model(batch, 2).log_w
        torch.manual_seed(2)
        assert torch.equal(copied(batch, 2).log_w, expected), f"{call} scores differently with the same weights in another copy"
