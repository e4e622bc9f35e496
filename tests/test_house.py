"""The house rules that a machine can check: direction of imports, sizes, what start-up may load, what no file may hold."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "vaestro"
FILES = sorted(SRC.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, ARGUMENTS = 300, 40, 6

LAYERS = (  # a module imports from its own layer and from those above it in this list, never from one below
    ("core", "errors", "registry", "schedules", "seeds", "memory", "progress", "data.schema"),
    ("data", "families", "networks", "flows"),
    ("codes",),
    ("conditional", "priors", "posteriors", "models", "objectives", "optimizers"),
    ("plays",),
    ("recipes",),
    ("evaluation",),
    ("training",),
    ("arena", "uses", "estimators", "api", "testing"),
    ("",),  # the package itself, whose names are lazy
    ("cli",),
    ("__main__",),
)
LAYER = {unit: height for height, units in enumerate(LAYERS) for unit in units}
SIGNATURE_IS_CONFIGURATION = ("recipes", "cli")  # of a recipe its keywords, of a command its flags
HEAVY = ("torch", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "tensorboard", "onnx", "polars", "narwhals")
EXTRAS = ("science", "onnx", "tensorboard", "flows", "tables", "search", "umap")  # imported inside the functions that need them
# where the module and the distribution differ in name:
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "umap": "umap-learn"}


def ident(path: Path) -> str:
    """A file as pytest names it."""
    return path.relative_to(ROOT).as_posix()


every_file = pytest.mark.parametrize("path", FILES, ids=ident)


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module(path: Path) -> str:
    """The dotted name of a file below vaestro: '' for the package itself."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(name: str) -> str:
    """The part of the layering that a module belongs to."""
    return name if name in LAYER else name.partition(".")[0]


def is_module(name: str) -> bool:
    """Whether vaestro.`name` is a file or a package."""
    place = SRC.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield below if below.startswith("vaestro.") and is_module(below.removeprefix("vaestro.")) else str(node.module)


def own(path: Path) -> set[str]:
    """The modules of vaestro that a file imports anywhere, without the leading 'vaestro.'."""
    names = {name for node in ast.walk(tree(path)) for name in imported(node)}
    return {name.removeprefix("vaestro").removeprefix(".") for name in names if name.partition(".")[0] == "vaestro"}


