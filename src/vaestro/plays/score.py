"""Plays and answers for draws without a path: latents are drawn, held fixed, and scored."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, Choose, Draw, Model, Shape, Site, Trace, Value, content, observe, partial_log_prob, run, scores, take
from vaestro.errors import UsageError
from vaestro.objectives.evidence import Objective
from vaestro.objectives.gradients import log_q, reinforce
from vaestro.plays.moves import Clock, Move, Play, terms_of


def _log_q(site: str, q: Distribution, value: Tensor, seen: Tensor | bool) -> Tensor:
    """log q of a value held fixed, 0 where it was given."""
    if not scores(q):
        raise UsageError(f"the posterior of {site!r} ({type(q).__name__}) cannot score a value held fixed; use one that follows its draws, such as iwae")
    score: Tensor = q.log_prob(value)
    return score if isinstance(seen, bool) else torch.where(seen, 0.0, score)


def without_path(lead: Shape, given: Mapping[str, Value]) -> Choose:
    """Answers as `sampling` does, with the same random numbers; but latents carry no gradient, so that only the scores of p and q do.

    Raises UsageError for a posterior that cannot score a value held fixed.
    """

    def choose(site: Site) -> Draw:
        if site.posterior is None:
            return take(site, lead, given.get(site.name))
        with torch.no_grad():
            drawn = take(site, lead, given.get(site.name))
        return drawn._replace(log_p=site.prior.log_prob(drawn.value), log_q=_log_q(site.name, site.posterior, drawn.value, drawn.seen))

    return choose


def holding(trace: Trace) -> Choose:
    """Answers every site with the value that it took in `trace`, held fixed and scored anew on both sides, 0 where it was given or only imagined.

    Raises UsageError for a posterior that cannot score a value held fixed.
    """

    def choose(site: Site) -> Draw:
        value, seen = trace[site.name].value.detach(), trace[site.name].seen
        if site.posterior is not None:
            return Draw(value, site.prior, site.posterior, site.prior.log_prob(value), _log_q(site.name, site.posterior, value, seen), seen)
        if isinstance(seen, bool):
            return Draw(value, site.prior, None, site.prior.log_prob(value) if seen else 0.0, 0.0, seen)
        by_row = seen.dim() == 1
        log_p = torch.where(seen, site.prior.log_prob(value), 0.0) if by_row else partial_log_prob(site.prior, value, seen)
        return Draw(value, site.prior, None, log_p, 0.0, seen)

    return choose


def scored(objective: Objective, samples: int = 1) -> Play:
    """One player, `samples` draws without a path: for `vimco`, `reinforce` and `tvo`, and the same for latents that are discrete as for others."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, samples, choosing=without_path)
        yield Move("model", objective(trace), terms_of(trace), trace)

    return play


class Baseline(nn.Module):
    """What log w is expected to be, before z is drawn: its running mean c plus a network's C(x), [b] in nats (Mnih & Gregor 2014, section 2.3).

    `net` returns one number a row. The running mean is taken from the trace of each step, over `decay` of the past, and is saved with the weights.
    """

    mean: Tensor
    steps: Tensor

    def __init__(self, net: nn.Module, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UsageError(f"a running mean keeps a share of its past, and decay = {decay} is not in [0, 1)")
        self.net, self.decay = net, decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """The expected log w of each row, [b]."""
        guess: Tensor = self.net(x).flatten()
        return self.mean + guess

    @torch.no_grad()
    def watch(self, log_w: Tensor) -> None:
        """Move the running mean towards this batch's; the first batch sets it, and one that is not finite is left out."""
        now = log_w.mean().to(self.mean.dtype)
        fine = now.isfinite()
        self.steps.add_(fine)
        self.mean.lerp_(torch.where(fine, now, 0.0), torch.where(fine, self.steps.reciprocal().clamp(min=1 - self.decay), 0.0))


@observe.register
def _(part: Baseline, trace: Trace) -> None:
    part.watch(trace.log_w.detach())


def nvil(samples: int = 1) -> Play:
    """Two players: the model follows `reinforce` of what the `Baseline` expects, which is the part "baseline" and learns to expect log w by least squares.

    The baseline's loss is (mean_k log w - C(x) - c)^2 in squared nats; it sees x alone, so the model's gradient is unbiased. Mnih & Gregor 2014, algorithm 1.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        baseline = parts["baseline"]
        trace = parts["model"](batch, samples, choosing=without_path)
        expected = baseline(content(batch["x"])).detach()
        signal = (trace.log_w - expected).detach().square().mean().sqrt()
        yield Move("model", reinforce(expected)(trace), {**terms_of(trace), "signal": signal}, trace)
        yield Move("baseline", (trace.log_w.detach().mean(0) - baseline(content(batch["x"]))).square())

    return play


def rescored(model: Model, batch: Batch, trace: Trace) -> Trace:
    """The trace again, its values held fixed: `holding` over the model's program."""
    return run(model.program(batch), holding(trace))


def held_score(model: Model, batch: Batch, trace: Trace) -> Tensor:
    """log q of the values of `trace` held fixed, [k, b] in nats. One latent needs no second run, for its posterior depends on no other draw."""
    if len(trace.latents) > 1:
        return log_q(rescored(model, batch, trace))
    ((name, d),) = trace.latents.items()
    assert d.posterior is not None, "a latent has a posterior"
    return _log_q(name, d.posterior, d.value.detach(), d.seen)
