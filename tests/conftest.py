"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data: absent by name, or there in full."""
    place = os.environ.get("SPATIALCLUSTERS_DATA")
    if not place:
        pytest.skip("SPATIALCLUSTERS_DATA is not set: no real data")
    folder = Path(place)
    if not folder.is_dir():
        pytest.fail(f"SPATIALCLUSTERS_DATA is set to {place!r}, which is not a folder")
    return folder
