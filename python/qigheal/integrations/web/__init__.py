"""What `integrations.fastapi` and `integrations.flask` are made of: nothing here names a framework.

hosting     the handle that a host gets: monitor, measured requests, clock, healer, alerts
hoststate   where the host's own figures are read      metering    requests, added up
asgi wsgi   who tells the meter of each request        ticking     the clock of each worker
healer      the one process that heals, for all workers of a store
ending      whether the server is being stopped
"""
