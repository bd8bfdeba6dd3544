"""Settings that the unit tests and the re-executed notebooks share."""

import os
import sys
from pathlib import Path

import pytest

# Two test processes with one thread each finish four times sooner than two with two each. The
# kernels that run the notebooks inherit these. Live bars and curves have nobody to look at them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("CNNLIB_LIVE", "0")


def pytest_addoption(parser, pluginmanager):
    """Load nbval, which takes longer than most tests, unless only test files are named."""
    named = {Path(argument.partition("::")[0]).suffix for argument in sys.argv[1:]}
    if ".py" not in named or ".ipynb" in named:
        pluginmanager.import_plugin("nbval.plugin")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Register the mark of pyproject.toml, and let nbval compare every output."""
    config.addinivalue_line("markers", "slow: takes more than 5 seconds; left out unless asked for")
    if config.pluginmanager.has_plugin("nbval.plugin"):
        config.option.nbval = True
        config.option.nbval_sanitize_with = str(config.rootpath / "tests" / "sanitize.cfg")
        config.option.nbval_cell_timeout = 300  # seconds


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Start no workers for files that are named: they start at once, and end one by one."""
    if all(Path(argument.partition("::")[0]).is_file() for argument in config.args):
        return 0
    return None
