"""Checks of whole models, bounds, plays and recipes."""

import copy
import math

import torch
from torch import Tensor

from vaestro.core import Batch, Model, Seen, Trace, content, replaying, run, scores, total
from vaestro.data.schema import Binary, Category, Count, Counted, Field, Integer, Kind, Named, Ordered, Real, Schema, Shape, Table
from vaestro.errors import UsageError
from vaestro.evaluation.peeking import peeks
from vaestro.objectives import Objective, elbo
from vaestro.plays import Clock
from vaestro.recipes import Call, Recipe, parse
from vaestro.testing.linear import LinearGaussian
from vaestro.training.loop import Loop, owned, weights

KINDS: tuple[Kind, ...] = (Binary(), Integer(5), Count(), Real())
STEPS = 20
DEPENDS = "the score of a row depends on the other rows of its batch"


def toy_schema(kind: Kind, shape: Shape = (1, 8, 8)) -> Schema:
    """A schema of a field `x` of this kind, another row `x2` of its pair and a label, for trying recipes on."""
    return Schema("toy", (Field("x", kind, shape), Field("label", Category(2)), Field("x2", kind, shape)), {"train": 10, "validation": 10, "test": 10})


def toy_batch(kind: Kind, rows: int = 6, shape: Shape = (1, 8, 8)) -> dict[str, Tensor]:
    """Random rows of a kind, as a model sees them: levels as unit values, counts of mean 3, else normal numbers."""
    if isinstance(kind, Count):
        return {"x": torch.poisson(torch.full((rows, *shape), 3.0))}
    if isinstance(kind, Table):
        return {"x": toy_table(kind, rows)}
    levels = 2 if isinstance(kind, Binary) else kind.levels if isinstance(kind, Integer) else 0
    return {"x": torch.randint(levels, (rows, *shape)).float() / (levels - 1) if levels else torch.randn(rows, *shape)}


def toy_table(table: Table, rows: int) -> Tensor:
    """Random rows of a table as they are held, a third of the entries unseen (NaN)."""
    tops = [len(c.levels) if isinstance(c, Named | Ordered) else 0 for c in table.columns]
    drawn = [torch.randint(n, (rows,)).float() if n else torch.randn(rows) for n in tops]
    counted = [torch.poisson(torch.full((rows,), 3.0)) if isinstance(c, Counted) else x for c, x in zip(table.columns, drawn, strict=True)]
    return torch.stack(counted, 1).masked_fill(torch.rand(rows, len(tops)) < 1 / 3, math.nan)


