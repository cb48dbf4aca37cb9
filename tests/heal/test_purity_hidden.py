"""Ways by which something that may be changed, or that is not pure, could come in unseen."""

from __future__ import annotations

import textwrap

import pytest

from qigheal.healing.strategies.caching.purity import Unprovable
from tests.heal.test_purity import proof

HIDDEN = {
    "list via dict.update kw": """
        def target(n):
            d={}
            d.update(a=[n])
            return tuple(d.values())
    """,
    "list via setdefault star": """
        def target(n):
            d={}
            p=(n,[n])
            d.setdefault(*p)
            return tuple(d.values())
    """,
    "list via star call": "def h(a,b):\n    return b\ndef target(n):\n    return h(*(n,[n]))",
    "list via kw call": "def h(a,*,b=None):\n    return b\ndef target(n):\n    return h(n,b=[n])",
    "list via comp": "def target(n):\n    return tuple([k] for k in range(n))",
    "list via zip star": "def target(n):\n    rows=[[n],[n]]\n    return tuple(zip(*[rows,rows]))",
    "list via max": "def target(n):\n    return max([n],[n+1])",
    "list via max star": "def target(n):\n    return max(*[[n],[n+1]])",
    "list via sum": "def target(n):\n    return sum([[n],[n]],[])",
    "list via next": "def target(n):\n    return next(iter([[n]]))",
    "list via next default": "def target(n):\n    return next(iter([]),[n])",
    "list via walrus": "def target(n):\n    if (x:=[n]):\n        return x\n    return 0",
    "list via for": "def target(n):\n    for x in [[n]]:\n        return x\n    return 0",
    "list via starred target": "def target(n):\n    a,*b=(n,n)\n    return b",
    "list via ifexp": "def target(n):\n    return n if n else [n]",
    "list via or": "def target(n):\n    return 0 or [n]",
    "list via slice assign": "def target(n):\n    a=[1]\n    a[0:1]=[[n]]\n    return a[0]",
    "list via insert": "def target(n):\n    a=[]\n    a.insert(0,[n])\n    return a[0]",
    "list via extend": "def target(n):\n    a=[]\n    a.extend([[n]])\n    return a.pop()",
    "list via sorted": "def target(n):\n    return sorted((n,1))",
    "list via split": "def target(n):\n    return str(n).split()",
    "list via copy": "def target(n):\n    a=[[n]]\n    return a.copy()[0]",
    "list via dictcomp": "def target(n):\n    return {k:[k] for k in range(n)}[0]",
    "list via mult": "def target(n):\n    return ([n]*3)[0:2]",
    "list via tuple add": "def target(n):\n    return (n,)+([n],)",
    "list via tuple mult": "def target(n):\n    return ([n],)*2",
    "list via aug tuple": "def target(n):\n    t=()\n    t+=([n],)\n    return t",
    "list via lambda map": "def target(n):\n    return tuple(map(lambda x:[x],range(n)))",
    "list via map fn": "def h(x):\n    return [x]\ndef target(n):\n    return tuple(map(h,range(n)))",
    "list via map builtin": "def target(n):\n    return tuple(map(list,(('a',),)))",
    "list via filter": "def target(n):\n    return tuple(filter(None,[[n]]))",
    "list via enumerate": "def target(n):\n    return tuple(enumerate([[n]]))",
    "list via dict.items": "def target(n):\n    return tuple({n:[n]}.items())",
    "list via dict.get default": "def target(n):\n    return {}.get(n,[n])",
    "list via recursion": "def target(n):\n    return [1] if n==0 else target(n-1)",
    "list via try else": """
        def target(n):
            try:
                x=n
            except ValueError:
                x=[n]
            return x
    """,
    "list via finally": "def target(n):\n    try:\n        return n\n    finally:\n        return [n]",
    "list via while else": "def target(n):\n    while n:\n        n-=1\n    else:\n        return [n]",
    "list via product": "import itertools\ndef target(n):\n    return tuple(itertools.product([[n]]))",
    "list via chain": "import itertools\ndef target(n):\n    return tuple(itertools.chain([[n]]))",
    "set": "def target(n):\n    return {n}|{2}",
    "dict or": "def target(n):\n    return {n:1}|{2:2}",
    "digest": "import hashlib\ndef target(n):\n    return hashlib.sha256(b'')",
    "match": "import re\ndef target(n):\n    return re.match('a','a')",
    "global digest": """
        import hashlib
        H=hashlib.sha256()
        def target(n):
            H.update(b'x')
            return H.hexdigest()
    """,
    "global iter": "IT=iter((1,2))\ndef target(n):\n    return next(IT)",
    "global gen": "IT=(x for x in (1,2))\ndef target(n):\n    return next(IT)",
    "fn attr": "def h(n):\n    return n\ndef target(n):\n    return h.x",
    "fn attr w": "def h(n):\n    return n\ndef target(n):\n    h.x=n\n    return n",
    "class call": "class A:\n    n=0\ndef target(n):\n    return A.n",
    "type()": "def target(n):\n    return type(n)",
    "getattr": "def target(n):\n    return getattr(n,'real')",
    "locals": "def target(n):\n    return str(locals())",
    "dunder": "def target(n):\n    return n.__class__",
    "__name__": "def target(n):\n    return __name__",
    "open alias": "read=open\ndef target(n):\n    return read('x')",
    "alias builtin": "length=len\ndef target(n):\n    return length('x')",
    "shadow local": "def target(n):\n    len=str\n    return len(n)",
    "mangled": """
        def __h(n):
            return n
        class A:
            @staticmethod
            def target(n):
                return __h(n)
    """,
    "conditional import": """
        try:
            from math import sqrt
        except ImportError:
            sqrt=None
        def target(n):
            return sqrt(n)
    """,
    "class name shadow static": """
        import time
        class A:
            @staticmethod
            def now():
                return time.time()
            @staticmethod
            def target(n):
                return A.now()
    """,
    "exc str": """
        def target(n):
            try:
                return 1//n
            except ZeroDivisionError as e:
                return str(e)
    """,
    "exc ret": """
        def target(n):
            try:
                return 1//n
            except ZeroDivisionError as e:
                return e
    """,
    "sort key impure": """
        import time
        def target(n):
            x=[n]
            x.sort(key=lambda v: time.time())
            return x[0]
    """,
    "min key impure": "import time\ndef target(n):\n    return min([n],key=lambda v: time.time())",
    "default impure": "import time\ndef target(n, t=time.time()):\n    return n",
    "deco static other": """
        def staticmethod(f):
            return f
        class A:
            @staticmethod
            def target(n):
                return n
    """,
    "global del": "X=1\ndef f():\n    global X\n    del X\ndef target(n):\n    return X",
    "with target": "X=1\nwith open('a') as X:\n    pass\ndef target(n):\n    return X",
    "for target": "X=1\nfor X in (1,2):\n    pass\ndef target(n):\n    return X",
    "aug global": "X=1\nX+=1\ndef target(n):\n    return X",
    "nested class": """
        class A:
            class B:
                @staticmethod
                def target(n):
                    return n
    """,
    "comp late": "import time\ndef target(n):\n    return sum(1 for time in range(n)) + time.time()",
    "iterating dict while mutated": """
        def target(n):
            d={}
            for k in range(n):
                d.setdefault(k,[]).append(k)
            return d[0]
    """,
}


@pytest.mark.parametrize("source", HIDDEN.values(), ids=HIDDEN.keys())
def test_nothing_comes_in_unseen(source: str) -> None:
    with pytest.raises(Unprovable) as caught:
        proof(textwrap.dedent(source), {"n": ["int"], "t": ["float"]})
    assert "cannot be read" not in str(caught.value)
