"""The compiled core of qigheal: numbers and files, and no knowledge of any service.

Rooms, lowest first (an import goes only downward):

    errors      what can go wrong, as one tree of exceptions
    constants   published figures with their sources
    forks       what a forked child has to make anew
    rows        the layout of one recorded snapshot, in memory and on disk
    geometry    distances and means of basins
    trends      slopes with their noise, rank tests, time to a limit; its parts: timeto, ranktrends
    estimators  Φ, κ and a basin for services that have none of their own
    recorder    the ring that record() writes to
    calibration what is learned of a healthy window for the sake of detection; its parts stand in its docstring
    baseline    what healthy looks like, learned; `comparison` holds two against one another
    detectors   when healthy is gone, at a stated false-alarm rate; its parts: runlength, alarms, durations
    rules       which findings the last snapshots give rise to
    history     the folder on disk that services write and healers read; its parts, lowest first: files,
                segment, columns, journal, writer, reader, survey, merge
    noninferiority  bounds for "is it worse, and by more than a margin?"
    fitness     how much better one side of a trial is than the other (Numba, on first use)

Nothing here starts a thread, compiles, prints or registers when it is imported.
"""
