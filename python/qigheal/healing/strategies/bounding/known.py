"""What the standard library is known to do, as far as a proof that a value may be computed again needs it.

Only names are here, and what they promise; whoever adds one says that its result follows from its
arguments alone, in this process, and that calling it again does no harm. Nothing of a host belongs here.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DATA_BUILTINS = words("""
    abs all any ascii bin bool bytes chr complex divmod float format hash hex int isinstance issubclass len
    max min oct ord pow range repr round str sum
""")
"""Give immutable values; `max`, `min` and `sum` what they were given."""

HOLDING_BUILTINS = words("bytearray dict frozenset list set sorted tuple")
STREAM_BUILTINS = words("enumerate filter iter map reversed zip")
CONSTRUCTORS = words("bytes.fromhex float.fromhex int.from_bytes")

PURE_MODULES = words("""
    math cmath zlib base64 binascii struct html textwrap unicodedata operator statistics urllib.parse string
""")
"""Modules all of whose functions and values give immutable values, `EXCEPT` for a few."""

PURE_FUNCTIONS = words("""
    json.dumps re.sub re.escape fractions.Fraction decimal.Decimal datetime.timedelta datetime.date
    bisect.bisect bisect.bisect_left bisect.bisect_right time.sleep asyncio.sleep
""")
"""Give immutable values. To sleep again is the price of a lost entry, and no more."""

FLAT_FUNCTIONS = words("re.split re.findall collections.Counter collections.deque")
FRESH_FUNCTIONS = words("""
    json.loads re.match re.search re.fullmatch random.Random collections.defaultdict collections.OrderedDict
""")
FRESH_MODULES = words("hashlib")
STREAM_MODULES = words("itertools")
EXCEPT = words("""
    hashlib.file_digest operator.setitem operator.delitem operator.iadd operator.methodcaller operator.call
    operator.attrgetter urllib.parse.clear_cache
""")

TEXT_METHODS = words("""
    encode decode join split rsplit splitlines strip lstrip rstrip lower upper title capitalize casefold swapcase
    replace startswith endswith removeprefix removesuffix zfill ljust rjust center partition rpartition translate
    isdigit isalpha isalnum isspace isupper islower isnumeric isdecimal isidentifier bit_length bit_count to_bytes
    as_integer_ratio is_integer hex find rfind expandtabs
""")
"""Methods of text and numbers, with names that hardly anything else bears: allowed on arguments."""

FINDING_METHODS = words("count index")
"""The same, with names that lists bear too: allowed on an argument that is said to be text."""

TELLING_METHODS = words("""
    index count issubset issuperset isdisjoint format hexdigest digest group groups start end span total
""")
"""Methods of whatever else is made on the spot that give immutable values."""

READING_METHODS = words("get union intersection difference symmetric_difference elements")
LISTING_METHODS = words("split rsplit splitlines items keys values copy groupdict most_common")

CHANGING_METHODS = words("""
    append extend insert add update setdefault pop popitem remove discard clear sort reverse appendleft popleft
    choice choices sample shuffle seed
""")
"""What may happen to an object that was made on the spot, a generator with a seed included."""

DRAWING_METHODS = words(
    "random randint randrange gauss uniform getrandbits randbytes normalvariate expovariate"
)
"""The same, where it gives a number."""

PLAIN = words("int float str bool bytes tuple frozenset")
"""Types of immutable values."""

PLAIN_ANNOTATIONS = PLAIN - {"tuple", "frozenset"} | {"complex", "None"}
"""Annotations of numbers and text."""

MOMENTS = words("""
    time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.strftime
    datetime.datetime.now datetime.datetime.utcnow datetime.date.today datetime.datetime random.random
    random.randint random.randrange random.uniform random.gauss random.getrandbits uuid.uuid4 uuid.uuid1
""")
"""Give immutable values that are other ones each time."""
