"""Settings that the unit tests and the re-executed notebooks share."""

import os
from pathlib import Path

import pytest

# Two test processes with one thread each finish four times sooner than two with two each. The
# kernels that run the notebooks inherit these. Live bars and curves have nobody to look at them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("CNNLIB_LIVE", "0")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Start no workers for a single file: --dist=loadfile would hand all of it to one of them."""
    if len(config.args) == 1 and Path(config.args[0].split("::")[0]).is_file():
        return 0
    return None
