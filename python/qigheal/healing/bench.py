"""Measures a tree of the host's repository with the host's own probe, in a sandbox.

The parent owns clock, order and requests; what a probe says of itself is checked for form here and
for plausibility by the judge. Nothing here knows what a patch is for or which side is better.

Protocol: each line on the probe's standard input, `{"batch": 7, "seed": 123}`, is answered by one line
on its standard output holding a JSON object: `phi`, `kappa_eff`, `basin_coords`, and optionally
`error_rate`, `avg_latency_ms`, `output_digest`, `output_digests` and the `batch` it answers. Every other line
is its log, except one that begins an object and is none: that is a broken answer, not worth waiting out the time for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import select
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from qigheal.errors import ProbeError
from qigheal.healing.inspection import MARK, looked_into
from qigheal.host import PatchLimits
from qigheal.host.refusals import refused_path
from qigheal.records import Answer
from qigheal.sandbox.processes import queued

if TYPE_CHECKING:
    from qigheal.host import Manifest
    from qigheal.repo import Repo
    from qigheal.sandbox import Completed, Running, Sandbox

T = TypeVar("T")

MEMORY_MB = 2048
"""What a probe and its children may hold together, and each of them address."""

TESTS_TIMEOUT_S = 600.0
LINES_CAP = 1 << 20
"""Bytes that a probe may write from one answer to the next, the answer included."""

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""Keeps glibc from handing memory back between answers. By default it is chance, settled when a process
starts, whether it does so after each one: one process of four then answered up to twice as slowly."""

LOOKED_AT = 10.0
"""How many times its `timeout_s` an answer may take while an instrument looks on."""

WARM_UP = 3
"""Answers that `batches` throws away first: they measure start-up and filling caches."""

_ROUNDING = 1e-9  # 1 − H/ln n may end just outside [0, 1]
_WATCH_S = 0.25  # how often the memory of a thinking probe is looked at
_EXIT_S = 1.0  # from the end of a probe's output to its own end


def _request(kind: str, number: int) -> int:
    """A seed of 31 bits that no other request of either kind is likely to share."""
    return int.from_bytes(hashlib.blake2b(f"{kind} {number}".encode(), digest_size=4).digest()) >> 1


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line holds; None for a line of log."""
    text = line.strip()
    if not text.startswith(b"{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if text.startswith(b'{"'):
            raise ProbeError(f"expected a JSON object in one line, got {_shown(text)}") from None
        return None  # such as the repr of a dict
    return found if isinstance(found, dict) else None


def _shown(text: bytes) -> str:
    return ascii(text[:120].decode(errors="replace")) + (" ..." if len(text) > 120 else "")


def _number(answer: dict[str, Any], key: str, low: float, high: float, default: float | None = None) -> float:
    value = answer.get(key, default)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(value, (bool, str)) and low <= float(value) <= high:  # type: ignore[arg-type]
            return float(value)  # type: ignore[arg-type]
    got = f"{value!r:.60}" if key in answer else "nothing"
    raise ProbeError(f"{key}: expected a number from {low:g} to {high:g}, got {got}")


def _basin(answer: dict[str, Any]) -> tuple[float, ...]:
    values = answer.get("basin_coords")
    if not isinstance(values, list) or len(values) < 2:
        raise ProbeError(f"basin_coords: expected a list of at least 2 numbers, got {values!r:.60}")
    with contextlib.suppress(TypeError, OverflowError):
        basin = tuple(map(float, values))
        if (
            all(map(math.isfinite, basin))
            and any(basin)
            and not any(isinstance(v, (bool, str)) for v in values)
        ):
            return basin
    raise ProbeError("basin_coords: expected finite numbers that are not all 0")


def _digests(answer: dict[str, Any]) -> tuple[str | None, tuple[str | None, ...] | None]:
    """The digest of all that was answered, and those of each request. The first follows from the second."""
    digest, each = answer.get("output_digest"), answer.get("output_digests")
    if not isinstance(digest, str | None):
        raise ProbeError(f"output_digest: expected text, got {digest!r:.60}")
    if digest is not None and (len(digest) > LONGEST_DIGEST or not digest.isascii()):
        # The text itself: a proof of a hundred answers would be too large, and half a character is no UTF-8.
        digest = _sha256(digest)
    if each is None:
        return digest, None
    if not isinstance(each, list) or not all(isinstance(one, str | None) for one in each):
        raise ProbeError(f"output_digests: expected a list of texts and nulls, got {each!r:.60}")
    return digest or _sha256(json.dumps(each)), tuple(each)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Queued = dict[int, tuple[float, float]]

LONGEST_DIGEST = 256
"""Characters of a digest that is kept as it is; a longer one is digested again."""

ONE_THREAD = 0.8
"""The part of the tree's CPU time from which one thread counts as having done the work."""


