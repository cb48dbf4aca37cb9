"""What qigheal costs, measured beside others: run from the root of a checkout.

    workloads     the work itself, defined once, for all of the following
    timing        candidates in turns, one after the other
    peers         ours beside other libraries
    parts         where the time of one `record` goes
    tail          the slowest calls of `record` under a monitor that writes and checks
    footprint     import time and memory over numpy's
    instructions  instructions of one call, which noise cannot blur
    store         the history at size
    limits        what of it was asked for
    report        all of it, as docs/performance.md
    bench_*       the asv suite: the same work over the commits

Each runs by itself as `python -m benchmarks.<name> [--json]`. Nothing here is part of the package.
"""
