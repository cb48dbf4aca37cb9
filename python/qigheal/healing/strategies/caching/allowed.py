"""What a function may call and still be pure: lists by name, for `purity`. What is not here is unproven."""

from __future__ import annotations

PLAIN = frozenset(
    (
        "abs", "all", "any", "bin", "bool", "bytes", "chr", "complex", "divmod", "float", "format", "hex",
        "int", "isinstance", "len", "oct", "ord", "pow", "repr", "round", "str",
    )
)  # fmt: skip
"""Built-in functions whose result cannot be changed, whatever they are given."""

SHOWING = frozenset(["complex", "format", "hex", "repr", "str"])
"""Those of them that show the sign of a zero, or a number's type."""

PICKING = frozenset(("max", "min", "sum"))
KEYED = frozenset(("max", "min", "sorted"))
HOLDING = frozenset(("list", "set", "sorted", "reversed", "iter", "dict"))
"""Built-in functions that make something new which holds what they were given."""

PAIRING = frozenset(("enumerate", "range", "slice", "zip"))

CONSTANTS = frozenset(
    ("math.pi", "math.e", "math.tau", "math.inf", "math.nan", "string.ascii_letters", "string.ascii_lowercase",
     "string.ascii_uppercase", "string.digits", "string.hexdigits", "string.punctuation", "string.whitespace",
     "string.printable")
)  # fmt: skip

SIGN = frozenset(("math.copysign", "math.atan2"))
"""Functions that tell 0.0 from -0.0 by more than the sign of a zero."""

PURE = frozenset(
    ("statistics.mean", "statistics.fmean", "statistics.median", "statistics.stdev", "statistics.pstdev",
     "statistics.variance", "statistics.pvariance", "zlib.crc32", "zlib.adler32", "unicodedata.normalize",
     "unicodedata.category", "unicodedata.name", "bisect.bisect", "bisect.bisect_left", "bisect.bisect_right",
     "base64.b64encode", "base64.b64decode", "binascii.hexlify", "binascii.unhexlify", "re.sub", "re.escape",
     "html.escape", "html.unescape", "textwrap.dedent", "textwrap.fill", "textwrap.shorten")
)  # fmt: skip
"""Functions of the standard library with a result that cannot be changed."""

FILLED = frozenset(
    ("re.split", "re.findall", "itertools.accumulate", "itertools.chain", "itertools.combinations",
     "itertools.permutations", "itertools.product", "itertools.repeat", "itertools.islice", "itertools.pairwise",
     "itertools.zip_longest", "collections.Counter", "textwrap.wrap")
)  # fmt: skip
"""Functions of the standard library that give something new holding plain values, when given plain ones."""

DIGESTS = frozenset(
    f"hashlib.{name}"
    for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s")
)

PLAIN_METHODS = frozenset(
    (
        "capitalize", "casefold", "center", "count", "decode", "encode", "endswith", "expandtabs", "find",
        "format", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower",
        "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip",
        "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition",
        "rstrip", "startswith", "strip", "swapcase", "title", "translate", "upper", "zfill", "bit_count",
        "bit_length", "conjugate", "hex", "is_integer", "as_integer_ratio", "to_bytes", "digest", "hexdigest",
        "isdisjoint", "issubset", "issuperset",
    )
)  # fmt: skip
"""Methods of built-in values whose result cannot be changed."""

LISTING = frozenset(
    ("split", "rsplit", "splitlines", "keys", "values", "items", "copy", "union", "intersection", "difference",
     "symmetric_difference")
)  # fmt: skip

CHANGING = frozenset(
    ("append", "add", "extend", "insert", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear",
     "sort", "reverse")
)  # fmt: skip
"""Methods that change what they are called on, which must be the function's own."""

ARRAYS = frozenset(("numpy", "pandas", "torch", "jax", "tensorflow", "cupy", "polars", "xarray"))
"""Packages whose values take part in arithmetic and cannot be hashed."""
