"""The challenges that come with the package, in words."""

from typing import Any


def rows() -> list[dict[str, Any]]:
    """Name, title and version of each."""
    return []
