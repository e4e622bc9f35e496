"""Data: schemas, the store, splits, named sources, and all that turns folders, files and arrays into rows. Only `rows` needs torch."""

from vaestro.data.loading import load
from vaestro.data.memory import from_arrays
from vaestro.data.prepare.arrays import prepare_arrays
from vaestro.data.prepare.images import prepare_images
from vaestro.data.prepare.tables import from_table, prepare_table
from vaestro.data.sources import SOURCES, get
from vaestro.data.splits import split_rows
from vaestro.data.store import Dataset, Encoding, Split, open_dataset, verify
from vaestro.data.writing import save, write_dataset

__all__ = [
    "SOURCES",
    "Dataset",
    "Encoding",
    "Split",
    "from_arrays",
    "from_table",
    "get",
    "load",
    "open_dataset",
    "prepare_arrays",
    "prepare_images",
    "prepare_table",
    "save",
    "split_rows",
    "verify",
    "write_dataset",
]
