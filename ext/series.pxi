# Runs of whole numbers as few bytes: the residuals from a simple prediction, cut in two.
#
# A residual's low bits are noise and are packed as they are. In a column of many series the high bits of
# all are alike: they become planes of bytes for an entropy coder to follow, and how many bits are low is
# chosen per series, so that the planes of components with much and with little noise look the same. A
# series alone is too short for that: its few numbers with high bits are patched in by their positions.
#
# Differences wrap around modulo 2^64, here and in the reader: no number is too far from its prediction.
# docs/history-format.md says how the bytes lie. What is read is checked before it is used.

cdef enum:
    LEVEL = 0       # predicted: one number for the whole series
    PACE = 1        # predicted: the number before, plus a constant
    PATCHES = 9     # in place of a number of planes: high bits come as a list of patches
    FIXED = 6       # bytes before the parameters
    LISTED = 5      # bytes before the patches
    MAX_LOW = 56    # low bits and seven bits of offset fit one 64-bit load
    SAMPLE = 128    # values, or series, enough to choose a parameter by
    SPARE = 8       # bytes that storing 64 bits at once may touch past the end

cdef struct Layout:
    int kind
    int planes       # 0 to 8, or PATCHES
    int least        # low bits: the least of all series,
    int low_bits     # and the width of what is added to it
    int base_shift
    int base_bits
    int pace_bits
    Py_ssize_t lows  # where the parameters and the packed bits begin
    Py_ssize_t bases
    Py_ssize_t paces
    Py_ssize_t packed
    Py_ssize_t patches
    Py_ssize_t count  # of patches; their widths, and where the second of their parts begins
    int place_bits
    int patch_bits
    Py_ssize_t values
    Py_ssize_t end

cdef inline uint64_t zigzag(uint64_t value) noexcept nogil:
    return (value << 1) ^ (0 - (value >> 63))

cdef inline uint64_t unzigzag(uint64_t value) noexcept nogil:
    return (value >> 1) ^ (0 - (value & 1))

cdef inline int length_of(uint64_t value) noexcept nogil:
    """Bits that a number takes; 0 for 0."""
    return 64 - __builtin_clzll(value) if value else 0

cdef inline Py_ssize_t octets(Py_ssize_t count, int bits) noexcept nogil:
    return (count * bits + 7) >> 3

cdef inline uint64_t load(const uint8_t* place) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, place, 8)
    return little_endian(word)

cdef inline void store(uint8_t* place, uint64_t word) noexcept nogil:
    word = little_endian(word)
    memcpy(place, &word, 8)

