"""What all estimators share: parameters, reading X, training a run, and being saved, loaded and pickled."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from vaestro.api import to_call
from vaestro.data.kinds import Array
from vaestro.data.memory import from_arrays
from vaestro.data.schema import Category, Kind
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.estimators.readers import Gapped, Held, Mixed, Numbers, Reader, Refused, is_mixed, reader_of, share, whole
from vaestro.estimators.saving import fitted_run, packed_run, read_folder, write_folder
from vaestro.recipes import Call, call_of
from vaestro.seeds import forked
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.device import choose
from vaestro.training.runs import Run
from vaestro.training.train import Plan

FEW = 10  # rows, or rows of a class, below which none are held out
Rows: TypeAlias = NDArray[np.int64]
E = TypeVar("E", bound="VAEEstimator")


class Labels(NamedTuple):
    """The classes of rows: `number` [n], `known` [n] where it is one, and the names of the classes."""

    number: NDArray[np.int64]
    known: NDArray[np.bool_]
    names: tuple[str, ...]

    def spare(self) -> Rows:
        """The rows that can be held out: those without a label, and of classes with ten labels or more."""
        counts = np.bincount(self.number[self.known], minlength=len(self.names))
        return np.flatnonzero(~self.known | (counts[self.number] >= FEW))


class VAEEstimator(BaseEstimator):  # type: ignore[misc]
    """The parameters that every estimator has; validated by `fit`, as scikit-learn asks.

    recipe: a call such as "vae" or "iwae:samples=5,hidden=64", or your own function of a schema. latents: its latent numbers; None leaves them to the recipe.
    steps: of training. batch_size: rows a step; None leaves it to the recipe. columns: kinds of a frame's columns by name ("real", "count", "category", ...);
    those not named are found. validation_fraction: the share of rows that are held out, for early stopping (`patience` in the recipe) and choices that
    a recipe makes by itself; below ten rows, or at 0, the training rows are looked at. random_state: an int makes all numbers the same every time.
    device: "cpu", "cuda", ...; None takes the fastest there is.

    Fitted: `run_` is the run, for every other use of vaestro; `n_iter_` its steps; `n_features_in_`, `feature_names_in_` as scikit-learn has them.
    """

    _gaps: ClassVar[bool] = False  # whether NaN in an array is an entry that was not seen
    _kept: ClassVar[dict[str, type]] = {}  # fitted attributes that are saved beside the run
    recipe: Any
    latents: int | None
    steps: int
    batch_size: int | None
    columns: Mapping[str, str] | None
    validation_fraction: float
    random_state: Any
    device: str | None
    run_: Run
    n_iter_: int
    _reader: Reader
    _seed: int

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "vae",
        *,
        latents: Any = None,
        steps: Any = 2000,
        batch_size: Any = None,
        columns: Any = None,
        validation_fraction: Any = 0.1,
        random_state: Any = None,
        device: Any = None,
    ) -> None:
        self.recipe = recipe
        self.latents = latents
        self.steps = steps
        self.batch_size = batch_size
        self.columns = columns
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._gaps
        return tags

    def _keywords(self) -> dict[str, Any]:
        """What the parameters say of the recipe."""
        return {k: v for k, v in {"latents": self.latents, "batch": self.batch_size}.items() if v is not None}

    def _call(self) -> Call:
        """The recipe with what the parameters say of it; raises Refused for what is misspelt or out of range."""
        try:
            call = to_call(self.recipe)
            return call_of(call.entry, call.keywords | call.training | self._keywords())
        except UsageError as error:
            raise Refused(str(error)) from None

    def _require(self, what: str, remedy: str) -> None:
        """Raises Refused, before any training, for a recipe whose entry says that it has none of `what`."""
        entry = self._call().entry
        if what in entry.lacks:
            raise Refused(f"recipe {entry.name!r} has no {what}: {entry.lacks[what]}; {remedy}")

    def _checked(self, X: Any, reset: bool) -> Any:
        """X as an array of floats, or as it is where it is a frame of mixed columns; what is masked was not seen."""
        if np.ma.is_masked(X):
            X = X.astype(np.float64).filled(np.nan)
        mixed = is_mixed(X, self.columns) if reset else isinstance(self._reader, Mixed)
        if mixed:
            return validate_data(self, X, reset=reset, skip_check_array=True)
        return validate_data(self, X, reset=reset, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan" if self._gaps else True)

    def _learnt(self, X: Any) -> tuple[Held, NDArray[np.bool_]]:
        """The rows of X, which `fit` was given, as they are held, after their reader was made; and which rows of X they are: those with an entry."""
        X = self._checked(X, True)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        if is_mixed(X, self.columns):
            self._reader = Mixed.of(X, self.columns)
        else:
            self._reader = Gapped.of(X) if self._gaps else Numbers.of(X)
        held = self._reader.pack(X)
        seen = np.asarray(~np.isnan(held).all(1))
        return held[seen], seen

    def _held(self, X: Any) -> Tensor:
        """The rows of X as the model reads them."""
        check_is_fitted(self)
        return torch.from_numpy(self._reader.pack(self._checked(X, False)))

    def _train(self, held: Held, labels: Labels | None = None) -> Held:
        """Train a run on held rows, perhaps with labels; returns the rows that it learnt from."""
        try:
            call = self._call()
            fraction = share("validation_fraction", self.validation_fraction, 0.0)
            free = np.arange(len(held)) if labels is None else labels.spare()
            learnt, looked = _parts(len(held), free, fraction, self._seed)
            data = self._dataset(held, learnt, looked, labels)
            budget = Budget(whole("steps", self.steps))
            with TemporaryDirectory(prefix="vaestro-") as folder, forked(choose(self.device)):
                run = runs.train(Plan(call, data, budget, self._seed, self.device), Path(folder) / "run")
        except UsageError as error:
            raise Refused(str(error)) from None
        self.run_ = replace(run, held=None)
        self.n_iter_ = int(run.about["done_steps"])
        return held[learnt]

    def _dataset(self, held: Held, learnt: Rows, looked: Rows, labels: Labels | None) -> Dataset:
        arrays, kinds = dict[str, Array](x=held), dict[str, Kind](x=self._reader.field.kind)
        if labels is not None:
            arrays |= {"label": labels.number, "known": labels.known.astype(np.int64)}
            kinds |= {"label": Category(len(labels.names), labels.names), "known": Category(2)}
        parts = [{n: a[rows] for n, a in arrays.items()} for rows in (learnt, looked)]
        return from_arrays("rows", parts[0], kinds, self._seed, validation=parts[1], test=parts[1])

    def _say(self, values: Tensor, like: Any) -> Array:
        """Numbers of the model as an array, in the precision of X."""
        found: Array = values.numpy().astype(np.float32 if getattr(like, "dtype", None) == np.float32 else np.float64)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """All of it, the run as its description and its weights."""
        state = dict(super().__getstate__())
        if "run_" in state:
            state["run_"] = packed_run(state["run_"])
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Whatever `__getstate__` gave; the recipe's call is made again and its weights are filled."""
        said = dict(state)
        run = said.pop("run_", None)
        super().__setstate__(said)
        if run is not None:
            about, numbers = run
            self.run_ = fitted_run(about, numbers, self._call())

    def to_folder(self, folder: Path | str) -> Path:
        """Save a fitted estimator as a folder, without pickle: the run itself, which every command of vaestro opens, and `estimator.json`.

        Raises UsageError where the folder holds a run already.
        """
        check_is_fitted(self)
        names = [n for n in ("n_features_in_", "feature_names_in_", *self._kept) if n in vars(self)]
        about = {
            "is": type(self).__name__,
            "params": self.get_params(deep=False),
            "reader": self._reader.to_json(),
            "seed": self._seed,
            "fitted": {n: vars(self)[n] for n in names},
        }
        return write_folder(Path(folder), self.run_, about)

    @classmethod
    def from_folder(cls: type[E], folder: Path | str, recipe: Any = None) -> E:
        """The estimator in a folder; `recipe` is needed only for your own function. Runs no code from it.

        Raises UsageError where the folder holds another estimator or none, VaestroError where a file was cut or altered.
        """
        about = read_folder(Path(folder), cls.__name__, {"n_features_in_": int, **cls._kept})
        known = cls().get_params(deep=False)
        estimator = cls(**{n: v for n, v in about["params"].items() if n in known})
        if recipe is not None:
            estimator.recipe = recipe
        estimator.run_ = runs.open_run(Path(folder), None if recipe is None else estimator._call())
        estimator._reader, estimator._seed = reader_of(about["reader"], estimator.run_.field), int(about["seed"])
        estimator.n_iter_ = int(estimator.run_.about["done_steps"])
        for name, value in about["fitted"].items():
            if name in ("n_features_in_", "feature_names_in_", *cls._kept):
                setattr(estimator, name, value)
        return estimator


def _parts(n: int, free: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """The rows to learn from and those held out, from among `free`, ascending; all rows twice where there are few, or none are to be held out."""
    every, held = np.arange(n), min(round(fraction * n), len(free) - 1)
    if n < FEW or held < 1:
        return every, every
    looked = np.sort(np.random.default_rng([seed, 1]).permutation(free)[:held])
    return np.setdiff1d(every, looked), looked
