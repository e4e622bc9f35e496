"""One self-contained page of an arena: the board, what every entry is and does, and the protocol; no script, no font, no request."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from vaestro.arena import page, plots
from vaestro.arena import result as results
from vaestro.arena.board import Board, Entry, board, load
from vaestro.arena.figures import intervals
from vaestro.arena.folder import Arena, open_arena
from vaestro.arena.words import headline, smallest
from vaestro.training.files import write_bytes

PAIRED = "Intervals are of each entry alone; ranks stand on differences row by row, so two entries whose intervals overlap can still be told apart."


def report(folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of an arena's folder, by default `report.html` in it, and return its path.

    It stands on the result files alone. Raises as `board` does, and VaestroError where `out` cannot be written.
    """
    arena = open_arena(folder)
    path = arena.folder / "report.html" if out is None else Path(out)
    write_bytes(path, html(arena).encode())
    return path


def html(arena: Arena) -> str:
    """The page."""
    made = board(arena.folder)
    entries = {e.result.id: e for e in (load(arena, p) for p in arena.results)}
    shows = {i: results.arrays(arena.folder / "results", e.result, "show") for i, e in entries.items() if e.result.status == "done"}
    style = (files("vaestro.arena") / "report.css").read_text(encoding="utf-8")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"{meta}<title>{escape(made.title)}</title><style>{style}</style>"
    own = list(entries.values())
    parts = [_top(made), page.plain(made, own), _table(arena, made), _figures(made, own, shows), page.criteria_table(made, own)]
    body = "\n".join([*parts, _entries(arena, made, entries, shows), page.protocol(arena, made, entries)])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _top(made: Board) -> str:
    badge = ' <span class="badge">demonstration</span>' if "demonstration" in made.label else ""
    return (
        f'<p class="kicker">vaestro arena &middot; {escape(made.challenge)}, version {escape(made.version)} &middot; tier {escape(made.tier)}{badge}</p>'
        f'<h1>{escape(made.title)}</h1><p class="note">{escape(made.label[:1].upper() + made.label[1:])}.</p>'
        f'<p class="lead">{escape(headline(made))}</p><p class="note">{escape(smallest(made))}</p>'
    )


def _table(arena: Arena, made: Board) -> str:
    """The board with the columns of all tiers, and below it those of this tier alone, a table for each kind of them."""
    drawn = f'<p class="note">{escape(made.rule)} {PAIRED}</p><div class="scroll">{intervals(made)}</div>'
    return f"<h2>The board</h2>{drawn}{page.table(made, arena.challenge.rules.metrics)}{page.more(made, arena.challenge.rules.metrics)}"


def _figures(made: Board, entries: Sequence[Entry], shows: Mapping[str, page.Arrays]) -> str:
    """Entries in planes, and scores by class where rows have labels."""
    planes = plots.rate_distortion(made) + plots.quality_and_time(made)
    found = plots.labels_of(list(shows.values()), made.rows)
    classes = plots.by_class(made, entries, *found) if found else ""
    if not planes + classes:
        return ""
    hollow = '<p class="note">Bars are 95 % intervals; hollow points are classical rows.</p>' if planes else ""
    return f'<h2>In pictures</h2><div class="planes">{planes}</div>{hollow}{classes}'


def _entries(arena: Arena, made: Board, entries: Mapping[str, Entry], shows: Mapping[str, page.Arrays]) -> str:
    cards = []
    for line in made.lines:
        own = [entries[i].result for i in line.ids]
        cards.append(page.card(arena, made, line, own, {r.seed: shows[r.id] for r in own if r.id in shows}))
    return f"<h2>The entries</h2>{''.join(cards)}"
