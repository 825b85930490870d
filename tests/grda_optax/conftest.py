"""Strictness for the library: sloppy numerics fail."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_implicit_rank_promotion():
    """A scalar may meet an array, a vector may not silently become a row of a matrix."""
    with jax.numpy_rank_promotion("raise"):
        yield
