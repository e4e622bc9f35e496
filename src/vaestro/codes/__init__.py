"""Discrete codes: quantisers, whose posterior is a point mass on a code, and posteriors over one-hot codes that relax in training."""

from vaestro.codes.base import Code, Quantiser, Usage, numbered, straight_through, usage, used_in
from vaestro.codes.books import AveragedBook, Book, TrainedBook, kmeans
from vaestro.codes.onehot import Hard, OneHotCodes, Reading, Relaxed, Relaxing, StraightThrough, cool, hard, strings
from vaestro.codes.scalar import ScalarQuantiser
from vaestro.codes.vector import VectorQuantiser

__all__ = [
    "AveragedBook",
    "Book",
    "Code",
    "Hard",
    "OneHotCodes",
    "Quantiser",
    "Reading",
    "Relaxed",
    "Relaxing",
    "ScalarQuantiser",
    "StraightThrough",
    "TrainedBook",
    "Usage",
    "VectorQuantiser",
    "cool",
    "hard",
    "kmeans",
    "numbered",
    "straight_through",
    "strings",
    "usage",
    "used_in",
]
