"""How soon detectors see that a service's basins have changed, and how often they cry wolf.

    python -m benchmarks.detection [--quick] [--json] [--out docs/detection-figures.md]

`streams` and `digits` make healthy and changed streams, `peers` holds the detectors (`elsewhere` those that
need an environment of their own), `oracles` the row that knows the answer, `measure` counts, `plan` says who
is measured on what and `report` writes the page. Every detector sees the same rows. What is calibrated is
calibrated on streams of other seeds than those it is judged on (`plan.TUNING` and `plan.JUDGING`).
"""
