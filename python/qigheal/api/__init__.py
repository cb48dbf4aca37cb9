"""What is served under `/api/self-healing`, whatever serves it.

    records     what is sent and taken, as JSON
    ...         who may ask for what, jobs, pages: no web framework is known in this room

`qigheal.integrations.fastapi` and `.flask` put the routes into a host's application; `qigheal serve` serves
them beside it.
"""

PREFIX = "/api/self-healing"
