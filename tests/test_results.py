"""What is published in results/ stands on its files, and what the package says of a recipe is what they say."""

from pathlib import Path

import pytest

from vaestro.arena import board, check
from vaestro.recipes import RECIPES
from vaestro.recipes.rows import ours, rows

RESULTS = Path(__file__).resolve().parents[1] / "results"
ARENAS = sorted(p.parent for p in RESULTS.glob("*/arena.json"))


@pytest.mark.data
@pytest.mark.parametrize("folder", ARENAS, ids=lambda folder: folder.name)
def test_every_file_of_a_published_board_is_sound(folder):
    found = check(folder)
    assert found
    assert not [str(c) for c in found if c.problem]


def test_the_rows_that_the_package_ships_are_those_of_the_results():
    lines = {(line.call, b.challenge): line for b in map(board, ARENAS) if b.tier == "zoo" for line in b.lines}
    assert rows()
    for name, row in rows().items():
        line = lines[row["call"], row["challenge"]]
        assert list(line.seeds) == row["seeds"]
        for metric, said in row["values"].items():
            assert said["mean"] == pytest.approx(line.values[metric].mean, rel=1e-9), (name, metric)


def test_a_recipe_says_what_was_measured_of_it():
    measured = next(name for name, row in rows().items() if "nll" in row["values"])
    assert "nats (" in ours(measured)
    assert "vaestro arena run" in ours(measured)
    assert all(ours(name) for name in RECIPES)
    assert ours("no such recipe").startswith("not measured yet")
