"""Second stages: a prior fitted to the latents of a trained model, and how a run that has one is put together again."""

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, Model, prepare
from vaestro.data.rows import Batches, Rows
from vaestro.data.schema import Schema
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.models import M2
from vaestro.plays import Clock, Move
from vaestro.priors import PRIORS
from vaestro.priors.fitted import FITTED, Latents, fit, lesson, over_vectors, replaceable
from vaestro.recipes import RECIPES, Call, Recipe, Training, parse
from vaestro.recipes.book import ANY, NEAR, Entry
from vaestro.registry import Registry
from vaestro.seeds import forked, mix
from vaestro.training.loop import Loop, weights
from vaestro.training.record import Watch

ENOUGH = 20_000  # latents that are fitted to, where few rows must be drawn several times
MOST_DRAWS = 16  # of one row
LOOK = 1000  # rows that a prior made of rows may take its own from
AT_ONCE = 250  # rows that are encoded together
SCORED = 5000  # held-out latents that are scored at each check
CHECKS = 50  # of the held-out latents during a fit
USUAL = Training(learning_rate=1e-3, batch=256, patience=10)


class Effort(NamedTuple):
    """How hard a prior is fitted: `steps` at most, with these settings of training, from this seed."""

    steps: int = 3000
    seed: int = 0
    training: Training = USUAL


def book() -> Registry[Entry]:
    """Every prior that can be fitted, by name: those made for it, and those of real vectors that recipes train."""
    found: Registry[Entry] = Registry("prior to fit")
    for name, build in [*FITTED.items(), *((n, over_vectors(b)) for n, b in PRIORS.items() if n not in FITTED)]:
        found.add(name, Entry(name, cast(Any, build), "fitted", "", "", "none", ANY, what="prior"))
    return found


def prior_call(text: str) -> Call:
    """`gmm:components=10` to a call; raises UsageError, with 'did you mean', on an unknown prior, keyword or value."""
    return parse(text, book())


@singledispatch
def slot(model: nn.Module) -> str:
    """The name of the part that is p(z) alone, or nothing. Open; unless told, it is the part called `prior`."""
    return "prior" if "prior" in dict(model.named_children()) else ""


@slot.register
def _(model: M2) -> str:
    return ""  # where the class is not given it is a latent, too


class Asked(nn.Module):
    """Stands in for a prior while a model dreams, and notes whether it was ever told something."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior, self.told = prior, False

    def forward(self, *contexts: Any) -> Distribution:
        """What the prior says."""
        self.told = self.told or bool(contexts)
        found: Distribution = self.prior(*contexts)
        return found


@torch.no_grad()
def latent_of(model: Model) -> str:
    """The one latent site whose prior is the part in the model's slot, asked without a condition; nothing where it is not so."""
    name = slot(model)
    if not name:
        return ""
    old, device = model.get_submodule(name), device_of(model)
    asked = Asked(old)
    setattr(model, name, asked)
    try:
        with forked(device):
            sites = {n: d.prior for n, d in model.generate(1).items() if n not in model.observed}
            alone: Distribution = old()
    except (TypeError, KeyError, VaestroError):  # a prior of something, or a model that dreams of nothing without a condition
        return ""
    finally:
        setattr(model, name, old)
    if asked.told or len(sites) != 1 or len(alone.batch_shape) or not replaceable(alone):
        return ""
    site, prior = next(iter(sites.items()))
    return site if type(prior) is type(alone) and prior.event_shape == alone.event_shape else ""


def able(schema: Schema) -> Iterator[str]:
    """The recipes whose prior can be fitted later, of those that fit these data, the plainest first."""
    groups = ("basic", "priors")
    order = sorted(RECIPES, key=lambda n: groups.index(RECIPES[n].group) if RECIPES[n].group in groups else len(groups))
    return (name for name in order if "reconstruction" not in RECIPES[name].lacks and _able(name, schema))


def _able(name: str, schema: Schema) -> bool:
    try:
        return bool(latent_of(parse(name).cook(schema).model.eval()))
    except (VaestroError, RuntimeError):
        return False


def require_slot(model: Model, call: str, schema: Schema) -> str:
    """The latent site of a model with one prior slot; raises UsageError for another, naming some recipes that have one."""
    site = latent_of(model)
    if not site:
        few = ", ".join(islice(able(schema), NEAR))
        raise UsageError(f"{call} has not exactly one prior over vectors or codes, free of conditions, to replace; recipes that have one: {few}")
    return site


def with_prior(model: Model, call: Call, schema: Schema) -> nn.Module:
    """A fresh prior of `call` in the model's slot, and nothing else changed; raises UsageError where it does not suit the latents."""
    name = slot(model)
    old = model.get_submodule(name)
    latents = Latents(tuple(old().event_shape), old, dict(model.named_children()).get("posterior", model), schema["x"])
    prior: Any = call.entry.build(latents, **call.keywords)
    assert isinstance(prior, nn.Module), "a builder of priors returns a module"
    setattr(model, name, prior)
    return prior


