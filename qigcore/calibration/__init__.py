"""What is learned of a healthy window for the sake of detection: pure functions of the window.

    record      what is learned, as it stands in a baseline's file
    trimming    leaves out what in the window is not of the healthy state
    season      what the hour of the day or week explains
    memory      what one snapshot foretells of the next (AR(1))
    whitening   what is left, made round; how a moving average of it is spread
    bounds      intervals that the healthy means lie in
    learning    all of it, in order; and whether it holds on snapshots that it was not learned from
    medians     without what numpy loads for them
    tails       upper tails of the laws involved
    limits      from a run length to the limits of the charts

No file, no clock, no randomness enters here, and nothing here decides whether a host is well.
"""
