"""Proves that a function of the host may be cached, or says what stands in the way.

It may when the same arguments always give the same result, when calling it does nothing else, when the
result cannot be changed by whoever gets it, and when every argument can be hashed. Whatever is not on the
lists here is unproven. The proof is closed: arguments are plain values, nothing global that can change is
read, so that everything a function changes is its own.

Cached results may differ from computed ones in two ways, which is said where a patch is proposed: 0.0 and
-0.0 are one argument, and so are equal members of a tuple of other types. Functions that could tell these
apart are refused.
"""

from __future__ import annotations

import ast

from qigheal.healing.strategies.caching.bodies import Body, Proof
from qigheal.healing.strategies.caching.hashable import arguments
from qigheal.healing.strategies.caching.kinds import Kind, Unproven
from qigheal.healing.strategies.caching.sources import Module, Sources

__all__ = ["Proof", "Unproven", "prove"]


def prove(program: Sources, module: Module, function: ast.FunctionDef, numeric: bool) -> Proof:
    """The proof that `function` may be cached. Raises Unproven.

    numeric: whether arguments without an annotation were numbers in every recorded call; their use in
        arithmetic then shows that nothing else would work.
    """
    proof = _Prover(program).function(module, function, {})
    if proof.result != 0:
        raise Unproven("its result may be something that a caller can change")
    plain = arguments(module, function, numeric)
    if proof.floats and plain != "text":
        raise Unproven(f"{proof.floats} could tell 0.0 from -0.0, or 1 from 1.0")
    return proof


class _Prover:
    """One proof, which may lead through several functions."""

    def __init__(self, program: Sources) -> None:
        self.program = program
        self.done: dict[tuple[int, tuple[tuple[str, Kind], ...]], Proof] = {}
        self.running: set[int] = set()
        self.assumed: set[int] = set()

    def function(self, module: Module, function: ast.AST | None, given: dict[str, Kind]) -> Proof:
        """The proof of one function for arguments of these kinds, whatever its annotations say."""
        if not isinstance(function, ast.FunctionDef):
            raise Unproven("it calls what is no plain function")
        if id(function) in self.running:
            self.assumed.add(id(function))
            return Proof(0)  # a recursion: what its other ways out give decides
        key = (id(function), tuple(sorted(given.items())))
        if key not in self.done:
            self.running.add(id(function))
            proof = Body(self, module, function).proof(given)
            self.running.discard(id(function))
            if id(function) in self.assumed and proof.result != 0:
                raise Unproven("a recursion gives what a caller can change")
            self.done[key] = proof
        return self.done[key]
