"""The parts of the report's page."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from vaestro.arena.board import Board, Column, Entry, Line
from vaestro.arena.figures import SEEDS, curve, picture, scatter
from vaestro.arena.folder import Arena
from vaestro.arena.plain import Answer, answers, cautions, names
from vaestro.arena.result import Result
from vaestro.arena.text import notes, short
from vaestro.arena.verdicts import Standing, criteria, is_classical
from vaestro.arena.words import cell, half, number, place, winners
from vaestro.evaluation.metrics import METRICS
from vaestro.evaluation.metrics.base import Group

Arrays = Mapping[str, np.ndarray]
Shows = Mapping[int, Arrays]
FIRST = ("loss", "reconstruction", "kl", "validation", "active_units")  # terms, before the others
TINTED = "Tinted: the best mean of a column, which need not be significant. &plusmn; is half the width of a 95 % interval."
GREY = " Grey rows are published numbers under their own protocols; they are not ranked."
STATES = {"unranked": "not ranked", "incomplete": "not finished", "disqualified": "disqualified", "failed": "failed", "ranked": ""}


def table(made: Board, names: Sequence[str]) -> str:
    """Some columns as a table, the headline first; the best cell of each column is tinted, published rows are grey."""
    columns = [made.column(made.headline), *(c for c in made.columns if c.name in names and c.name != made.headline)]
    published = []
    for p in made.published:
        words = f'<td class="words" colspan="{max(len(columns) - 1, 1)}">{escape(p.protocol)}; {escape(p.source)}</td>'
        published.append(f'<tr class="published"><td class="entry">{escape(p.name)}</td><td></td><td>{p.value:g}</td>{words}</tr>')
    return f'{_columns(made, made.lines, columns, "".join(published))}<p class="note">{TINTED}{GREY if made.published else ""}</p>'


def more(made: Board, names: Sequence[str]) -> str:
    """The other columns that have a value, a table for each group of metrics, of the entries that have any of them."""
    rest = [c for c in made.columns if c.name not in names and any(c.name in line.values for line in made.lines)]
    tables = []
    for group in Group:
        columns = [c for c in rest if METRICS[c.name].group is group]
        lines = [line for line in made.lines if any(c.name in line.values for c in columns)]
        tables += [f"<h4>{group.value[:1].upper() + group.value[1:]}</h4>{_columns(made, lines, columns)}"] if columns else []
    return "".join(tables)


def _columns(made: Board, lines: Sequence[Line], columns: Sequence[Column], below: str = "") -> str:
    """A table that scrolls on a narrow screen."""
    best = {(title, line.call) for title, line, _ in winners(made)}
    rows = []
    for line in lines:
        cells = "".join(_cell(line, c.name, (c.title, line.call) in best) for c in columns)
        rank = place(line) or "&ndash;"
        rows.append(f'<tr><td class="entry"><a href="#{anchor(line)}">{escape(line.call)}</a></td><td>{rank}</td>{cells}</tr>')
    top = f'<thead><tr><th class="entry">entry</th><th>rank</th>{"".join(_head(c, made) for c in columns)}</tr></thead>'
    return f'<div class="scroll"><table>{top}<tbody>{"".join(rows)}{below}</tbody></table></div>'


def _head(c: Column, made: Board) -> str:
    words = f"{c.title} ({c.direction}): {c.protocol}"
    return f'<th title="{escape(words)}">{escape(short(c.name, made).replace("_", " "))}<small>{escape(c.unit)}</small></th>'


def _cell(line: Line, name: str, best: bool) -> str:
    if name not in line.values:
        return f'<td class="none" title="{escape(line.none.get(name, ""))}">none</td>'
    value = line.values[name]
    wide = half(value)
    error = "" if wide is None else f" <small>&plusmn;{number(wide, wide)}</small>"
    return f"<td{' class=best' if best else ''}>{number(value.mean, wide)}{error}</td>"


def anchor(line: Line) -> str:
    """The place of an entry in the page."""
    return escape(f"entry-{line.ids[0]}")


def plain(made: Board, entries: Sequence[Entry]) -> str:
    """Which entry is best for which job, in sentences, and what must be known beside them."""
    cards = "".join(_answer(a) for a in answers(made, entries))
    none = "<p>Fewer than two entries have all their runs, so nothing can be concluded yet.</p>"
    items = "".join(f"<li>{escape(c)}</li>" for c in cautions(made, entries))
    return f'<h2>Which entry for which job</h2><div class="answers">{cards or none}</div><h4>What these answers do not say</h4><ul class="plain">{items}</ul>'


def _answer(a: Answer) -> str:
    first, *rest = a.told
    body = "".join(f"<p>{escape(t)}</p>" for t in (first.removeprefix(f"{a.best.call}: "), *rest))
    return f'<section class="answer"><h3>{escape(a.job)}</h3><p class="note">{escape(a.what)}</p><p class="winner">{escape(a.best.call)}</p>{body}</section>'


def criteria_table(made: Board, entries: Sequence[Entry]) -> str:
    """The winner by every criterion, beside those that the data cannot tell from it and the best classical row."""
    rows = "".join(_criterion(made, s) for s in criteria(made, entries))
    if not rows:
        return ""
    head = "".join(f'<th class="words">{name}</th>' for name in ("criterion", "best", "value", "not told apart from it", "best classical row"))
    table = f'<table class="criteria"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    note = "By each criterion alone, paired and corrected by Holm over its own pairs; with many criteria some entry leads in one by chance."
    return f'<h2>Winners by criterion</h2><div class="scroll">{table}</div><p class="note">{note}</p>'


def _criterion(made: Board, s: Standing) -> str:
    column, row = made.column(s.metric), next((x for x in s.lines if is_classical(x.call)), None)
    level = s.level(s.best)
    told = "not tested" if s.better is None else names(level) if level else "nobody"
    classical = "none" if row is None else "it is one" if row is s.best else f"{row.call} ({cell(s.value(row))})"
    value = f"{cell(s.value(s.best))} {column.unit}"
    cells = (f"{column.title} ({column.direction})", s.best.call, value, told, classical)
    return "<tr>" + "".join(f'<td class="words">{f"<b>{escape(c)}</b>" if i == 1 else escape(c)}</td>' for i, c in enumerate(cells)) + "</tr>"


def card(arena: Arena, made: Board, line: Line, own: Sequence[Result], shows: Shows) -> str:
    """One entry: what it is, how it was made, what it draws, and how it learnt."""
    value = line.values.get(made.headline)
    head = (
        f'<header><span class="rank">{place(line) or STATES[line.state]}</span><h3>{escape(line.call)}</h3>'
        f'<span class="value">{escape(cell(value)) + " " + escape(made.column(made.headline).unit) if value else ""}</span></header>'
    )
    said = "".join(f'<p class="note">{escape(n)}</p>' for n in notes(made, line))
    kind = ' class="entrant failed"' if line.state == "failed" else ' class="entrant"'
    body = f"<p>{escape(own[0].recipe.summary)}</p>{facts(arena, own)}{said}{pictures(shows)}{curves(shows)}"
    return f'<article{kind} id="{anchor(line)}">{head}{body}</article>'


def facts(arena: Arena, own: Sequence[Result]) -> str:
    """What the entry is, its paper, its formula, and the command that made it."""
    first = own[0]
    done = [r for r in own if r.status == "done"]
    source = ["--from", first.own.file] if first.own else []
    formula = f'<span class="formula">{escape(first.recipe.formula)}</span>' if first.recipe.formula else ""
    rows = [("paper", escape(first.recipe.paper)), ("formula", formula), ("published", escape(first.recipe.published))]
    rows.append(("keywords", escape(", ".join(f"{k}={v}" for k, v in (done or own)[0].keywords.items()))))
    rows += [("own file", f"<code>{escape(first.own.file)}:{escape(first.own.function)}</code> (sha256 {first.own.sha256[:12]})")] if first.own else []
    rows.append(("runs", escape("; ".join(_run(r) for r in done))))
    if done:
        again = ["vaestro", "train", first.call, arena.challenge.source, "--steps", str(done[0].steps or 1), "--seed", str(done[0].seed), *source]
        rows.append(("make again", f"<code>{escape(shlex.join(again))}</code>"))
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows if text) + "</dl>"


def _run(r: Result) -> str:
    made = f"{r.parameters or 0:,} parameters, {r.steps or 0:,} steps in {r.seconds or 0:.0f} s ({r.reason})"
    return f"seed {r.seed}: {made}, " + ("no samples" if r.samples_per_second is None else f"{r.samples_per_second:,.0f} samples a second")


def pictures(shows: Shows) -> str:
    """Samples, and of a model that encodes originals above their reconstructions and the map of the latents, of the first seed."""
    if not shows:
        return ""
    seed, seen = min(shows.items())
    parts = []
    if "samples" in seen:
        parts.append(f'<figure><h4>Samples (means of p(x|z), z ~ p(z))</h4><img alt="generated images" src="{picture(seen["samples"], 8)}"></figure>')
    if "originals" in seen:
        pairs = [np.concatenate([seen[kind][i : i + 8] for kind in ("originals", "reconstructions")]) for i in range(0, len(seen["originals"]), 8)]
        both = "".join(f'<img alt="held-out images above their reconstructions" src="{picture(pair, len(pair) // 2)}">' for pair in pairs)
        parts.append(f'<figure><h4>Held-out rows, and below them their reconstructions</h4><div class="beside">{both}</div></figure>')
    if "map" in seen:
        classes = [str(c) for c in seen["classes"]] if "classes" in seen else []
        drawn = scatter(seen["map"], seen.get("labels"), classes, "latents of held-out rows in two dimensions")
        parts.append(f"<figure><h4>Latents of held-out rows (two leading principal components)</h4>{drawn}</figure>")
    return f'<div class="pictures">{"".join(parts)}</div><p class="note">Pictures of seed {seed}.</p>'


def curves(shows: Shows) -> str:
    """Every term of the loss over the steps, a colour for each seed."""
    found = {name.removeprefix("curve.") for seen in shows.values() for name in seen if name.startswith("curve.")}
    terms = [t for t in FIRST if t in found] + sorted(found - {*FIRST, "latents"})
    drawn = "".join(curve(t, {seed: seen[f"curve.{t}"] for seed, seen in sorted(shows.items()) if f"curve.{t}" in seen}) for t in terms)
    keys = "".join(f'<span><i style="background:{SEEDS[i % len(SEEDS)]}"></i>seed {seed}</span>' for i, seed in enumerate(sorted(shows)))
    return f'<h4>Training</h4><p class="legend">{keys}</p><div class="curves">{drawn}</div>' if drawn else ""


def protocol(arena: Arena, made: Board, entries: Mapping[str, Entry]) -> str:
    """How the numbers were made, so that they can be made again."""
    rules, tier = arena.challenge.rules, arena.challenge.rules.tier(arena.tier)
    machines = sorted({", ".join(f"{k} {v}" for k, v in e.result.machine.items()) for e in entries.values() if e.result.machine})
    items = [
        f"Data: {rules.data.source}, sha256 {rules.data.sha256}. {rules.data.binarisation[:1].upper() + rules.data.binarisation[1:]}.",
        f"Each run: {f'{tier.seconds:g} seconds' if tier.seconds else f'{tier.steps:,} steps'} of training; seeds {', '.join(map(str, tier.seeds))}.",
        f"Scored on {made.rows:,} test rows, the same for every entry, with {tier.samples:,} importance samples a row where a likelihood is measured.",
        "Ranks: paired differences on the same rows and seeds, all pairs corrected by Holm at 5 %; rank = 1 + the entries that are significantly better.",
        *(f"{c.title} ({c.unit}; {c.direction}): {c.protocol}." for c in made.columns),
        *(f"Machine: {m}." for m in machines),
        f"Made by: vaestro arena run {arena.challenge.where} --tier {arena.tier}",
    ]
    return f'<h2>Protocol</h2><p>{escape(rules.about)}</p><ul class="plain">{"".join(f"<li>{escape(i)}</li>" for i in items)}</ul>'
