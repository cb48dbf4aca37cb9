"""The dashboard and the widget: one page each, with its script and style, as they are sent to a browser.

    dashboard.html  dashboard.css  widget.html     shells without data: what they show comes by the routes
    dashboard.js  widget.js                        what stands on each page, and when it is drawn
    access.js  stream.js                           tokens and requests; what is new, as it is recorded
    text.js  facts.js  basin.js  charts.js  history.js  patches.js  proof.js      one part of the page each

The chart library is plotly's own bundle, read from its wheel when a browser asks for it. Both pages work under
`default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:`. No route, no
framework and no data are known in this room.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from qigheal.errors import MissingExtra, QighealError

CHARTS = "plotly.min.js"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
COMPILED_AHEAD = b"//# allFunctionsCalledOnLoad\n"
"""Says to Chromium, and to others nothing: compile it all where it is read, beside the page. Else it is compiled
where it runs, and holds the page four times as long."""

_FOLDER = Path(__file__).resolve().parent


class NoSuchAsset(QighealError, KeyError):
    """The pages have no file of this name."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


class NoCharts(MissingExtra, NoSuchAsset):
    """The chart library is not installed; the pages work without it."""

    __str__ = Exception.__str__


def names() -> tuple[str, ...]:
    """Every name that `asset` knows, the chart library's last."""
    return (*sorted(path.name for path in _FOLDER.iterdir() if path.suffix in TYPES), CHARTS)


def asset(name: str) -> tuple[bytes, str]:
    """The content of one file of the pages and its media type.

    Raises NoSuchAsset for a name that is not among `names()`, and NoCharts, a MissingExtra, for the chart
    library without the extra [dashboard]: the pages work without it and say what is missing.
    """
    if name == CHARTS:
        return COMPILED_AHEAD + _charts().read_bytes(), TYPES[".js"]
    if name not in names():
        raise NoSuchAsset(f"expected one of the pages' files, got {name!r}; they are: {', '.join(names())}")
    path = _FOLDER / name
    return path.read_bytes(), TYPES[path.suffix]


def _charts() -> Path:
    """The bundle in plotly's wheel; found without importing plotly, which takes a second and 30 MB."""
    spec = find_spec("plotly")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (bundle := Path(place) / "package_data" / CHARTS).is_file():
            return bundle
    raise NoCharts("plotly", "dashboard", "the dashboard's charts")
