"""Shared fixtures: one seed for every test, one thread so that sums have one order."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    yield