def toy_rows(schema: Schema, recipe: Recipe, rows: int = 6) -> tuple[dict[str, Tensor], dict[str, Tensor | Seen]]:
    """Random rows of the fields that a recipe reads, and the same as it trains on them: with every other row's label, where it is told some."""
    fields = [schema[n] for n in recipe.fields]
    batch = {f.name: torch.arange(rows) % f.kind.n if isinstance(f.kind, Category) else toy_batch(f.kind, rows, f.shape)["x"] for f in fields}
    if recipe.told is None:
        return batch, {**batch, **{n: toy_batch(schema[n].kind, rows, schema[n].shape)["x"] for n in recipe.beside}}
    kind = schema[recipe.told.field].kind
    assert isinstance(kind, Category), "labels are classes"
    return batch, {**batch, recipe.told.field: Seen(torch.arange(rows) // 2 % kind.n, torch.arange(rows) % 2 == 0)}


def check_model(model: Model, batch: dict[str, Tensor], k: int = 4, silent: bool = False) -> None:
    """Shapes [k, b]; equal seeds give equal traces; a row's score depends on that row alone; dreams are whole, or refused where `silent`.

    A replayed trace scores the same, or is refused in words where a posterior scores only what it draws (`vaestro.core.scores`).
    """
    model.eval()
    rows = len(content(next(iter(batch.values()))))
    torch.manual_seed(1)
    trace = model(batch, k)
    torch.manual_seed(1)
    again = model(batch, k)
    assert trace.log_w.shape == (k, rows), f"log w is shaped {tuple(trace.log_w.shape)}, not [samples, batch] = {(k, rows)}"
    assert torch.equal(trace.log_w, again.log_w), "equal seeds gave different traces; draw random numbers from torch's generator only"
    assert torch.allclose(elbo()(trace), (trace.kl - trace.log_px).mean(0) + trace.penalty), "the ELBO is not log p(x | z) - KL of the trace"
    check_dreams(model, batch, silent)
    assert not (site := peeks(model, batch)), f"p({site} | ...) changes with the row that is scored while all latents stay as they are"
    (check_replay if all(scores(d.posterior) for d in trace.latents.values() if d.posterior) else check_one_pass)(model, batch, trace)


def check_dreams(model: Model, batch: dict[str, Tensor], silent: bool) -> None:
    """Dreams are whole, shaped [n, *event]; a model that is `silent` refuses to dream, in words."""
    if silent:
        try:
            model.generate(3)
        except UsageError:
            return
        raise AssertionError("its entry says in `lacks` that it has no samples, and yet it dreams")
    events = {n: d.prior.event_shape for n, d in model(batch).items()}
    for name, d in model.generate(3).items():
        assert d.value.shape == (3, *events[name]), f"a dream of {name!r} is shaped {tuple(d.value.shape)}"


def check_replay(model: Model, batch: dict[str, Tensor], trace: Trace) -> None:
    """A replayed trace scores the same, and so do its first rows without the others; what was only imagined costs nothing, and is scored when it is given."""
    half = trace.log_w.shape[1] // 2
    values = {n: d.value for n, d in trace.items()}
    imagined = total(d.prior.log_prob(d.value) for d in trace.values() if d.posterior is None and d.seen is False)
    replayed = run(model.program(batch), replaying(values))
    assert torch.allclose(replayed.log_w - imagined, trace.log_w, rtol=1e-4, atol=1e-3), "a replayed trace scores differently from the draw"
    lead = {n: v if n in batch else v[:, :half] for n, v in values.items()}
    few = {n: v[:half] for n, v in batch.items()}
    alone = run(model.program(few), replaying(lead | {n: few[n] for n in few if n in values}))
    assert torch.allclose(alone.log_w, (trace.log_w + imagined)[:, :half], rtol=1e-4, atol=1e-3), DEPENDS


def check_one_pass(model: Model, batch: dict[str, Tensor], trace: Trace) -> None:
    """A model that scores only what it draws refuses to replay, in words; the same draws score the same whatever rows stand beside them."""
    try:
        run(model.program(batch), replaying({n: d.value for n, d in trace.items()}))
    except UsageError:
        pass
    else:
        raise AssertionError("a posterior says that it cannot score a value that another drew, and yet replayed one; register `scores` as it is")
    half = trace.log_w.shape[1] // 2
    torch.manual_seed(1)
    beside = model({n: torch.cat([v[:half], torch.zeros_like(v[half:])]) for n, v in batch.items()}, trace.log_w.shape[0])
    assert torch.allclose(beside.log_w[:, :half], trace.log_w[:, :half], rtol=1e-4, atol=1e-3), DEPENDS


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


def check_play(recipe: Recipe, batch: Batch) -> None:
    """Every trainable parameter has one owner, gets a gradient from it at the first step or the last, and stays bit-identical while the others move."""
    players = owned(recipe)
    loop = Loop(recipe, 0, 10, torch.device("cpu"))
    fed: dict[str, set[str]] = {player: set() for player in players}
    before = {n: w.clone() for n, w in recipe.parts.named_parameters()}
    for clock, move in ((c, m) for c in (Clock(0, 10), Clock(9, 10)) for m in recipe.play(recipe.parts, batch, c)):
        loop.move(move, clock)
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
    schema, recipe = toy_schema(kind, shape), call.cook(toy_schema(kind, shape))
    batch, lesson = toy_rows(schema, recipe)
    if recipe.fit is not None:
        recipe.fit(recipe.parts.eval(), batch["x"], batch["x"])
        broken = [name for name, w in weights(recipe.parts).items() if not bool(w.isfinite().all())]
    else:
        check_play(call.cook(schema), lesson)
        loop = Loop(recipe, 0, STEPS, torch.device("cpu"))
        for _ in range(STEPS):
            loop.step(lambda: lesson)
        broken = [term for term, mean in loop.flush().items() if not math.isfinite(mean)]
    assert not broken, f"{call} on {kind!r} trains to infinite or NaN {', '.join(broken)}"
    check_model(recipe.model, batch, silent="samples" in call.entry.lacks)
    dense = recipe.model(batch).normalised
    assert dense == ("density" not in call.entry.lacks), f"{call} on {kind!r} {'has' if dense else 'lacks'} a density, and its entry says otherwise in `lacks`"
    other = call.cook(schema, seed=1)
    for name, w in weights(other.parts).items():
        w.copy_(weights(recipe.parts)[name])
    for copied in (other.model.eval(), copy.deepcopy(recipe.model).eval()):
        torch.manual_seed(2)
        expected = recipe.model(batch, 2).log_w
        torch.manual_seed(2)
        assert torch.equal(copied(batch, 2).log_w, expected), f"{call} scores differently with the same weights in another copy"