def rebuild(recipe: Recipe, stages: Sequence[Mapping[str, Any]], schema: Schema) -> Recipe:
    """The recipe with the priors of its later stages in place, without their weights; raises UsageError for a prior that is not known here."""
    fitted = [stage for stage in stages if "prior" in stage]
    known = book() if fitted else {}
    for stage in fitted:
        name = str(stage["prior"]).partition(":")[0]
        if name not in known:
            raise UsageError(f"the run's prior is {name!r}, which is not known here{did_you_mean(name, known)}; name the file that registers it with --from")
        with forked():
            with_prior(recipe.model, parse(f"{name}:" + ",".join(f"{k}={v}" for k, v in stage["keywords"].items()), known), schema)
    return recipe


def encode(model: Model, rows: Rows, site: str, draws: int, seed: int) -> Tensor:
    """`draws` latents z ~ q(z | x) of every row, [draws * rows, *event], under a seed; the rows are read anew for each, so that binary ones are drawn anew."""
    found = []
    with forked(rows.device), evaluating(model):
        for number in range(draws):
            for i, index in enumerate(torch.arange(rows.rows, device=rows.device).split(AT_ONCE)):
                torch.manual_seed(mix(seed, number, i))
                trace = model(rows.batch(index))
                if list(trace.latents) != [site]:
                    held = f"the latents {', '.join(trace.latents)}" if trace.latents else "no posterior"
                    raise UsageError(f"the model has {held}, and a prior is fitted to one alone; use a recipe such as vae")
                found.append(trace[site].value[0])
    return torch.cat(found).clone()  # outside of inference, so that gradients may pass


def draws_for(rows: int) -> int:
    """How often each row is drawn: enough for a fit, and no more than sixteen times."""
    return max(1, min(MOST_DRAWS, -(-ENOUGH // rows)))


@torch.no_grad()
def log_density(prior: nn.Module, z: Tensor) -> float:
    """The mean of log p(z) over latents [n, *event], in nats."""
    dist: Distribution = prior()
    return float(torch.cat([dist.log_prob(part) for part in z.split(SCORED)]).double().mean())


@torch.no_grad()
def merit(prior: nn.Module, z: Tensor) -> float:
    """Minus the mean of the prior's own lesson over latents [n, *event]: the mean of log p(z), unless its type is taught otherwise; nats."""
    return -float(torch.cat([lesson(prior, part) for part in z.split(SCORED)]).double().mean())


def descend(prior: nn.Module, rows: Tensor, held: Tensor, how: tuple[Effort, Watch]) -> dict[str, Any]:
    """Descent on the prior's `lesson` at latents `rows`; keeps the numbers that were best on `held`, and stops when these get no better."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        z = batch["z"]
        assert isinstance(z, Tensor)
        yield Move("prior", lesson(parts["prior"], z))

    effort, watch = how
    training, z = effort.training, held[torch.randperm(len(held), device=held.device)[:SCORED]]
    loop = Loop(Recipe(nn.ModuleDict({"prior": prior}), play, {"prior": ("prior",)}, training), effort.seed, effort.steps, rows.device)
    batches = Batches(len(rows), training.batch, effort.seed, rows.device)
    best, kept, waited, every = merit(prior, z), _copied(prior), 0, max(1, effort.steps // CHECKS)
    while loop.n < effort.steps and (training.patience is None or waited < training.patience):
        index = batches.batch_index(loop.n)
        loop.step(lambda index=index: {"z": rows[index]})  # type: ignore[misc]
        if loop.n % every and loop.n < effort.steps:
            continue
        with loop.averaged():
            now = merit(prior.eval(), z)
            better = now > best
            best, kept, waited = (now, _copied(prior), 0) if better else (best, kept, waited + 1)
        prior.train()
        watch({"step": loop.n, "total": effort.steps, "merit": now, "best": best, **loop.flush()})
    with torch.no_grad():
        for name, w in weights(prior).items():
            w.copy_(kept[name])
    return {"steps": loop.n}


def _copied(prior: nn.Module) -> dict[str, Tensor]:
    return {n: w.clone() for n, w in weights(prior).items()}


def fit_latents(prior: nn.Module, sets: tuple[Rows, Tensor, Tensor], effort: Effort, watch: Watch) -> dict[str, Any]:
    """Fit a prior to (rows of the data, latents of training rows, latents of validation rows), and say how; the generators are left as they were."""
    data, rows, held = sets
    with forked(data.device):
        torch.manual_seed(mix(effort.seed, 11))
        look = data.batch(torch.randperm(data.rows)[:LOOK].to(data.device))
        for part in prior.modules():
            prepare(part, look)

        def by_gradients(part: nn.Module) -> dict[str, Any]:
            return descend(part, _shaped(rows, part), _shaped(held, part), (effort, watch))

        told = fit(prior.to(data.device).train(), rows, held, by_gradients)
    prior.eval()
    return told


def _shaped(z: Tensor, prior: nn.Module) -> Tensor:
    """Latents as events of a prior that may stand inside another."""
    return z.reshape(len(z), *prior().event_shape)
