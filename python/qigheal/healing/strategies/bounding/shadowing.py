"""Whether a name is a function's own variable, and so not what the module calls the same.

Told from the text of one file by the rules of the language; what the variable holds is not asked here.
"""

from __future__ import annotations

import ast

from qigheal.healing.hostcode.program import Function, Source

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def is_local(source: Source, name: ast.Name) -> bool:
    """Whether a name is certainly one that a function, lambda or comprehension around it is given or assigns to.

    Not where it may be of the module after all, or is bound by an import or a definition.
    """
    before: ast.AST = name
    inner: ast.AST = name
    inside = False  # of a scope that does not see the names of a class around it
    while (outer := source.parents.get(inner)) is not None:
        if isinstance(outer, ast.ClassDef) and not inside:
            return False
        if isinstance(outer, COMPREHENSIONS):
            # What the first loop goes through is looked up outside of the comprehension.
            own = not (inner is outer.generators[0] and before is outer.generators[0].iter)
            if own and name.id in _targets(outer):
                return True
            inside = inside or own
        elif isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            own = inner is outer.body if isinstance(outer, ast.Lambda) else inner in outer.body
            if own and name.id in _assigned(outer):
                return not _doubtful(outer, name.id)
            inside = inside or own
        before, inner = inner, outer
    return False


def _targets(comprehension: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> set[str]:
    return {
        node.id
        for generator in comprehension.generators
        for node in ast.walk(generator.target)
        if isinstance(node, ast.Name)
    }


def _assigned(function: Function | ast.Lambda) -> set[str]:
    """Names that are a function's arguments or are assigned to in its own scope, by statements or `:=`."""
    arguments = function.args
    found = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    todo: list[ast.AST] = [] if isinstance(function, ast.Lambda) else [*function.body]
    while todo:
        node = todo.pop()
        if isinstance(node, (*DEFINITIONS, *COMPREHENSIONS, ast.Lambda)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        todo.extend(ast.iter_child_nodes(node))
    return found


def _doubtful(function: Function | ast.Lambda, name: str) -> bool:
    """Whether anything in a function says that the name is the module's, or binds it to what has a name elsewhere."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names:
            return True
        if isinstance(node, DEFINITIONS) and node is not function and node.name == name:
            return True
        if isinstance(node, (ast.Import, ast.ImportFrom)) and any(
            name in (alias.asname, alias.name.partition(".")[0]) for alias in node.names
        ):
            return True
    return False
