"""Bounds what only grows: caches whose entries can be computed again, and lists that nothing reads.

memory                                  the strategy
bounds                                  which bound a container may get, and why not
containers  remembering  caches         how the host uses a container, a dict that remembers, a cache of results
escaping  shadowing  fields             where results go, and where a dataclass's objects do not
repeatable  settled  tables  known      proves that a value can be computed again
plain                                   what is plain data and holds nothing
edits                                   the lines that bound
"""
