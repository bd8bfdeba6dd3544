"""Settings that the unit tests and the re-executed notebooks share."""

import os

# Two test processes with one thread each finish four times sooner than two with two each. The
# kernels that run the notebooks inherit these. Live bars and curves have nobody to look at them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("CNNLIB_LIVE", "0")
