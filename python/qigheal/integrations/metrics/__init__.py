"""The figures that monitoring systems are given, made once for all of them.

    catalogue   every metric: its name, kind, labels and meaning
    reading     one set of values for them
    judged      degradations and alarms, counted as rows go by
    service     the figures of a monitor, for a process that serves
    tail        rows that were added to a store since the last look
    stored      the figures of a store, for a sidecar
    healed      the figures of its ledger; the only room that knows healing, imported by `stored` alone
    source      which of them a source takes

No format of any monitoring system is known here, and nothing is written.
"""
