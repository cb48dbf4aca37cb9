"""Repeats calls that the host declares idempotent, at errors that it declares transient.

errors                      the strategy
callsites  definitions      where a declared function is called, and what it is
attributes                  what a call through an object's attribute may call
dependencies                which libraries for repeating the host already has
repeats                     the lines that repeat a call
"""
