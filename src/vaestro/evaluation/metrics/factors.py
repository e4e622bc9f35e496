"""Latents beside the factors that made the rows: what every measure of disentanglement starts from."""

from typing import NamedTuple

import numpy as np

from vaestro.data.schema import Category
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.encodings import held_codes
from vaestro.evaluation.metrics.subject import Subject


class Made(NamedTuple):
    """Rows by their latents and by the factors that made them."""

    codes: np.ndarray  # [n, latents]
    factors: np.ndarray  # [n, factors], whole numbers from 0; those that vary
    names: tuple[str, ...]
    classes: tuple[bool, ...]  # whether a factor's levels are classes, such as shapes; else they are steps of one quantity

    def take(self, rows: np.ndarray) -> "Made":
        """The same of some rows."""
        return self._replace(codes=self.codes[rows], factors=self.factors[rows])

    @property
    def levels(self) -> list[int]:
        """How many different values of each factor were seen."""
        return [len(np.unique(v)) for v in self.factors.T]

    def require(self, each: int, why: str) -> None:
        """Raises UsageError where the factor of the most levels has fewer than `each` rows a level, with the number of rows that is needed."""
        most, name = max(zip(self.levels, self.names, strict=True))
        if len(self.codes) < each * most:
            raise UsageError(f"{why} asks for {each} rows of each of the {most} values of {name!r}, {each * most:,} in all, and {len(self.codes):,} are scored")


def made(subject: Subject) -> Made:
    """The scored rows with the factors that vary over them; raises UsageError where fewer than two do, or none are known.

    A factor whose levels have names in the data's schema is one of classes; the others are counted in steps.
    """
    if not subject.factors:
        raise UsageError(f"{subject.name} was given no factors to compare its latents with; use data with known factors, such as dsprites")
    columns = {name: np.unique(np.asarray(v), return_inverse=True)[1].astype(np.int64) for name, v in subject.factors.items()}
    names = tuple(name for name, v in columns.items() if v.any())
    if len(names) < 2:
        raise UsageError(f"{len(names)} of {len(columns)} factors vary over the rows that {subject.name} is scored on, and two are needed; give more rows")
    return Made(held_codes(subject), np.stack([columns[name] for name in names], 1), names, tuple(_named(subject, name) for name in names))


def _named(subject: Subject, name: str) -> bool:
    if subject.held is None or name not in subject.held.data.schema:
        return False
    kind = subject.held.data.schema[name].kind
    return isinstance(kind, Category) and bool(kind.names)


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of n rows, each ascending: what is learnt on one is judged on the other."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def gaps(table: np.ndarray) -> np.ndarray:
    """The largest minus the second largest of each column of a table [latents, factors], [factors]; of a single latent the second counts as 0."""
    ranked = np.sort(np.concatenate([np.zeros((1, table.shape[1])), table]), 0)
    return np.asarray(ranked[-1] - ranked[-2])
