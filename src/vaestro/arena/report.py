"""One self-contained page of an arena: the board, what every entry is and does, and the protocol; no script, no font, no request."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

from vaestro.arena import page
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
    style = (files("vaestro.arena") / "report.css").read_text(encoding="utf-8")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"{meta}<title>{escape(made.title)}</title><style>{style}</style>"
    body = "\n".join([_top(made), _table(made), page.best(made), _entries(arena, made, entries), page.protocol(arena, made, entries)])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def _top(made: Board) -> str:
    badge = ' <span class="badge">demonstration</span>' if "demonstration" in made.label else ""
    return (
        f'<p class="kicker">vaestro arena &middot; {escape(made.challenge)}, version {escape(made.version)} &middot; tier {escape(made.tier)}{badge}</p>'
        f'<h1>{escape(made.title)}</h1><p class="note">{escape(made.label[:1].upper() + made.label[1:])}.</p>'
        f'<p class="lead">{escape(headline(made))}</p><p class="note">{escape(smallest(made))}</p>'
    )


def _table(made: Board) -> str:
    return f'<h2>The board</h2><p class="note">{escape(made.rule)} {PAIRED}</p><div class="scroll">{intervals(made)}</div>{page.table(made)}'


def _entries(arena: Arena, made: Board, entries: Mapping[str, Entry]) -> str:
    cards = []
    for line in made.lines:
        own = [entries[i].result for i in line.ids]
        shows = {r.seed: results.arrays(arena.folder / "results", r, "show") for r in own if r.status == "done"}
        cards.append(page.card(arena, made, line, own, shows))
    return f"<h2>The entries</h2>{''.join(cards)}"
