"""What `integrations.qigchain` is made of.

hooking     how an object gets a `run` of ours and loses it again, itself untouched
trajectory  a run's result as snapshots       statedir    the folder of the earlier modules
childheal   a healing pass in a process of its own
"""
