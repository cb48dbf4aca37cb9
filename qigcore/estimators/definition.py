"""What an estimator is: a frozen definition with a fingerprint, kept in a file of its own.

The file is one JSON document: {"format": 1, "fingerprint": "…", "definition": {"kind": …, …}}. The
fingerprint is SHA-256 over the canonical JSON of the definition (keys in the order of the fields, floats in
their shortest form that reads back the same). Fields are never reordered; new ones come last, with
defaults that never change, and are left out where they hold: an old definition keeps its fingerprint.

Averages are no part of it: they belong to one process and one stretch of traffic.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import msgspec

from qigcore._estimators import Kernel, Reading, Readings
from qigcore.errors import EstimatorError
from qigcore.regular import read_regular, write_whole

OnInvalid = Literal["nan", "raise"]

FORMAT = 1

MOST = 65536
"""Bins, classes, components or centroids at most: more is a mistake, and would be paid by each request."""


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What all estimators are defined by.

    memory: requests that the averages reach back: the weight of the newest is 2/(memory + 1), so that they
        are as steady as plain means of `memory` independent requests. Raising it makes a basin steadier (for k
        equally used bins and one bin per request it scatters by about √((k − 1)/memory) rad) and later.
    """

    memory: int

    def __post_init__(self) -> None:
        within("memory", self.memory, 1, 10**9)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits; two definitions that read differently have different ones."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError, naming all of it, for a value that is not between low and high: whole ones, if those are."""
    if type(low) is int and type(value) is not int:  # numpy's own integers have no place in a JSON file
        raise ValueError(f"{name}: expected a whole number, an int, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected {low:g} to {high:g}, got {value!r}")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    fingerprint: str
    definition: msgspec.Raw


class _Kind(msgspec.Struct):
    kind: str


D = TypeVar("D", bound=Definition)


class Estimator(Generic[D]):
    """Takes requests in one at a time; its definition never changes.

    update(x): one request in, the `Reading` (phi, kappa, basin) after it. update_many(rows): the same for
    each row in order, to the same bits, as `Readings` of arrays, shapes [n], [n] and [n, dim].
    on_invalid: what becomes of a request that cannot be used. "nan": a reading of NaN, which the monitor's
        `record` repairs and flags, so that a served request never fails by it; "raise": InvalidBasin, which
        says what was expected and what came. Either way the averages stay as they were and `skipped` counts it.

    `update` may be called by several threads. A fork or another process averages for itself.
    """

    TYPE: ClassVar[type[Definition]]

    def __init__(self, definition: D, kernel: Kernel) -> None:
        self.definition = definition
        self.fingerprint = definition.fingerprint
        self._kernel = kernel
        # The kernel's own methods: nothing of Python's runs on the request path.
        self.update: Callable[[Any], Reading] = kernel.update
        self.update_many: Callable[[Any], Readings] = kernel.update_many

    @property
    def dim(self) -> int:
        """Components of its basins; the monitor's `dim` has to be the same."""
        return self._kernel.dim

    @property
    def count(self) -> int:
        """Requests taken in."""
        return self._kernel.count

    @property
    def skipped(self) -> int:
        """Requests that could not be used."""
        return self._kernel.skipped

    @property
    def ready(self) -> bool:
        """Whether the averages rest on `memory` requests: before that, their scatter is larger."""
        return self._kernel.ready

    @property
    def identity(self) -> str:
        """Kind and fingerprint, short enough for a monitor's `module_name`: "embedding-1f0c2a9b63d4"."""
        return f"{self.TYPE.__struct_config__.tag}-{self.fingerprint[:12]}"

    @classmethod
    def of(cls, definition: D, *, on_invalid: OnInvalid = "nan") -> Self:
        """A fresh one of this definition, its averages empty."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str], *, replace: bool = True) -> None:
        """Write the definition by an atomic rename; FileExistsError when it exists and `replace` is False."""
        document = _File(FORMAT, self.fingerprint, msgspec.Raw(msgspec.json.encode(self.definition)))
        write_whole(path, msgspec.json.encode(document) + b"\n", replace=replace)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, on_invalid: OnInvalid = "nan") -> Self:
        """A fresh one of the definition in a file that `save` wrote.

        Raises EstimatorError where the file cannot be read, holds another kind of estimator, or does not
        match its own fingerprint.
        """
        try:
            data = read_regular(path)
        except OSError as error:
            raise EstimatorError(f"{path}: an estimator cannot be read there: {error.strerror}") from error
        try:
            document = msgspec.json.decode(data, type=_File)
            if document.format != FORMAT:
                raise EstimatorError(f"expected format {FORMAT}, got {document.format}")
            kind, tag = (
                msgspec.json.decode(document.definition, type=_Kind).kind,
                cls.TYPE.__struct_config__.tag,
            )
            if kind != tag:
                raise EstimatorError(f"expected an estimator of kind {tag!r}, got {kind!r}")
            definition: Any = msgspec.json.decode(document.definition, type=cls.TYPE)
            if definition.fingerprint != document.fingerprint:
                raise EstimatorError(
                    f"expected a definition of fingerprint {document.fingerprint[:12]}, got one of "
                    f"{definition.fingerprint[:12]}: the file was changed after it was written"
                )
            return cls.of(definition, on_invalid=on_invalid)
        except (msgspec.DecodeError, RecursionError, ValueError, EstimatorError) as error:
            raise EstimatorError(
                f"{path}: {error}; restore the file, or fit anew and relearn the baseline"
            ) from error
