"""The verdicts in plain words: which entry for which job, how sure, what it cannot do, and whether a classical row would do."""

from collections.abc import Sequence
from typing import NamedTuple

from vaestro.arena.board import Board, Entry, Line
from vaestro.arena.verdicts import COST, Standing, Thrift, Verdict, is_classical, suspects, thrift, verdicts
from vaestro.arena.words import cell, number, scope

FEW = 4  # names in a sentence; of more the number is told


class Answer(NamedTuple):
    """What is said of one job."""

    job: str
    what: str
    best: Line
    told: tuple[str, ...]  # sentences


def answers(made: Board, entries: Sequence[Entry]) -> tuple[Answer, ...]:
    """An answer for each job that the board can decide; none where no two entries have all their runs."""
    decided = verdicts(made, entries)
    found = [Answer(v.job.name, v.job.what, v.standing.best, tuple(_sentences(made, v, decided))) for v in decided]
    saved = thrift(made)
    return (*found, Answer(COST.name, COST.what, saved.unbeaten, tuple(_worth(made, saved)))) if saved else tuple(found)


def cautions(made: Board, entries: Sequence[Entry]) -> list[str]:
    """What must be known before anybody believes the answers: their scope, who is out, and what looks wrong."""
    found = [scope(made), f"This is what {made.label.partition(': ')[2] or made.label} bought on {made.title}; longer training and other data may turn it."]
    for v in verdicts(made, entries):
        found += [f"For {v.job.name} {call} is left out: {reason}." for call, reason in v.left_out.items()]
    found += [f"{x.call} is disqualified and wins nothing: {x.reasons[0]}." for x in made.lines if x.state == "disqualified"]
    found += [f"{c} scores far better on test rows than on validation rows, unlike the others: look whether it has seen test rows." for c in suspects(made)]
    lost = [x for x in made.lines if x.state in ("incomplete", "failed")]
    verb = "is" if len(lost) == 1 else "are"
    return [*found, f"{names([x.call for x in lost])} {verb} not compared: runs failed or are still to come."] if lost else found


def _sentences(made: Board, v: Verdict, decided: Sequence[Verdict]) -> list[str]:
    found = [_lead(made, v.standing), _classical(made, v.standing)]
    return [s for s in (*found, *_limits(v, decided)) if s]


def _lead(made: Board, s: Standing) -> str:
    """The best mean, and how sure it is that it is the best."""
    column, best, others = made.column(s.metric), s.best, len(s.lines) - 1
    said = f"{best.call}: {cell(s.value(best))} {column.unit} ({column.title}, {column.direction})"
    over, level = s.over(best), s.level(best)
    if s.better is None:
        return f"{said}. How sure that is cannot be said, for errors of these numbers are not known."
    if len(over) == others:
        return f"{said}, significantly better than {_all_of(others)}."
    told = f"{said}, not told apart from {names(level)}: any of them may be the best."
    return f"{told} {_plural('Significantly worse', over)}." if over else told


def _all_of(others: int) -> str:
    return "the only other entry" if others == 1 else f"all {others} others"


def _plural(words: str, calls: Sequence[str]) -> str:
    return f"{words}: {names(calls)}"


def names(calls: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`, or the first with the number of the others."""
    if len(calls) > FEW:
        return f"{', '.join(calls[: FEW - 1])} and {len(calls) - FEW + 1} others"
    return " and ".join(([", ".join(calls[:-1])] if len(calls) > 1 else []) + list(calls[-1:]))


def _classical(made: Board, s: Standing) -> str:
    """How the best classical row stands to the trained entries, by this metric."""
    rows, trained = [x for x in s.lines if is_classical(x.call)], [x for x in s.lines if not is_classical(x.call)]
    if not rows:
        return "No classical row has this number here, so nothing says that a model was needed."
    row, unit = rows[0], made.column(s.metric).unit
    value = f"{row.call} ({cell(s.value(row))} {unit})"
    if not trained:
        return "Only classical rows have this number here."
    beaten = [x for x in trained if x.call in s.over(row)]
    still = f"; it is still significantly better than {names([x.call for x in beaten])}" if beaten else ""
    if s.better is None:
        return f"The best classical row is {value}."
    if trained[0].call in s.over(row):
        return f"A classical row wins: {value} is significantly better than {_all_trained(len(trained))}."
    if trained[0].call in s.above(row):
        return f"The best classical row, {value}, is significantly worse than {trained[0].call}{still}."
    return f"A classical row does as well: {value} is not told apart from {trained[0].call}, the best trained entry{still}."


def _all_trained(n: int) -> str:
    return "the only trained entry" if n == 1 else f"the best of {n} trained entries"


def _limits(v: Verdict, decided: Sequence[Verdict]) -> list[str]:
    """What the winner of one job cannot do, or does worse than others, in the other jobs."""
    best, found = v.standing.best, []
    for other in (d for d in decided if d.job != v.job):
        s, name = other.standing, other.job.name
        held = next((x for x in s.lines if x.call == best.call), None)
        if held is None:
            reason = other.left_out.get(best.call) or best.none.get(s.metric, "it was not measured")
            found.append(f"Not for {name}: {'it' + reason.removeprefix(best.call) if reason.startswith(best.call + ' ') else reason}.")
        elif above := s.above(held):
            beat = "1 entry beats" if len(above) == 1 else f"{len(above)} entries beat"
            found.append(f"In {name} {beat} it, {above[0]} first.")
    return found


def _worth(made: Board, saved: Thrift) -> list[str]:
    """The answer on cost."""
    column, head = made.column(saved.metric), made.column(made.headline)
    cost = {x.call: f"{number(round(x.values[saved.metric].mean, 2))} {column.unit}" for x in made.ranked}
    near = "" if made.detectable is None else f", nor leads by more than the {number(made.detectable, made.detectable)} {head.unit} that this board would find"
    found = [f"{saved.unbeaten.call}: {cost[saved.unbeaten.call]} ({column.title}), the least of the entries that nothing beats by {head.title}{near}."]
    steps = "; ".join(f"{x.call} ({cost[x.call]}, {cell(x.values[made.headline])} {head.unit})" for x in saved.front)
    if len(saved.front) > 1:
        found.append(f"Worth their cost, each significantly better than every cheaper one of this list: {steps}.")
    return found
