"""What is wrong with a run, why, and what to try: measured on held-out rows, said in plain words."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaestro.codes import used_in
from vaestro.core import Batch, Draw, Model, Site, Trace, normalised, run
from vaestro.data.rows import Rows
from vaestro.data.schema import Binary, Count
from vaestro.evaluation.metrics import METRICS, Subject, active, high_power
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.recipes.book import NATS
from vaestro.seeds import forked
from vaestro.training.finding import by_name
from vaestro.training.monitor import FEW, informative, kl_by_dimension, shares
from vaestro.training.record import Line
from vaestro.training.runs import Run

ROWS = 1000
HELD = 0.1  # gradients a step that may be longer than `skip` without being a fault; each player has one or more


class Finding(NamedTuple):
    """One thing that is wrong: its name, what shows it, and what to try."""

    name: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Signs:
    """What the diagnosis stands on."""

    rows: int
    latents: int
    active_units: int  # latents whose posterior mean moves with the data
    informative: int  # latents that carry 0.1 nats a row or more
    kl: float | None  # nats a row; none where the posterior is a point
    kl_per_dimension: dict[str, list[float]]  # by site, nats, where it splits into dimensions
    gain: float | None  # nats a row that the decoder loses when it is given another row's latents; none where what it says are no nats
    off_prior: float  # nats a latent by which encoded rows are less likely under the prior than its own draws
    sharpness: float | None  # power of reconstructions at high frequencies over the data's; none where that says nothing
    sample_sharpness: float | None
    skipped: int
    log: list[Line]
    codes_used: float | None = None  # the share of all codes that the rows use; none without codes
    perplexity: float | None = None  # of the codes' frequencies: as many codes, used evenly, would tell as much
    spread: float | None = None  # of a model without latents of rows: how far apart its samples lie, over how far apart rows do
    unit: str = NATS  # of the log's validation
    best_kept: bool = False  # whether the weights are those of the best validation, whatever came after


@dataclass(frozen=True)
class Diagnosis:
    """The signs and the findings; no findings means that nothing was found, not that all is proven well."""

    signs: Signs
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the log."""
        return {"signs": {k: v for k, v in asdict(self.signs).items() if k != "log"}, "findings": [f._asdict() for f in self.findings]}


@by_name
def diagnose(run: Run, rows: int = ROWS) -> Diagnosis:
    """Measure a run on validation rows and say what is wrong with it, why and what to try."""
    device = device_of(run.model)
    data = run.data()
    held_out = Rows(data.split("validation"), data.schema, run.recipe.fields, device)
    signs = examine(run.model, held_out, min(rows, held_out.rows), run)
    return Diagnosis(signs, tuple(f for rule in RULES for f in rule(signs)))


def examine(model: Model, held_out: Rows, rows: int, of: Run) -> Signs:
    """All signs of one model; random numbers and the model's mode are left as they were."""

    def batches() -> Iterable[Batch]:
        return (held_out.batch(i) for i in torch.arange(rows).split(250))

    subject = Subject(model, batches, of.field)
    clear = len(of.field.shape) == 3 and not isinstance(of.field.kind, Binary | Count)  # elsewhere the data's noise is most of their fine detail
    with forked(held_out.device), evaluating(model):
        torch.manual_seed(0)
        batch = held_out.batch(torch.arange(rows))
        trace = model(batch)
        if not trace.latents:
            return unencoded(model, trace, of)
        gain = float((trace.log_px - shuffled(model, batch, trace).log_px).mean()) if normalised(trace["x"].prior) else None
        off = off_prior(model, trace)
        drawn = high_power(model.generate(250)["x"].prior.mean) if clear else None
        kl, nats = (kl_by_dimension(trace), float(trace.kl.mean())) if trace.normalised else ({}, None)
    sharp = None if drawn is None else METRICS["blur"].function(subject).value
    data_power = subject.reconstructions.high_data.mean() if sharp is not None else 1.0
    means = subject.reconstructions.means
    latents, units = means.shape[1], int(active(means).sum())
    used = shares([used_in(trace)])
    return Signs(
        rows, latents, units, informative(latents, units, kl.values(), nats), nats,
        {n: k.tolist() for n, k in kl.items()}, gain, off,
        sharp, None if sharp is None or drawn is None else float(drawn.mean()) / float(data_power), int(of.about.get("skipped", 0)), of.log(),
        used.get("codes_used"), used.get("perplexity"), unit=unit_in(of), best_kept=keeps_best(of),
    )  # fmt: skip


