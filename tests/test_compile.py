"""`compile=True`: the same draws and the same numbers but for rounding, one graph a model, and a clear word where a machine cannot compile.

The compiler would follow the checks of annotations that run in tests, so these programs run in a Python of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaestro.recipes import RECIPES

QUICK = ("vae", "iwae:samples=3", "vamp:components=5", "gmm_prior")
# their latents follow a gradient, or are proposed until they are accepted, and the compiler can follow neither
SEVERAL_GRAPHS = {"semi_amortised", "hamiltonian_vae", "riemannian_vae", "hyperspherical"}

GRAPHS = """
import json, sys
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from vaestro.data.schema import Binary, Category, Field, Schema
from vaestro.errors import VaestroError
from vaestro.recipes import RECIPES, parse

schema = Schema("pictures", (Field("x", Binary(), (1, 8, 8)), Field("label", Category(3), ())), {"train": 64, "validation": 8, "test": 8})
batch = {"x": (torch.rand(6, 1, 8, 8) < 0.4).float(), "label": torch.arange(6) % 3}
apart = {}
for call in json.loads(sys.argv[1]) or list(RECIPES):
    try:
        recipe = parse(call).cook(schema)
    except VaestroError:
        continue  # it does not fit such data
    model, rows = recipe.model, {n: batch[n] for n in recipe.fields}
    with torch.no_grad():
        model(rows)  # as `compile_model` does
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)  # raises at a graph break
    weights = []
    for one in (model, compiled):
        torch.manual_seed(0)
        try:
            weights.append(one(rows, recipe.samples).log_w)
        except (torch._dynamo.exc.Unsupported, GuardOnDataDependentSymNode):
            break
    apart[call] = float((weights[0] - weights[1]).abs().max()) if len(weights) == 2 else None
print(json.dumps(apart))
"""

TRAIN = """
import json, sys
import vaestro

folder, call = sys.argv[1:]


def stop(line):
    if line["step"] == 5:
        raise KeyboardInterrupt


plain = vaestro.train(call, "digits-dynamic", steps=8, out=f"{folder}/plain")
straight = vaestro.train(call, "digits-dynamic", steps=8, out=f"{folder}/straight", compile=True)
try:
    vaestro.train(call, "digits-dynamic", steps=8, out=f"{folder}/stopped", compile=True, watch=stop)
except KeyboardInterrupt:
    pass
resumed = vaestro.resume(f"{folder}/stopped")
print(json.dumps([[run.about["compile"], run.about["weights_sha256"], run.log()[-1]] for run in (plain, straight, resumed)]))
"""


def child(code: str, *arguments: str, **environment: str) -> str:
    """What a program prints in a Python of its own; fails with its last words."""
    own = os.environ | {"OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=900, check=False, env=own)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def test_the_plain_recipes_are_one_graph_with_the_same_numbers() -> None:
    apart = json.loads(child(GRAPHS, json.dumps(QUICK)))
    assert list(apart) == list(QUICK)
    assert max(apart.values()) < 1e-4, apart


@pytest.mark.slow
def test_every_recipe_is_one_graph_but_for_those_that_loop_inside() -> None:
    apart = json.loads(child(GRAPHS, "[]"))
    fitted_at_once = {call for call in apart if RECIPES[call].group == "classical"}  # what is not trained in steps is never compiled
    assert {call for call, value in apart.items() if value is None} <= SEVERAL_GRAPHS | fitted_at_once, apart
    assert max(value for value in apart.values() if value is not None) < 1e-3, apart


@pytest.mark.slow
@pytest.mark.parametrize("call", ["vae:latents=4,hidden=32", "iwae:samples=3,latents=4,hidden=32"])
def test_compiled_training_ends_where_plain_training_does_and_resumes_to_equal_bits(tmp_path: Path, call: str) -> None:
    (was, _, plain), (is_, bits, compiled), (still, same, _) = json.loads(child(TRAIN, str(tmp_path), call))
    assert (was, is_, still) == (False, True, True)
    assert {n: v for n, v in compiled.items() if n != "seconds"} == pytest.approx({n: v for n, v in plain.items() if n != "seconds"}, rel=1e-4)
    assert bits == same


def test_a_machine_without_a_compiler_is_told_so_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "vaestro", "train", "vae:latents=2", "digits-dynamic", "--steps", "3", "--compile", "--out", str(out)]
    environment = os.environ | {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 1
    assert "this machine cannot compile models" in done.stderr
    assert done.stderr.strip().endswith("install a C++ compiler such as g++, or leave --compile out")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()
