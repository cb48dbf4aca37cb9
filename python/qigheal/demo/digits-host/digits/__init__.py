"""A small service that recognises handwritten digits by attention over images it remembers.

data      the recorded images: keys to attend to, and requests to answer
model     attention over the keys; measures itself while it answers
service   answers requests in batches and reports to qigheal
probe     measures the model offline, on recorded requests
deploy    makes a running service take up new code and configuration
"""

import os

# One batch is too small to gain from threads, and idle ones disturb its latency.
# Numpy's linear algebra reads this once, so it must be set before the first import of numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