def _waited(theirs: tuple[Queued, Queued], ours: tuple[Queued, Queued], cpu_s: float, wall_s: float) -> float:
    """Seconds of an answer in which it was ready to go on and other programs had the processors.

    Told of one thread that did the work, and of the parent that took the answer. Where several threads
    worked at once, they may have waited for one another, which is the code's own doing: 0 then. What the
    thread ran is never taken off: it may have gone on waiting after its answer.
    """
    before, after = theirs
    both = after.keys() & before.keys()
    spent = [(after[pid][0] - before[pid][0], after[pid][1] - before[pid][1]) for pid in both]
    ran_s, waited_s = max(spent, default=(0.0, 0.0))
    if ran_s < ONE_THREAD * cpu_s:
        return 0.0
    if ours[0] and ours[1]:
        waited_s += ours[1][0][1] - ours[0][0][1]
    return max(0.0, min(waited_s, wall_s - ran_s))


def _files(folder: Path) -> list[str]:
    """Every file below `folder`, as git writes its path."""
    found = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return [file.relative_to(folder).as_posix() for file in found]


class Probe:
    """A running probe. After the first error it is dead, and every further question raises ProbeError."""

    def __init__(self, running: Running, timeout_s: float, agree: Callable[[int], int]) -> None:
        self._running = running
        self._timeout_s = timeout_s
        self._agree = agree
        self._source, self._sink = running.stdout.fileno(), running.stdin.fileno()
        os.set_blocking(self._sink, False)
        self._readable = select.poll()
        self._readable.register(self._source, select.POLLIN)
        self._pending = bytearray()
        self._searched = 0  # how much of it is known to hold no newline
        self._received = 0  # bytes since the last answer
        self._cpu_s: float | None = None
        self._dead = ""
        self.evidence: bytes | None = None  # what an instrument inside has said

    def ask(self, batch: int, seed: int) -> Answer:
        """Put one question and measure the answer.

        batch: which of the recorded requests. seed: what the probe may draw with.
        The CPU time of an answer counts from the answer before it, so that work done in advance is
        not free; the wall time counts from the question.

        Raises ProbeError for a probe that hangs, dies, floods, takes too much memory, answers what
        the protocol does not allow, or answers out of turn. An answer too many is seen when the next
        question is put, if it has come by then, and by `finish` in any case.
        """
        with self._deadly(f"batch {batch}"):
            self._refuse_unasked()
            if self._cpu_s is None:
                self._cpu_s = self._running.usage().cpu_s
            theirs, ours = self._running.queued(), queued()
            answer, wall_s = self._put(b'{"batch": %d, "seed": %d}\n' % (batch, seed))
            used = self._running.usage()
            cpu_s, self._cpu_s = used.cpu_s - self._cpu_s, used.cpu_s
            waited_s = _waited((theirs, self._running.queued()), (ours, queued()), cpu_s, wall_s)
            self._check_memory(used.rss_mb)
            if answer.get("batch", batch) != batch:
                raise ProbeError(f"answered out of turn: this is the answer to batch {answer['batch']!r:.60}")
            basin = _basin(answer)
            if len(basin) != self._agree(len(basin)):
                raise ProbeError(
                    f"basin_coords: expected {self._agree(len(basin))} numbers as before, got {len(basin)}"
                )
            digest, each = _digests(answer)
            return Answer(
                batch=batch,
                phi=min(1.0, max(0.0, _number(answer, "phi", -_ROUNDING, 1.0 + _ROUNDING))),
                kappa_eff=_number(answer, "kappa_eff", -1e300, 1e300),
                basin=basin,
                error_rate=_number(answer, "error_rate", 0.0, 1.0, 0.0),
                avg_latency_ms=_number(answer, "avg_latency_ms", 0.0, 1e300, 0.0),
                wall_ms=1000 * wall_s,
                cpu_ms=1000 * cpu_s,
                waited_ms=1000 * waited_s,
                rss_mb=used.rss_mb,
                output_digest=digest,
                output_digests=each,
            )

    def finish(self) -> None:
        """End the questions and let the probe end. Raises ProbeError when it answers once more, or hangs."""
        with self._deadly("the end of its input"):
            self._running.stdin.close()
            deadline = time.perf_counter() + self._timeout_s
            while True:
                self._refuse_unasked()
                try:
                    self._receive(deadline)
                except EOFError:
                    break
            self._refuse_unasked()
        self._dead = "it was told to end"

    @contextlib.contextmanager
    def _deadly(self, asked: str) -> Iterator[None]:
        """Whatever goes wrong inside ends the probe, and the message says what it had been asked."""
        if self._dead:
            raise ProbeError(f"the probe is no longer running: {self._dead}")
        try:
            yield
        except (ProbeError, EOFError) as error:
            what = str(error)
            if isinstance(error, EOFError):
                code = self._running.exit_code(_EXIT_S)
                how = "closed its output" if code is None else f"ended with code {code}"
                what = f"{how} instead of answering"
            self._running.kill("protocol")
            said = self._running.close().stderr.strip()
            last = f"; the end of its standard error: {_shown(said[-120:])}" if said else ""
            self._dead = f"probe asked for {asked}: {what}{last}"
            raise ProbeError(self._dead) from None

    def _put(self, question: bytes) -> tuple[dict[str, Any], float]:
        began = time.perf_counter()
        try:
            os.write(self._sink, question)
        except BlockingIOError:
            raise ProbeError("it answers without reading its questions") from None
        except BrokenPipeError:
            pass  # it has ended; reading says how
        arrived = began
        while True:
            while (line := self._line()) is not None:
                answer = self._object(line)
                if answer is not None:
                    self._received = len(self._pending)
                    return answer, arrived - began
            self._receive(began + self._timeout_s)
            arrived = time.perf_counter()

    def _refuse_unasked(self) -> None:
        """Nothing but log may have come since the last answer."""
        while self._readable.poll(0):
            try:
                self._receive(math.inf)
            except EOFError:
                break
        while (line := self._line()) is not None:
            if self._object(line) is not None:
                raise ProbeError(f"answered out of turn, without a question: {_shown(line)}")

    def _object(self, line: bytes) -> dict[str, Any] | None:
        if line.startswith(MARK):
            self.evidence = line.removeprefix(MARK)
        return _object(line)

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._pending)
            return None
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        self._searched = 0
        return line

    def _receive(self, deadline: float) -> None:
        """Take what has come, waiting for it until `deadline`. Raises EOFError at the end of the output."""
        while not self._readable.poll(1000 * max(0.0, min(_WATCH_S, deadline - time.perf_counter()))):
            if time.perf_counter() >= deadline:
                last = _shown(bytes(self._pending)) if self._pending else "nothing"
                raise ProbeError(
                    f"no answer within {self._timeout_s:g} s (after {last}); is each answer one line, "
                    "printed with flush=True? If it needs longer, raise timeout_s under [probe] in qigheal.toml"
                )
            self._check_memory(self._running.usage().rss_mb)
        piece = os.read(self._source, 65_536)
        if not piece:
            raise EOFError
        self._pending += piece
        self._received += len(piece)
        if self._received > LINES_CAP:
            raise ProbeError(f"wrote more than {LINES_CAP} bytes from one answer to the next; print less")

    @staticmethod
    def _check_memory(rss_mb: float) -> None:
        if rss_mb > MEMORY_MB:
            raise ProbeError(f"expected at most {MEMORY_MB} MB of memory, got {rss_mb:.0f} MB")


