"""Challenges and arenas, in words and by name."""

from pathlib import Path
from typing import Any

from vaestro.arena import CHALLENGES, load_challenge
from vaestro.arena.challenge import FILE, Tier
from vaestro.arena.folder import ARENA
from vaestro.errors import UsageError

ARENAS = Path("arena")


def challenge_card(name: str) -> dict[str, Any]:
    """All that is known of a challenge: what it is, its data, its headline rule, metrics, entrants and tiers."""
    rules = load_challenge(name).rules
    return {
        "name": rules.name,
        "title": rules.title,
        "about": rules.about,
        "version": rules.version,
        "data": f"{rules.data.source}; {rules.data.binarisation}",
        "headline": f"{rules.headline.metric}: {rules.headline.rule}",
        "metrics": list(rules.metrics),
        "entrants": list(rules.entrants),
        "published": [f"{p.name}: {p.value:g} {p.unit} ({p.source})" for p in rules.published],
        **{f"tier {name}": _tier(tier) for name, tier in rules.tiers.items()},
    }


def is_challenge(path: str) -> bool:
    """Whether a path is a folder with a `challenge.toml`, or such a file."""
    place = Path(path).expanduser()
    return (place / FILE).is_file() or (place.suffix == ".toml" and place.is_file())


def _tier(tier: Tier) -> str:
    told = f"{tier.label}: {len(tier.seeds)} seeds, {_budget(tier.seconds, tier.steps)} a run, {tier.rows:,} rows x {tier.samples:,} samples"
    more = (("enters", tier.entrants), ("measures", tier.metrics))
    return "; also ".join([told, *(f"{does} {', '.join(what)}" for does, what in more if what)])


def _budget(seconds: float | None, steps: int | None) -> str:
    return f"{steps:,} steps" if seconds is None else f"{seconds:g} seconds"


def challenge_rows() -> list[dict[str, Any]]:
    """The challenges that come with the package."""
    return [challenge_card(name) for name in CHALLENGES]


def arena_folder(folder: Path | None) -> Path:
    """The arena that is meant: a folder, a name inside ./arena, or the newest there; raises UsageError where there is none."""
    if folder is not None:
        return folder if folder.exists() or not (ARENAS / folder).is_dir() else ARENAS / folder
    found = sorted(ARENAS.glob(f"*/{ARENA}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UsageError("there is no arena in ./arena; `vaestro arena run CHALLENGE` makes one, or name its folder")
    return found[-1].parent
