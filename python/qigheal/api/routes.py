"""The table of routes: what each is called, where it lies, and who may ask. Nothing is answered here."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from qigheal.api.exchange import Right

Name = Literal[
    "health",
    "snapshots",
    "take_snapshot",
    "trends",
    "state",
    "heal",
    "job",
    "patches",
    "patch",
    "review",
    "phase",
    "stream",
    "dashboard",
    "widget",
    "asset",
    "openapi",
]


class Route(NamedTuple):
    """right: "glance" is open, and says more to who may read; "page" holds no data, and is open once anybody
    may read."""

    name: Name
    method: Literal["GET", "POST"]
    path: str  # below the prefix; {name} takes one part
    right: Right | Literal["glance", "page"]


ROUTES: Final = (
    Route("health", "GET", "/health", "glance"),
    Route("snapshots", "GET", "/snapshots", "read"),
    Route("take_snapshot", "POST", "/snapshot", "heal"),
    Route("trends", "GET", "/trends", "read"),
    Route("state", "GET", "/state", "read"),
    Route("heal", "POST", "/heal", "heal"),
    Route("job", "GET", "/jobs/{id}", "read"),
    Route("patches", "GET", "/patches", "read"),
    Route("patch", "GET", "/patches/{id}", "read"),
    Route("review", "POST", "/patches/{id}/review", "review"),
    Route("phase", "GET", "/phase", "read"),
    Route("stream", "GET", "/stream", "read"),
    Route("dashboard", "GET", "/dashboard", "page"),
    Route("widget", "GET", "/widget", "page"),
    Route("asset", "GET", "/assets/{file}", "page"),
    Route("openapi", "GET", "/openapi.json", "page"),
)
BY_NAME: Final = {route.name: route for route in ROUTES}


def methods_of(path: str) -> tuple[str, ...]:
    """The methods that a path below the prefix has; empty for none of ours."""
    parts = path.removeprefix("/").split("/")  # with a slash behind it, it is another path
    found = []
    for route in ROUTES:
        own = route.path.strip("/").split("/")
        if len(own) == len(parts) and all(
            part and (mine.startswith("{") or mine == part) for mine, part in zip(own, parts, strict=True)
        ):
            found += [route.method] + (["HEAD"] if route.method == "GET" else [])
    return tuple(found)