class Bench:
    """The measuring bench of one base commit.

    repo, manifest: the host. sandbox: where everything runs. base: the commit to compare
    with. workdir: an existing folder for the trees; `close` removes what was made in it.

    A tree is named by None (the base), by a unified diff against the base, or by a commit's name.
    """

    def __init__(self, repo: Repo, manifest: Manifest, sandbox: Sandbox, base: str, workdir: Path) -> None:
        self.manifest = manifest
        self.base = base
        self.level = sandbox.level
        self.failure = ""  # how the base's own probe failed last, for whoever has to mend it
        self._repo = repo
        self._sandbox = sandbox
        self._folder = Path(tempfile.mkdtemp(prefix="bench-", dir=workdir))
        self._trees: dict[str | None, Path] = {}
        self._components: int | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the exported trees."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._trees.clear()

    def tree(self, diff: str | None = None) -> Path:
        """The files of a tree, exported once; what no patch may touch is always the base's.

        Raises PatchError when the diff does not apply, RepoError when a name names no commit.
        """
        if diff not in self._trees:
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            self._repo.export(self._tree_sha(diff), folder)
            if diff is not None:
                self._protect(folder)
            for place, _, _ in os.walk(folder):
                os.chmod(place, 0o755)  # noqa: S103  the user inside is another one
            self._trees[diff] = folder
        return self._trees[diff]

    @contextlib.contextmanager
    def probe(self, diff: str | None = None) -> Iterator[Probe]:
        """A probe at work on a tree; killed at the end of the block, whatever it is doing.

        A probe belongs to the thread that starts it, see `Running`.
        """
        probe = self.manifest.probe
        with self._started(probe.command, diff, probe.timeout_s) as started:
            try:
                yield started
            except ProbeError as failure:
                if diff is None:
                    self.failure = str(failure)
                raise

    def inspect(
        self,
        instrument: str,
        requests: Sequence[tuple[int, int]],
        kind: type[T],
        *,
        options: Mapping[str, Any] | None = None,
        diff: str | None = None,
        slower: float = LOOKED_AT,
    ) -> T:
        """What an instrument of `inspection` sees while the probe answers `requests`, as a record `kind`.

        slower: how many times its `timeout_s` an answer may take meanwhile.

        Raises ProbeError when the probe cannot be looked into, fails while it is, or when what comes
        back is no such record.
        """
        command = looked_into(self.manifest.probe.command, instrument, options or {})
        with self._started(command, diff, slower * self.manifest.probe.timeout_s) as probe:
            for request in requests:
                probe.ask(*request)
            probe.finish()
        if probe.evidence is None:
            raise ProbeError(f"the probe ended without what the instrument {instrument!r} saw in it")
        try:
            return msgspec.json.decode(probe.evidence, type=kind)
        except msgspec.MsgspecError as error:
            raise ProbeError(
                f"expected what the instrument {instrument!r} says, got something else: {error}"
            ) from error

    @contextlib.contextmanager
    def _started(self, command: Sequence[str], diff: str | None, timeout_s: float) -> Iterator[Probe]:
        with self._sandbox.start(
            command,
            tree=self.tree(diff),
            memory_mb=MEMORY_MB,
            env=ALLOCATOR,
            interpreter=self._interpreter(),
        ) as running:
            yield Probe(running, timeout_s, self._agree)

    def run_tests(self, diff: str | None = None) -> Completed | None:
        """The host's tests on a throw-away copy of a tree; None when the manifest names none."""
        command = self.manifest.tests.command
        if not command:
            return None
        return self._sandbox.run(
            command,
            tree=self.tree(diff),
            timeout_s=TESTS_TIMEOUT_S,
            memory_mb=MEMORY_MB,
            writable=True,
            interpreter=self._interpreter(),
        )

    def batches(self, diff: str | None, n: int) -> list[Answer]:
        """`n` answers of one probe, to the first search requests, after `WARM_UP` others thrown away."""
        with self.probe(diff) as probe:
            for request in self.search_requests(WARM_UP, start=n):
                probe.ask(*request)
            answers = [probe.ask(*request) for request in self.search_requests(n)]
            probe.finish()
        return answers

    def search_requests(self, n: int, start: int = 0) -> list[tuple[int, int]]:
        """Requests (batch, seed) for finding a patch: the even batches."""
        return [(2 * i, _request("search", i)) for i in range(start, start + n)]

    def trial_requests(self, n: int, start: int = 0) -> list[tuple[int, int]]:
        """Requests (batch, seed) for judging a patch: the odd batches, which no search has seen."""
        return [(2 * i + 1, _request("trial", i)) for i in range(start, start + n)]

    def _tree_sha(self, diff: str | None) -> str:
        if diff is None:
            return self.base
        return self._repo.apply(self.base, diff) if "\n" in diff else self._repo.resolve(diff)

    def _protect(self, folder: Path) -> None:
        """Give `folder` the base's version of everything that no patch may touch.

        Such files decide how the code is started, measured and tested: a tree must not bring its own.
        """
        every = msgspec.structs.replace(self.manifest, patch=PatchLimits(allow=("**",)))
        for path in _files(folder):
            if refused_path(every, path) is not None:
                (folder / path).unlink()
        base = self.tree()
        for path in _files(base):
            if refused_path(every, path) is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(base / path, folder / path)

    def _interpreter(self) -> str | None:
        """As the manifest names it; a relative path starts at the repository's root."""
        named = self.manifest.probe.interpreter
        return None if named is None else str(self._repo.root / named)

    def _agree(self, components: int) -> int:
        """How many components basins have here: as many as in the first answer."""
        if self._components is None:
            self._components = components
        return self._components
