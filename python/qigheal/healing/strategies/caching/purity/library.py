"""What is known of builtins and of the standard library: functions that depend on their arguments alone.

A short list on purpose. What is not in it is not called pure, whatever it is: what reads a clock, the
environment, a file, a lock, a locale, a context or the order of the program's start must not enter, nor
what keeps something from one call to the next that a caller can see.

Results are told in words: "int", "str|none", "tuple of int", "list of str" (a new list), "same" (what the
method was called on), "group" and "found" (what groups of a regular expression give). These are of texts: a
pattern of bytes may ask for the locale.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _each(result: str, prefix: str, names: str) -> dict[str, str]:
    """The same result for several functions of a module."""
    return {f"{prefix}.{name}": result for name in names.split()}


def _table(**results: str) -> dict[str, str]:
    """From `result = "name name"`, with "_or_" for "|" and "_of_" for " of "."""
    return {
        name: result.replace("_or_", "|").replace("_of_", " of ")
        for result, names in results.items()
        for name in names.split()
    }


BUILTINS: Final = _table(
    int="len int ord",
    bool="bool all any isinstance",
    float="float",
    str="str repr ascii format chr hex oct bin",
    bytes="bytes",
    tuple_of_int_or_float="divmod",
)
"""Those whose result does not follow from their arguments' types are in `calls`."""

PLAIN_ONLY: Final = frozenset(("str", "repr", "ascii", "format"))
"""Show what they are given: an object's address must not be part of it."""

TYPES: Final = frozenset(
    ("int", "bool", "float", "complex", "str", "bytes", "tuple", "list", "dict", "set", "frozenset")
)
CONSTRUCTORS: Final = {
    "int.from_bytes": "int",
    "bytes.fromhex": "bytes",
    "float.fromhex": "float",
    "str.maketrans": "dict of str|int|none",
}

EXCEPTIONS: Final = _words(
    "ValueError KeyError TypeError IndexError ZeroDivisionError OverflowError ArithmeticError "
    "LookupError UnicodeError UnicodeDecodeError UnicodeEncodeError AttributeError StopIteration "
    "NotImplementedError FloatingPointError AssertionError"
)
"""May be raised, and caught: what memory, time or the depth of the stack decides is not among them."""

FUNCTIONS: Final = {
    **_each(
        "float",
        "math",
        "sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh "
        "acosh atanh hypot dist pow fabs fmod remainder copysign degrees radians erf erfc gamma lgamma ldexp "
        "nextafter ulp",
    ),
    **_each("int", "math", "floor ceil trunc gcd lcm factorial isqrt comb perm"),
    **_each("bool", "math", "isnan isinf isfinite isclose"),
    "math.fsum": "float",
    "math.prod": "int|float",
    "math.modf": "tuple of float",
    "math.frexp": "tuple of float|int",
    "zlib.crc32": "int",
    "zlib.adler32": "int",
    "binascii.crc32": "int",
    "binascii.hexlify": "bytes",
    "binascii.unhexlify": "bytes",
    "base64.b64encode": "bytes",
    "base64.b64decode": "bytes",
    "base64.urlsafe_b64encode": "bytes",
    "base64.urlsafe_b64decode": "bytes",
    "unicodedata.normalize": "str",
    "unicodedata.category": "str",
    "html.escape": "str",
    "html.unescape": "str",
    "bisect.bisect": "int",
    "bisect.bisect_left": "int",
    "bisect.bisect_right": "int",
    "re.compile": "pattern",
    "re.escape": "str",
    **_each("match|none", "re", "match search fullmatch"),
    "re.sub": "str",
    "re.subn": "tuple of str|int",
    "re.split": "list of str|none",
    "re.findall": "found",
    "re.finditer": "iterator of match",
    **_each("digest", "hashlib", "md5 sha1 sha224 sha256 sha384 sha512 sha3_256 sha3_512 blake2b blake2s"),
}
CONSTANTS: Final = {
    **_each("float", "math", "pi e tau inf nan"),
    **_each(
        "str",
        "string",
        "ascii_letters ascii_lowercase ascii_uppercase digits hexdigits octdigits punctuation",
    ),
    **_each("int", "re", "IGNORECASE I MULTILINE M DOTALL S VERBOSE X ASCII A UNICODE U"),
}

MIXED: Final = frozenset(
    ("itertools.product", "itertools.combinations", "itertools.permutations", "itertools.pairwise")
)
"""Give tuples of what their arguments hold."""

CHAINED: Final = frozenset(("itertools.chain", "itertools.islice"))
"""Give what their arguments hold."""

_TEXT = _table(
    same="capitalize casefold center expandtabs ljust lower lstrip removeprefix removesuffix replace rjust rstrip "
    "strip swapcase title translate upper zfill join",
    int="count find index rfind rindex",
    bool="endswith isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace "
    "istitle isupper startswith",
)
METHODS: Final[dict[str, dict[str, str]]] = {
    "str": {
        **_TEXT,
        "encode": "bytes",
        "format": "str",
        "partition": "tuple of str",
        "rpartition": "tuple of str",
        **dict.fromkeys(("split", "rsplit", "splitlines"), "list of str"),
    },
    "bytes": {
        **{name: result for name, result in _TEXT.items() if name not in ("casefold", "isidentifier")},
        "decode": "str",
        "hex": "str",
        "partition": "tuple of bytes",
        "rpartition": "tuple of bytes",
        **dict.fromkeys(("split", "rsplit", "splitlines"), "list of bytes"),
    },
    "int": {
        "bit_length": "int",
        "bit_count": "int",
        "to_bytes": "bytes",
        "conjugate": "int",
        "is_integer": "bool",
        "as_integer_ratio": "tuple of int",
    },
    "float": {"is_integer": "bool", "as_integer_ratio": "tuple of int", "hex": "str"},
    "tuple": {"count": "int", "index": "int"},
    "digest": {"update": "none", "digest": "bytes", "hexdigest": "str", "copy": "digest"},
    "pattern": {
        **dict.fromkeys(("match", "search", "fullmatch"), "match|none"),
        "sub": "str",
        "subn": "tuple of str|int",
        "split": "list of str|none",
        "findall": "found",
        "finditer": "iterator of match",
    },
    "match": {
        "group": "group",
        "groups": "tuple of str|none",
        "groupdict": "dict of str|none",
        "expand": "str",
        "start": "int",
        "end": "int",
        "span": "tuple of int",
    },
}
METHODS["bool"] = METHODS["int"]

ZERO_BLIND: Final = _words(
    "len bool int isinstance all any ord abs math.exp math.cosh math.cos math.floor math.ceil "
    "math.trunc math.fabs math.isnan math.isinf math.isfinite math.isclose math.hypot "
    "float.is_integer float.as_integer_ratio tuple.count tuple.index"
)
"""Give the same for 0.0 and -0.0."""

ZERO_KEEPING: Final = _words(
    "float math.sqrt math.sin math.tan math.sinh math.tanh math.asin math.atan math.asinh math.atanh "
    "math.radians math.degrees math.expm1 math.log1p math.fsum math.prod math.erf"
)
"""Give results for them that differ by the sign of a zero at most. What is in neither list may tell more."""