def unencoded(model: Model, trace: Trace, of: Run) -> Signs:
    """The signs of a model without a posterior: there are only its samples to look at."""
    rows = trace["x"].value.flatten(1)
    made = model.generate(len(rows))["x"].value.flatten(1)
    spread = float(torch.pdist(made).mean() / torch.pdist(rows).mean()) if len(rows) > 1 else None
    return Signs(
        len(rows),
        0,
        0,
        0,
        None,
        {},
        None,
        0.0,
        None,
        None,
        int(of.about.get("skipped", 0)),
        of.log(),
        spread=spread,
        unit=unit_in(of),
        best_kept=keeps_best(of),
    )


def unit_in(of: Run) -> str:
    """What a run's validation counts in."""
    return str(of.about.get("unit", NATS))


def keeps_best(of: Run) -> bool:
    """Whether a run's weights are those of its best validation."""
    return of.recipe.training.patience is not None


def shuffled(model: Model, batch: Batch, trace: Trace) -> Trace:
    """The same rows scored with the latents of their neighbours."""
    values = {n: d.value.roll(1, d.value.dim() - len(d.prior.event_shape) - 1) if n in trace.latents else d.value for n, d in trace.items()}
    return run(model.program(batch), lambda site: held(site, values[site.name]))


def held(site: Site, value: Tensor) -> Draw:
    """A site at a value, scored under its prior alone: not every posterior can score a stranger's."""
    return Draw(value, site.prior, site.posterior, site.prior.log_prob(value), 0.0, site.posterior is None)


def off_prior(model: Model, trace: Trace) -> float:
    """E_p[log p(z)] - E_q[log p(z)] for each latent: 0 where encoded rows look like draws of the prior."""
    dreams = model.generate(len(trace.log_px[0]))
    nats, latents = 0.0, 0
    for name, d in trace.latents.items():
        dream = dreams[name]
        nats += float(dream.prior.log_prob(dream.value).mean() - d.prior.log_prob(d.value).mean())
        latents += d.prior.event_shape.numel()
    return nats / max(latents, 1)


def collapse(s: Signs) -> Iterable[Finding]:
    """Latents that the posterior does not use."""
    if s.informative >= FEW * s.latents:
        return
    few = f"{s.informative or 'none'} of {s.latents} latents" + (" carry 0.1 nats or more" if s.kl is not None else " move with the data")
    pays = "" if s.kl is None else f" (KL {s.kl:.1f} nats a row in all)"
    yield Finding(
        "posterior collapse",
        f"{few}{pays}: for the latents the KL charges more than the likelihood pays for what they could tell",
        f"use fewer latents ({2 * s.informative or 16}, say), warm_up=0.2, a smaller beta, free_bits_vae, "
        "or, if the data are not binary, a likelihood with a learned scale (likelihood=gaussian)",
    )


def dead(s: Signs) -> Iterable[Finding]:
    """A code book of which little is used."""
    if s.codes_used is not None and s.codes_used < FEW:
        yield Finding(
            "dead codes",
            f"{s.rows:,} rows use {s.codes_used:.0%} of the codes, and as unevenly as {s.perplexity:.0f} even ones: the rest is paid for and tells nothing",
            "fewer codes or classes (codes=64, say), longer training, a higher revive (0.1), running means (decay=0.99) in place of decay=none, "
            "or fsq_vae, which has no book to die",
        )


