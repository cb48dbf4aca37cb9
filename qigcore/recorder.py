"""The ring that a service records to, and the snapshots in it; the work is done in `qigcore._recorder`.

A `Recorder` is safe to share between the threads of a process under the GIL. It holds nothing but
memory: files, learning and judgement belong to the rooms above.
"""

from __future__ import annotations

from qigcore._recorder import GeometricSnapshot, Recorder

__all__ = ["GeometricSnapshot", "Recorder"]
