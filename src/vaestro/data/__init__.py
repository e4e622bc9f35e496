"""Data: schemas, the store, splits, named sources, and everything that turns folders, files and arrays into rows. Needs no torch (except `rows`)."""

from vaestro.data.loading import load
from vaestro.data.sources import SOURCES, get
from vaestro.data.splits import split_rows
from vaestro.data.store import Dataset, Encoding, Split, open_dataset, verify
from vaestro.data.writing import save, write_dataset

__all__ = ["SOURCES", "Dataset", "Encoding", "Split", "get", "load", "open_dataset", "save", "split_rows", "verify", "write_dataset"]
