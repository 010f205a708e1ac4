"""Shared fixtures: one seed for every test; one thread, so that sums have one order and two processes fit in two
cores."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; what a test starts inherits it

import pytest
import torch

_tracer = sys.gettrace()  # of coverage or of a debugger


@pytest.fixture(autouse=True)
def _still_traced():
    "A test that exhausts the stack turns tracing off for all that follow it: Python drops a tracer that fails"
    if sys.gettrace() is not _tracer:
        sys.settrace(_tracer)
    yield


@pytest.fixture(autouse=True)
def _seeded_on_one_thread():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