def at_start(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from at_start(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
            yield from at_start([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])
        else:
            yield node


def loaded(path: Path) -> set[str]:
    """The modules that importing a file imports."""
    return {name for node in at_start(tree(path).body) for name in imported(node)}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def in_a_fresh_process(code: str) -> str:
    """What `code` prints in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@every_file
def test_imports_go_one_way(path: Path) -> None:
    name = unit(module(path))
    assert name in LAYER, f"{name!r} has no layer; give it one in LAYERS"
    upward = {other for other in own(path) if LAYER[unit(other)] > LAYER[name]}
    assert not upward, f"{ident(path)} imports {sorted(upward)}, which stand above it"


def test_parts_of_one_layer_import_each_other_in_no_circle() -> None:
    below = {name: set[str]() for name in LAYER}
    for path in FILES:
        below[unit(module(path))] |= {unit(name) for name in own(path)} - {unit(module(path))}
    while done := {name for name, others in below.items() if not others}:
        below = {name: others - done for name, others in below.items() if name not in done}
    assert not below, f"a circle of imports runs through {sorted(below)}"


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(SRC / "data") and p.stem != "rows"], ids=ident)
def test_data_do_not_need_torch(path: Path) -> None:
    assert not {name for name in loaded(path) if name.partition(".")[0] in {"torch", "safetensors"}}


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def distributions(lines: Iterable[str]) -> set[str]:
    """The names of some requirements."""
    return {canonicalize_name(Requirement(line).name) for line in lines}


def foreign(modules: Iterable[str]) -> set[str]:
    """The distributions that some modules come from, without Python's own and ours."""
    names = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"vaestro"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names}


@every_file
def test_what_a_file_imports_is_declared(path: Path) -> None:
    core = distributions(project()["dependencies"])
    extras = distributions(line for name in EXTRAS for line in project()["optional-dependencies"][name])
    bases = {"scikit-learn"} if unit(module(path)) == "estimators" else set()  # whose classes are made from scikit-learn's
    assert foreign(loaded(path)) <= core | bases, "import it where it is used, or make it a dependency"
    assert foreign(name for node in ast.walk(tree(path)) for name in imported(node)) <= core | extras


def test_every_dependency_is_used() -> None:
    used = foreign(name for path in FILES for node in ast.walk(tree(path)) for name in imported(node))
    assert distributions(project()["dependencies"]) <= used


@pytest.mark.parametrize(
    "code",
    [
        "import vaestro; dir(vaestro)",
        "import vaestro.cli",
        "from contextlib import redirect_stdout, suppress\nfrom vaestro.cli import main\nsys.argv = ['vaestro', '--help']\n"
        "with redirect_stdout(None), suppress(SystemExit): main()",
    ],
    ids=["import vaestro", "import vaestro.cli", "vaestro --help"],
)
def test_start_up_loads_nothing_heavy(code: str) -> None:
    modules = json.loads(in_a_fresh_process(f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"))
    assert not {name for name in modules if name.partition(".")[0] in HEAVY}


def test_importing_every_module_changes_no_global_of_torch() -> None:
    names = [f"vaestro.{module(p)}".rstrip(".") for p in FILES if p.stem != "__main__"]
    out = in_a_fresh_process(
        "import importlib, warnings, numpy, torch\n"
        "from torch.distributions import Distribution\n"
        "def state():\n"
        "    return [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),\n"
        "            torch.get_float32_matmul_precision(), torch.get_rng_state().tolist(), Distribution._validate_args, numpy.geterr(),\n"
        "            numpy.random.get_state()[1].tolist()]\n"
        f"before = state()\nfor name in {names!r}: importlib.import_module(name)\nprint(state() == before)"
    )
    assert out.strip().endswith("True")


@every_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < FILE_LINES


@every_file
def test_functions_are_short(path: Path) -> None:
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path) if node.end_lineno is not None}
    assert not {name: lines for name, lines in long.items() if lines >= FUNCTION_LINES}


@pytest.mark.parametrize("path", [p for p in FILES if unit(module(p)) not in SIGNATURE_IS_CONFIGURATION], ids=ident)
def test_functions_take_few_arguments(path: Path) -> None:
    many = {node.name: [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in {"self", "cls"}] for node in functions(path)}
    assert not {name: arguments for name, arguments in many.items() if len(arguments) > ARGUMENTS}


@every_file
def test_public_names_are_described(path: Path) -> None:
    public = [node for node in tree(path).body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert not [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(tree(path)) or not tree(path).body, "the module itself says in one sentence what it is"


@every_file
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    pickles = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    nodes = list(ast.walk(tree(path)))
    assert not {name for node in nodes for name in imported(node) if name.partition(".")[0] in pickles}
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    forbidden = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load", "torch.jit.load"}
    numbers_only = [call for call in calls if any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)]
    assert ident(path) == "src/vaestro/evaluation/weights.py" or not numbers_only, "weights that others trained are read in one place"
    assert not {ast.unparse(call.func) for call in calls if call not in numbers_only} & forbidden
    allowed = [call for call in calls for k in call.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"]
    assert not [ast.unparse(call) for call in allowed]


@every_file
def test_no_back_doors(path: Path) -> None:
    nodes = list(ast.walk(tree(path)))
    assert not [n.lineno for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "hasattr"], "declare it on a protocol, or register it"
    assert not [n.name for n in functions(path) if n.args.kwarg and n.args.kwarg.arg == "kwargs"], "name the arguments"
    assert "__future__" not in {name for node in nodes for name in imported(node)}, "shapes in signatures are checked, so annotations must be real"
    assert not [n.lineno for n in nodes if isinstance(n, ast.ExceptHandler) and n.type is None], "say which errors are meant"


@every_file
def test_nothing_is_left_to_do(path: Path) -> None:
    assert not re.findall(r"\b(?:TODO|FIXME|XXX)\b", path.read_text(encoding="utf-8"))
    raised = [node.exc for node in ast.walk(tree(path)) if isinstance(node, ast.Raise) and node.exc is not None]
    assert not [ast.unparse(exc) for exc in raised if "NotImplementedError" in ast.unparse(exc)]


def tracked() -> list[Path]:
    """All files of the repository, or of an unpacked source archive, in which there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False, cwd=ROOT)
    names = listed.stdout.split("\0") if listed.returncode == 0 else [p.relative_to(ROOT).as_posix() for p in (*SRC.rglob("*"), *(ROOT / "tests").rglob("*"))]
    return [ROOT / name for name in names if name and (ROOT / name).is_file() and "__pycache__" not in name]


def test_no_file_names_a_machine_or_a_registry() -> None:
    machine = re.compile(rb"(?<![\w.\-:/])/(?:" + b"|".join([b"work", b"root", b"home", b"Users"]) + rb")/\w")
    hosts = (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("download", "pytorch", "org"),
        ("anaconda", "org"),
        ("crates", "io"),
    )
    registry = re.compile(rb"\b(?:" + b"|".join(rb"\.".join(part.encode() for part in host) for host in hosts) + rb")\b")
    found = [f"{ident(p)}: {m.group().decode()}" for p in tracked() for m in (*machine.finditer(p.read_bytes()), *registry.finditer(p.read_bytes()))]
    assert not found


def test_no_large_file_is_tracked() -> None:
    assert not {ident(p): p.stat().st_size for p in tracked() if p.stat().st_size > 4 * 2**20}


def test_every_requirement_is_pinned_to_a_version_in_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert lines[0].startswith("torch==")
    assert len(pins) == len(lines)
    pins = {canonicalize_name(name): pin for name, pin in pins.items()}
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    wanted = [r for group in groups for r in map(Requirement, group) if r.name != "vaestro"]
    assert wanted
    assert not [str(r) for r in wanted if canonicalize_name(r.name) not in pins or pins[canonicalize_name(r.name)] not in r.specifier]


def test_what_benchmarks_compare_with_is_pinned_and_none_hides_a_package() -> None:
    scripts = sorted((ROOT / "benchmarks").glob("*.py"))
    own_names = {p.stem for p in scripts}
    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().split()}
    names = {name for p in scripts for node in ast.walk(tree(p)) for name in imported(node)}
    assert foreign(name for name in names if name.partition(".")[0] not in own_names) <= pinned
    assert not own_names & {*sys.stdlib_module_names, "coverage"}, "scripts shadow modules of these names, for the folder of a script comes first"


def test_the_version_is_said_once() -> None:
    said = project()["version"]
    assert version("vaestro") == said
    assert in_a_fresh_process("import vaestro; print(vaestro.__version__)").strip() == said
    assert [ident(p) for p in FILES if re.search(rf"[\"']{re.escape(said)}[\"']", p.read_text(encoding="utf-8"))] == []