def ignored(s: Signs) -> Iterable[Finding]:
    """A decoder that does without its latents."""
    if s.gain is not None and s.gain < 1.0:
        yield Finding(
            "the decoder ignores z",
            f"giving a row the latents of another costs only {s.gain:.2f} nats: the output hardly depends on them",
            "weaken the decoder or strengthen what the latents earn: warm_up=0.2, a smaller beta, free_bits_vae, or train longer",
        )


def narrow(s: Signs) -> Iterable[Finding]:
    """Samples that are all alike."""
    if s.spread is not None and s.spread < 0.7:
        yield Finding(
            "mode collapse",
            f"samples lie {s.spread:.0%} as far apart as rows do: they miss a part of the data",
            "a larger penalty on the critic's slope (10), a lower learning_rate, longer training, or a model that pays for every row, such as vae",
        )


def off(s: Signs) -> Iterable[Finding]:
    """Encoded rows that are nothing like draws of the prior, so that generation starts where no data are."""
    if abs(s.off_prior) > 0.25:
        yield Finding(
            "latents off the prior",
            f"encoded rows are {abs(s.off_prior):.2f} nats a latent {'less' if s.off_prior > 0 else 'more'} likely under the prior than its own draws, "
            "so samples start where no data are",
            "train longer, raise beta to 1, use a learned prior (vamp, gmm_prior), or fit one to this run (vaestro fit-prior RUN gmm); "
            "a plain autoencoder has no prior to follow: use vae",
        )


def blurred(s: Signs) -> Iterable[Finding]:
    """Pictures without their fine detail."""
    if s.sharpness is not None and s.sharpness < 0.5:
        made = "" if s.sample_sharpness is None else f", samples {s.sample_sharpness:.0%}"
        yield Finding(
            "blur",
            f"reconstructions keep {s.sharpness:.0%} of the data's power at high spatial frequencies{made}",
            "more latents or a larger network, likelihood=logistic_mixture in place of a Gaussian of fixed scale, a smaller beta, "
            "a hierarchy (top_down), or vae_gan",
        )


def broken(s: Signs) -> Iterable[Finding]:
    """Gradients that were not finite, or a loss that ran away."""
    if s.skipped:
        yield Finding(
            "instability",
            f"{s.skipped} gradients were infinite or NaN, and moved nothing",
            "lower learning_rate, set clip=10, or look for broken values in the data",
        )
    held = max((line.get("too_large", 0) for line in s.log), default=0)
    if s.log and held > HELD * s.log[-1]["step"]:
        told = f"{held} gradients in {s.log[-1]['step']} steps were longer than skip, and moved nothing"
        yield Finding("held back", told, "raise skip, or lower learning_rate")
    scores = [line["validation"] for line in s.log if "validation" in line]
    if len(scores) > 2 and scores[-1] > scores[0] and not s.best_kept:
        yield Finding(
            "divergence",
            f"validation went from {scores[0]:.5g} to {scores[-1]:.5g} {s.unit}: training made it worse",
            "lower learning_rate by ten, or set clip=10",
        )


def fit(s: Signs) -> Iterable[Finding]:
    """Too much or too little training."""
    scores = [line["validation"] for line in s.log if "validation" in line]
    if len(scores) < 5:
        return
    best, last = min(scores), scores[-1]
    size = max(abs(best), 1.0)
    if last > scores[0]:
        return
    fell = scores[-1 - len(scores) // 5] - last
    if last - best > 0.01 * size:
        if not s.best_kept:
            yield Finding(
                "overfitting",
                f"validation was {best:.5g} {s.unit} at its best and ended at {last:.5g}",
                "stop early (patience=5), use a smaller network, or more data",
            )
    elif fell > 0.01 * size:
        yield Finding("stopped early", f"validation still fell by {fell:.3g} {s.unit} in the last fifth", "train longer: --seconds or --steps")


RULES: tuple[Callable[[Signs], Iterable[Finding]], ...] = (collapse, dead, ignored, narrow, off, blurred, broken, fit)
