"""extraction_assets: a Dagster asset graph that teaches Qwen3-VL to read a company's own vendor PDFs."""

import os

__version__ = "0.1.0"

# Read when torch loads its OpenMP library, so it stands before every import of torch. libgomp's threads wait for each other by spinning
# through 300,000 rounds. Where another program wants one of two cores, eight small layers then take 20 ms and more, and a training step of
# the demo 29 s; with 1,000 rounds 2.2 ms and 2.9 s, with 5,000 4.6 ms and 3.5 s. Where nothing else runs the layers take 0.77 ms with 1,000,
# 0.68 ms with 5,000, and a step 1.6 to 1.8 s with either (Intel Xeon, torch 2.13).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
