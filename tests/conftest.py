"""What every test starts from."""

import os

for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", "1")):  # torch reads them once, when it is imported
    os.environ.setdefault(name, value)

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers for every test, in whichever order they run."""
    torch.manual_seed(0)
