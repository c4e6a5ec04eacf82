"""What all tests share: the model."""

import pytest


@pytest.fixture(scope="session")
def minilm() -> str:
    """Path of all-MiniLM-L6-v2 in F32: an encoder with 512 positions and 384 columns, mean pooling."""
    from rawllama import hub

    return str(hub.resolve("minilm"))
