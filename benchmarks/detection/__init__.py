"""How soon detectors see that a service's basins have changed, and how often they cry wolf.

    python -m benchmarks.detection [--quick] [--json] [--out docs/detection-figures.md]

`steady`, `autoregressive`, `season` and `digits` make healthy and changed streams of what is in `streams`;
`peers` holds the detectors, `beside` and `elsewhere` those that need a Python of their own, `oracles` the rows
that keep the others honest; `measure` counts, `plan` says who is measured on what, `report` writes the page.
Every detector sees the same rows. What is calibrated is calibrated on streams of other seeds than those it is
judged on (`plan.TUNING` and `plan.JUDGING`).
"""