cdef uint64_t bits_at(const uint8_t* data, Py_ssize_t start, int bits) noexcept nogil:
    """`bits` bits (0 to 64) from bit `start` on, the lowest first."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(bits):
        value |= <uint64_t>((data[(start + i) >> 3] >> ((start + i) & 7)) & 1) << i
    return value

cdef void put_bits(uint8_t* data, Py_ssize_t start, uint64_t value, int bits) noexcept nogil:
    """The inverse, into bytes that are still 0."""
    cdef int i
    for i in range(bits):
        data[(start + i) >> 3] |= ((value >> i) & 1) << ((start + i) & 7)

cdef void put_run(uint8_t* data, const uint64_t* values, Py_ssize_t n, int bits) noexcept nogil:
    """The low `bits` (1 to MAX_LOW) of n values, one behind another. Touches up to SPARE bytes too many."""
    cdef uint64_t mask = (<uint64_t>1 << bits) - 1
    cdef uint64_t gathered = 0
    cdef int filled = 0
    cdef Py_ssize_t i
    for i in range(n):
        gathered |= (values[i] & mask) << filled
        filled += bits
        store(data, gathered)
        data += filled >> 3
        gathered >>= filled & 56
        filled &= 7
    store(data, gathered)

cdef void get_run(
    const uint8_t* data, const uint8_t* end, uint64_t* values, Py_ssize_t n, int bits
) noexcept nogil:
    """The inverse; reads nothing at or after `end`."""
    cdef uint64_t mask = (<uint64_t>1 << bits) - 1
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t safe = 0
    if bits == 0:
        memset(values, 0, n * sizeof(uint64_t))
        return
    if end - data >= 8:
        safe = min(n, ((end - data) - 8) * 8 // bits)
    for i in range(safe):
        values[i] = (load(data + (at >> 3)) >> (at & 7)) & mask
        at += bits
    for i in range(safe, n):
        values[i] = bits_at(data, at, bits)
        at += bits

cdef int64_t median_of(int64_t* values, Py_ssize_t n) noexcept nogil:
    """The middle one, found by halving what it can be (Hoare 1961, FIND); reorders `values`."""
    cdef Py_ssize_t low = 0, high = n - 1, middle = n // 2, i, j
    cdef int64_t pivot, held
    while low < high:
        pivot = values[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                held = values[i]
                values[i] = values[j]
                values[j] = held
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            break
    return values[middle]

cdef void parameters(
    const int64_t* series, Py_ssize_t n, int kind, bint alone, int64_t* base, int64_t* pace
) noexcept nogil:
    """What the prediction starts from. A component of many has no pace: states do not march."""
    cdef int64_t sample[2 * SAMPLE]
    cdef Py_ssize_t stride = max(1, n // SAMPLE)
    cdef Py_ssize_t i = 0, count = 0
    pace[0] = 0
    if kind == LEVEL:
        while i < n:
            sample[count] = series[i]
            count += 1
            i += stride
        base[0] = median_of(sample, count)
        return
    base[0] = series[0]
    if alone and n > 1:
        i = 1
        while i < n:
            sample[count] = <int64_t>(<uint64_t>series[i] - <uint64_t>series[i - 1])
            count += 1
            i += stride
        pace[0] = median_of(sample, count)

cdef void residuals(
    const int64_t* series, Py_ssize_t n, int kind, int64_t base, int64_t pace, uint64_t* out
) noexcept nogil:
    """Each number less its prediction, zigzag."""
    cdef Py_ssize_t i
    if kind == LEVEL:
        for i in range(n):
            out[i] = zigzag(<uint64_t>series[i] - <uint64_t>base)
        return
    out[0] = zigzag(<uint64_t>series[0] - <uint64_t>base)
    for i in range(1, n):
        out[i] = zigzag(<uint64_t>series[i] - <uint64_t>series[i - 1] - <uint64_t>pace)

cdef inline double times_log(double count) noexcept nogil:
    return count * log2(count) if count > 0 else 0.0

cdef double cost_of(
    const Py_ssize_t* lengths, Py_ssize_t n, int longest, int low, bint alone
) noexcept nogil:
    """About how many bits n residuals take with `low` low ones, by the distribution of their lengths.

    In planes the high part of a number of L bits costs the information in L, and its bits below the
    leading one. Further planes are thought of as zeros, out of which every other byte stands as a literal
    between two matches.
    """
    cdef Py_ssize_t above = n
    cdef double bits = n * low
    cdef int i
    for i in range(low + 1):
        above -= lengths[i]
    if above == 0:
        return bits
    if alone:
        return bits + 8 * LISTED + <double>above * (length_of(n - 1) + longest - low)
    bits += times_log(n) - times_log(n - above)
    for i in range(low + 1, longest + 1):
        if lengths[i]:
            bits += lengths[i] * (i - low - 1) - times_log(lengths[i])
        if i > low + 1 and (i - low - 1) & 7 == 0:
            # `above` counts the numbers of i bits and more: those with a byte in this plane
            bits += min(28.0 * above, 10.0 * n)
        above -= lengths[i]
    return bits

cdef double low_of(const uint64_t* values, Py_ssize_t n, bint alone, int* low) noexcept nogil:
    """How many bits of these residuals to pack; returns about how many they all take then."""
    cdef Py_ssize_t lengths[65]
    cdef Py_ssize_t passed = 0, i
    cdef int longest = 0, middle = 0, candidate
    cdef double cost, best
    memset(lengths, 0, sizeof(lengths))
    for i in range(n):
        lengths[length_of(values[i])] += 1
    for candidate in range(65):
        if lengths[candidate]:
            longest = candidate
        if 2 * passed < n:
            middle = candidate
        passed += lengths[candidate]
    # Three or four bits above the noise's middle: the same in every series, so that the planes are alike.
    low[0] = min(MAX_LOW, max(0, middle - 4))
    best = cost_of(lengths, n, longest, low[0], alone)
    for candidate in range(min(longest, MAX_LOW) + 1):
        if 0 < candidate < middle - 4:
            continue
        cost = cost_of(lengths, n, longest, candidate, alone)
        if cost < (best if alone else 0.97 * best):
            best = cost
            low[0] = candidate
    return best

cdef int kind_of(
    const int64_t* series, Py_ssize_t width, Py_ssize_t n, uint64_t* room
) noexcept nogil:
    """The prediction that takes fewer bits, judged by some of the series."""
    cdef Py_ssize_t stride = max(1, width // 8)
    cdef Py_ssize_t which = 0
    cdef double level = 0, pace = 0
    cdef int64_t base, step
    cdef int low
    while which < width:
        parameters(series + which * n, n, LEVEL, width == 1, &base, &step)
        residuals(series + which * n, n, LEVEL, base, step, room)
        level += low_of(room, n, width == 1, &low)
        parameters(series + which * n, n, PACE, width == 1, &base, &step)
        residuals(series + which * n, n, PACE, base, step, room)
        pace += low_of(room, n, width == 1, &low) + (64 if width == 1 else 0)
        which += stride
    return PACE if pace < level else LEVEL

cdef inline int low_at(const uint8_t* body, const Layout* layout, Py_ssize_t which) noexcept nogil:
    return layout.least + <int>bits_at(body + layout.lows, which * layout.low_bits, layout.low_bits)

cdef bint understood(
    const uint8_t* body, Py_ssize_t length, Py_ssize_t width, Py_ssize_t n, Layout* layout
) noexcept nogil:
    """Where the parts of a body lie; False where it cannot be the body of width x n numbers."""
    cdef Py_ssize_t i
    cdef int low
    if length < FIXED:
        return False
    layout.kind = body[0] & 15
    layout.planes = body[0] >> 4
    layout.least = body[1]
    layout.low_bits = body[2]
    layout.base_shift = body[3]
    layout.base_bits = body[4]
    layout.pace_bits = body[5]
    if (
        layout.kind > PACE
        or layout.planes > PATCHES
        or layout.least > MAX_LOW
        or layout.low_bits > 6
        or layout.base_shift > 63
        or layout.base_bits > 64
        or layout.pace_bits > (64 if layout.kind == PACE else 0)
    ):
        return False
    layout.lows = FIXED
    layout.bases = layout.lows + octets(width, layout.low_bits)
    layout.paces = layout.bases + octets(width, layout.base_bits)
    layout.packed = layout.paces + octets(width, layout.pace_bits)
    if layout.packed > length:
        return False
    layout.end = layout.packed
    for i in range(width):
        low = low_at(body, layout, i)
        if low > MAX_LOW:
            return False
        layout.end += octets(n, low)
    layout.patches = layout.end
    layout.count = 0
    if layout.planes == PATCHES:
        if layout.end + LISTED > length:
            return False
        layout.count = <Py_ssize_t>bits_at(body + layout.end, 0, 32)
        layout.patch_bits = body[layout.end + 4]
        layout.place_bits = length_of(width * n - 1)
        if layout.count > width * n or layout.patch_bits > 64:
            return False
        layout.patches += LISTED
        layout.values = layout.patches + octets(layout.count, layout.place_bits)
        layout.end = layout.values + octets(layout.count, layout.patch_bits)
    return layout.end <= length

cdef inline Py_ssize_t plane_bytes(const Layout* layout, Py_ssize_t width, Py_ssize_t n) noexcept nogil:
    return 0 if layout.planes == PATCHES else layout.planes * width * n

cdef void summed(
    uint64_t* values, Py_ssize_t n, const uint8_t* body, const Layout* layout, Py_ssize_t which
) noexcept nogil:
    """Residuals to numbers, in place."""
    cdef uint64_t base = bits_at(body + layout.bases, which * layout.base_bits, layout.base_bits)
    cdef uint64_t pace
    cdef Py_ssize_t i
    base = unzigzag(base) << layout.base_shift
    if layout.kind == LEVEL:
        for i in range(n):
            values[i] = unzigzag(values[i]) + base
        return
    pace = unzigzag(bits_at(body + layout.paces, which * layout.pace_bits, layout.pace_bits))
    base -= pace
    for i in range(n):
        base += unzigzag(values[i]) + pace
        values[i] = base

cdef bint restore(
    const uint8_t* body, const Layout* layout, const uint8_t* planes, Py_ssize_t width, Py_ssize_t n,
    int64_t* out,
) noexcept nogil:
    """The numbers [width][n] of a body that was understood, and of planes of the right length.

    False where a patch lies outside of them.
    """
    cdef const uint8_t* place = body + layout.packed
    cdef uint64_t* values
    cdef Py_ssize_t which, i, at
    cdef int plane, shift
    for which in range(width):
        values = <uint64_t*>out + which * n
        shift = low_at(body, layout, which)
        get_run(place, body + layout.end, values, n, shift)
        place += octets(n, shift)
        if layout.planes == PATCHES:
            continue
        for plane in range(layout.planes):
            if shift < 64:
                for i in range(n):
                    values[i] |= <uint64_t>planes[(plane * width + which) * n + i] << shift
            shift += 8
        summed(values, n, body, layout, which)
    if layout.planes == PATCHES:
        values = <uint64_t*>out
        for i in range(layout.count):
            at = <Py_ssize_t>bits_at(body + layout.patches, i * layout.place_bits, layout.place_bits)
            if at >= width * n:
                return False
            shift = low_at(body, layout, at // n)
            values[at] |= bits_at(body + layout.values, i * layout.patch_bits, layout.patch_bits) << shift
        for which in range(width):
            summed(values + which * n, n, body, layout, which)
    return True

cdef Py_ssize_t planned(
    const int64_t* numbers, Py_ssize_t width, Py_ssize_t n, uint64_t* room, Layout* layout,
    int64_t* bases, int64_t* paces, int* lows,
) noexcept nogil:
    """Choose prediction, parameters and low bits of every series; returns the bytes up to the high bits.

    `room` holds n residuals; bases, paces and lows are filled.
    """
    cdef Py_ssize_t which, size
    cdef int most = 0
    cdef uint64_t all_bases = 0, all_paces = 0
    layout.kind = kind_of(numbers, width, n, room)
    layout.least = MAX_LOW
    for which in range(width):
        parameters(numbers + which * n, n, layout.kind, width == 1, &bases[which], &paces[which])
        residuals(numbers + which * n, n, layout.kind, bases[which], paces[which], room)
        low_of(room, n, width == 1, &lows[which])
        layout.least = min(layout.least, lows[which])
        most = max(most, lows[which])
    # Of many series the bases are cut short: a quarter of the last packed bit's worth is no loss.
    layout.base_shift = max(0, layout.least - 2) if width > 1 else 0
    for which in range(width):
        bases[which] = <int64_t>(<uint64_t>bases[which] + ((<uint64_t>1 << layout.base_shift) >> 1))
        bases[which] >>= layout.base_shift
        all_bases |= zigzag(<uint64_t>bases[which])
        all_paces |= zigzag(<uint64_t>paces[which])
    layout.low_bits = length_of(<uint64_t>(most - layout.least))
    layout.base_bits = length_of(all_bases)
    layout.pace_bits = length_of(all_paces)
    layout.lows = FIXED
    layout.bases = layout.lows + octets(width, layout.low_bits)
    layout.paces = layout.bases + octets(width, layout.base_bits)
    layout.packed = layout.paces + octets(width, layout.pace_bits)
    size = layout.packed
    for which in range(width):
        size += octets(n, lows[which])
    return size

cdef void filled(
    const int64_t* numbers, Py_ssize_t width, Py_ssize_t n, Layout* layout,
    const int64_t* bases, const int64_t* paces, const int* lows, uint8_t* body, uint64_t* above,
) noexcept nogil:
    """Write the body that was planned, all bytes of it still 0, and the high bits [width][n] to `above`.

    Completes the layout: how many planes the high bits take or, of a series alone, how many patches.
    """
    cdef uint8_t* place = body + layout.packed
    cdef uint64_t* row
    cdef uint64_t united = 0
    cdef Py_ssize_t which, i
    cdef int low
    layout.count = 0
    for which in range(width):
        low = lows[which]
        row = above + which * n
        put_bits(body + layout.lows, which * layout.low_bits, low - layout.least, layout.low_bits)
        put_bits(body + layout.bases, which * layout.base_bits, zigzag(bases[which]), layout.base_bits)
        put_bits(body + layout.paces, which * layout.pace_bits, zigzag(paces[which]), layout.pace_bits)
        residuals(
            numbers + which * n,
            n,
            layout.kind,
            <int64_t>(<uint64_t>bases[which] << layout.base_shift),
            paces[which],
            row,
        )
        if low:
            put_run(place, row, n, low)
            place += octets(n, low)
        for i in range(n):
            row[i] >>= low
            united |= row[i]
            layout.count += row[i] != 0
    layout.patch_bits = length_of(united)
    layout.place_bits = length_of(width * n - 1)
    layout.planes = (layout.patch_bits + 7) >> 3
    if width == 1 and layout.count:
        layout.planes = PATCHES
    body[0] = layout.kind | layout.planes << 4
    body[1] = layout.least
    body[2] = layout.low_bits
    body[3] = layout.base_shift
    body[4] = layout.base_bits
    body[5] = layout.pace_bits

cdef void patched(const Layout* layout, const uint64_t* above, Py_ssize_t n, uint8_t* out) noexcept nogil:
    """The list of patches, into bytes that are still 0."""
    cdef uint8_t* values = out + LISTED + octets(layout.count, layout.place_bits)
    cdef Py_ssize_t i, which = 0
    put_bits(out, 0, layout.count, 32)
    out[4] = layout.patch_bits
    for i in range(n):
        if above[i]:
            put_bits(out + LISTED, which * layout.place_bits, i, layout.place_bits)
            put_bits(values, which * layout.patch_bits, above[i], layout.patch_bits)
            which += 1
