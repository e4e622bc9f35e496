"""One process for one job: train it or go on with it, score it, write its result."""

import json
import traceback
from pathlib import Path
from typing import Any

import torch

from vaestro.arena import result as results
from vaestro.arena.challenge import Challenge, Tier
from vaestro.arena.entry import FEATURES, RESULTS, Job, call_of_job, challenge_of_job
from vaestro.arena.result import About, Paper, Result, Source, cells, printable
from vaestro.arena.scoring import score, speed
from vaestro.errors import VaestroError
from vaestro.recipes import RECIPES
from vaestro.recipes.book import Entry
from vaestro.training import runs
from vaestro.training.device import machine
from vaestro.training.files import vanish
from vaestro.training.process import alone
from vaestro.training.runs import ABOUT, Run, read_about, trainable
from vaestro.training.train import Plan


def do(job: Job) -> Result:
    """Bring a job to its result, from wherever it stands; what goes wrong in it becomes a failed result with its reason."""
    if job.result.is_file():
        return results.read(job.result)
    try:
        return _scored(job)
    except VaestroError as error:
        return failed(job, str(error))
    except Exception as error:  # an entrant's code may raise anything, and the others must go on
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text(printable(traceback.format_exc()), encoding="utf-8")
        first = (str(error).strip().splitlines() or ["no words"])[0]
        return failed(job, f"{type(error).__name__}: {first} (the trace stands in {job.log.parent.name}/{job.log.name})")


def _scored(job: Job) -> Result:
    challenge = challenge_of_job(job)
    tier, call = challenge.rules.tier(job.tier), call_of_job(job)
    data = challenge.open_data()
    plan = Plan(call, data, tier.budget, job.seed)
    require_small(plan, tier)
    run = trained(job, plan, challenge)
    if beyond := tier.excess(run.about["done_steps"], run.about["seconds"], run.about["parameters"]):
        raise VaestroError(f"{call} is beyond its budget: {beyond}")
    torch.set_num_threads(run.about["threads"])  # those that training chose, also where a later process scores
    report, rows, show = score(run, data, challenge, tier, Path(job.folder) / FEATURES)
    found, refused = cells(report)
    more = {
        "metrics": found, "refused": refused, "parameters": run.about["parameters"], "steps": run.about["done_steps"], "planned": run.about["steps"],
        "seconds": run.about["seconds"],
        "samples_per_second": speed(run), "weights_sha256": run.about["weights_sha256"], "machine": machine(), "keywords": run.about["keywords"],
    }  # fmt: skip
    result = blank(job, challenge).model_copy(update={"status": "done", "reason": run.about["ended"], **more})
    return results.write(Path(job.folder) / RESULTS, result, rows, show)


def require_small(plan: Plan, tier: Tier) -> None:
    """Raises VaestroError where the entrant has more parameters than the tier allows, before anything is trained."""
    if tier.parameters is None:
        return
    found = trainable(plan.call.cook(plan.data.schema, plan.seed))
    if found > tier.parameters:
        raise VaestroError(f"{plan.call} trains {found:,} parameters, and the tier allows {tier.parameters:,}; enter it with smaller hidden or latents")


def trained(job: Job, plan: Plan, challenge: Challenge) -> Run:
    """The finished run of a job: opened, taken up where it stopped, or trained, anew where the user's file has changed since.

    Raises VaestroError where its folder holds a run of something else.
    """
    folder = job.run_folder
    about = read_about(folder) if (folder / ABOUT).is_file() else None
    if about is not None and job.own is not None and ((about.get("arena") or {}).get("own") or {}).get("sha256") != job.own.sha256:
        vanish(folder)
        about = None
    if about is None:
        return runs.train(plan, folder, source=challenge.source, more={"arena": job.to_json()})
    require_its_own(about, plan, folder)
    if about["status"] == "done":
        return runs.open_run(folder, plan.call)
    return runs.resume(folder, data=plan.data, call=plan.call)


def require_its_own(about: dict[str, Any], plan: Plan, folder: Path) -> None:
    """Raises VaestroError where a run that lies in a job's folder is of another call, seed, budget or data."""
    budget = {"steps": plan.budget.steps, "seconds": plan.budget.seconds}
    due = {"call": str(plan.call), "seed": plan.seed, "budget": budget, "data hash": plan.data.sha256}
    held = {"call": about["call"], "seed": about["seed"], "budget": {n: about["budget"][n] for n in budget}, "data hash": about["data"]["sha256"]}
    for what, value in due.items():
        if held[what] != value:
            raise VaestroError(f"{folder} holds a run of another {what} ({held[what]!r}, not {value!r}); `vaestro arena run --retry` trains it anew")


def blank(job: Job, challenge: Challenge) -> Result:
    """A result that says what was run and nothing of how it went."""
    rules = challenge.rules
    about = About(name=rules.name, version=rules.version, tier=job.tier, sha256=rules.sha256(job.tier), data=rules.data.sha256)
    own = None if job.own is None else Source(file=Path(job.own.file).name, function=job.own.function, sha256=job.own.sha256)
    paper = next((_paper(e) for e in RECIPES.values() if e.name == job.call.partition(":")[0]), Paper())
    return Result(format=1, id=job.id, challenge=about, call=job.call, keywords={}, recipe=paper, seed=job.seed, status="failed", own=own)


def _paper(entry: Entry) -> Paper:
    return Paper(summary=entry.summary, paper=entry.paper, formula=entry.formula, published=entry.published)


def failed(job: Job, reason: str) -> Result:
    """The result of a job that broke."""
    result = blank(job, challenge_of_job(job)).model_copy(update={"reason": printable(reason)})
    return results.write(Path(job.folder) / RESULTS, result, {}, {})


def work(line: str) -> None:
    """Do the job that a line of JSON describes."""
    job = Job.from_json(json.loads(line))
    torch.set_num_threads(job.threads)
    with alone(job.run_folder.parent / f".{job.id}.lock"):
        do(job)
