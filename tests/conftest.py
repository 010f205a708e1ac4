"""Shared fixtures: one seed for every test; one thread, so that sums have one order and two processes fit in two
cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; what a test starts inherits it

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_on_one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
