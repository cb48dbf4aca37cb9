"""The OpenAPI description of the routes, made from the records: one for every framework.

Schemas stand where they are used and not under `components`: so an operation can be put beside those of a host,
whose document has components of its own.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from qigheal.api import examples, records
from qigheal.api.access import HOLDING, VARIABLES
from qigheal.api.exchange import JSON, Right
from qigheal.api.routes import ROUTES, Name, Route
from qigheal.api.stream import MEDIA

VERSION: Final = "1.0"
"""Of the interface: fields, routes and parameters are only added within 1."""

SCHEMES: Final[dict[Right, tuple[str, str]]] = {
    right: (f"qigheal_{right}", f"The token of {' or '.join(VARIABLES[held] for held in HOLDING[right])}.")
    for right in VARIABLES
}
"""Name and description of the security scheme of each right."""

ABOUT: Final = (
    "What a service recorded of itself, whether it is well, and what is proposed and done when it is not. Errors "
    "are `Error` documents. Times are Unix seconds, drift is in radians, shares and rates are from 0 to 1."
)

SAID: Final[dict[Name, tuple[str, str]]] = {
    "health": (
        "Health now",
        "The status code says it too: 200 healthy or still learning, 207 a warning, 503 critical. This is no "
        "liveness probe: a service that is unwell still serves, and one that is restarted for it learns nothing and "
        "loses what it holds. Without a token: status and severity alone.",
    ),
    "snapshots": (
        "Recorded snapshots, oldest first",
        "Those of all workers. Without `since` the newest `limit`. With it those later than that time, `limit` of "
        "them. Following `next_since`, with `next_skip` as `skip` where a page ended amid snapshots of one time, "
        "misses none and repeats none: while other workers live, such a page ends before what one of "
        "them may have recorded and not written yet, some 10 s ago. The first page, without `since`, has these "
        "newest ones as well, and its `next_since` lies before them. With `basins` of thousands of components a "
        "page is shorter than `limit`.",
    ),
    "take_snapshot": (
        "Have a snapshot taken now",
        "By the host's own reading. 409 where the service takes its snapshots by itself, the reading "
        "failed, or what it gave cannot be stored.",
    ),
    "trends": (
        "Where each metric is heading",
        "Over the last `window` snapshots of all workers; slopes are per snapshot.",
    ),
    "state": (
        "Where the basin is, and where it is when healthy",
        "Component by component, with the limits and bands in force.",
    ),
    "heal": (
        "Start a healing pass",
        "202 with the job, which runs in a process of its own; 200 with `triggered` false where nothing is wrong. One "
        "job runs at a time per store, whoever asks: 409 meanwhile. What a pass may do is decided by the phase.",
    ),
    "job": (
        "A job and what came of it",
        "`result` is the document that the command printed. Old jobs are removed.",
    ),
    "patches": (
        "Changes and measured patches, newest first",
        "Of changes the present state; of patches that were judged and never opened: measured.",
    ),
    "patch": (
        "One patch with its proof",
        "Its diff, each time that it was judged, and what both sides measured. A review names its `fingerprint`.",
    ),
    "review": (
        "Approve or reject a patch",
        "202 with the job: an approved change is merged and deployed by it. 409 when the patch is another than "
        "`fingerprint` says, waits for no review, or a job runs. The reviewer and the reason stand in the ledger.",
    ),
    "phase": (
        "The phase, and what the next gate asks for",
        "Which strategies apply to the host is not looked up here, so that this criterion stays unmeasured: "
        "`qigheal phase status --host` measures it.",
    ),
    "stream": (
        "Live events",
        "Server-sent events: `snapshot` (a Snapshot), `health` (a Health; the first one at once) and `patches` "
        "(Patches, when the ledger changed), and comments that keep the connection open. Of a service that records "
        "more than 100 snapshots a second, an even selection is told. A client that does not keep up is cut off. Each "
        "stream ends after 20 s: connect again. 429 when too many listen, or none can.",
    ),
    "dashboard": ("The dashboard's page", "It holds no data, and asks for the read token."),
    "widget": ("A small page to embed", "It holds no data, and asks for the read token."),
    "asset": ("A file of the pages", "Script, style and charts."),
    "openapi": ("This description", "OpenAPI 3.1."),
}

ERRORS: Final = {
    401: "No token, or a wrong one",
    403: "Not enabled here, or a token without this right; `detail` says how to enable it",
    404: "There is none of this name",
    409: "Not now, or not on this store; `error` says which: busy, changed, not_waiting, not_taken, automatic, "
    "store_unusable, or store_busy where another process has held the ledger for a second",
    413: "The body is too large",
    422: "A parameter or the body is not as described",
    429: "Too many wrong tokens from this address, or too many requests of this kind; see Retry-After",
}
"""What an error status means, where a route has it."""

OWN_ERRORS: Final[dict[Name, tuple[int, ...]]] = {
    "snapshots": (422,),
    "take_snapshot": (409,),
    "trends": (422,),
    "heal": (409,),
    "job": (404,),
    "patches": (409,),
    "patch": (404, 409),
    "review": (404, 409, 422),
    "phase": (409,),
    "dashboard": (404,),
    "widget": (404,),
    "asset": (404,),
}

PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "since": {"type": "number", "minimum": -1e12, "maximum": 1e12},
    "skip": {"type": "integer", "minimum": 0, "maximum": 999_999_999, "default": 0},
    "basins": {"type": "boolean", "default": False},
    "window": {"type": "integer", "minimum": 10, "maximum": 1000, "default": 50},
    "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "file": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"},
}
TOLD: Final = {
    "limit": "Most snapshots of a page",
    "since": "Unix seconds: only snapshots later than this",
    "skip": "Beside `since`, when above 0: also the snapshots of that very time, but for so many",
    "basins": "With the components of each basin, as the service reported them",
    "window": "Snapshots to look back over",
    "id": "16 hex digits",
    "file": "The file's name",
}
QUERIES: Final[dict[Name, tuple[str, ...]]] = {
    "snapshots": ("limit", "since", "skip", "basins"),
    "trends": ("window",),
}


def operation(route: Route) -> dict[str, Any]:
    """What OpenAPI calls an operation, without its security."""
    summary, description = SAID[route.name]
    made: dict[str, Any] = {
        "operationId": f"qigheal_{route.name}",
        "summary": summary,
        "description": description,
        "responses": {str(status): told for status, told in sorted(_responses(route).items())},
    }
    if parameters := _parameters(route):
        made["parameters"] = parameters
    if route.name == "review":
        schema = _schema(records.ReviewRequest)
        made["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema, "example": msgspec.to_builtins(examples.REVIEW)}},
        }
    return made


def security(route: Route) -> list[dict[str, list[str]]]:
    """Which schemes a route takes; the empty one means that it needs none."""
    if route.right == "page":
        return []
    if route.right == "glance":
        return [{SCHEMES["read"][0]: []}, {}]
    return [{SCHEMES[route.right][0]: []}]


def document(prefix: str) -> dict[str, Any]:
    """The whole description, of routes under `prefix`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        described = operation(route) | {"security": security(route), "tags": ["self-healing"]}
        paths.setdefault(prefix + route.path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "qigheal", "version": VERSION, "description": ABOUT},
        "paths": paths,
        "components": {
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": told}
                for name, told in SCHEMES.values()
            }
        },
    }


def _parameters(route: Route) -> list[dict[str, Any]]:
    inside = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    found = [
        {"name": name, "in": "path", "required": True, "description": TOLD[name], "schema": PARAMETERS[name]}
        for name in inside
    ]
    for name in QUERIES.get(route.name, ()):
        found.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": TOLD[name],
                "schema": PARAMETERS[name],
            }
        )
    if route.name in ("job", "patch", "review"):
        found[0]["example"] = examples.JOB_ID if route.name == "job" else examples.PATCH_ID
    return found


def _responses(route: Route) -> dict[int, dict[str, Any]]:
    name = route.name
    made: dict[int, dict[str, Any]] = {}
    if name == "health":
        either = {"anyOf": [_schema(records.Health), _schema(records.Glance)]}
        samples = {
            "with a token": {"value": msgspec.to_builtins(examples.HEALTH)},
            "without": {"value": msgspec.to_builtins(examples.GLANCE)},
        }
        for status, said in ((200, "Healthy, or still learning"), (207, "A warning"), (503, "Critical")):
            content: dict[str, Any] = {"schema": either}
            if status == 503:
                content["examples"] = samples
            made[status] = {"description": said, "content": {JSON: content}}
    elif name == "heal":
        made[200] = _answer("Nothing to heal", records.Triggered, examples.NOT_TRIGGERED)
        made[202] = _answer("Begun", records.Triggered, examples.TRIGGERED)
    elif name == "review":
        made[202] = _answer("Begun", records.Job, examples.JOB)
    elif name == "stream":
        example = 'event: health\ndata: {"status":"healthy","severity":"normal"}\n\n'
        made[200] = _plain("Events, until the client goes", MEDIA, example)
    elif name in ("dashboard", "widget"):
        made[200] = _plain("The page", "text/html", None)
        made[304] = {"description": "It is the one that the client has"}
    elif name == "asset":
        made[200] = {"description": "The file", "content": {"*/*": {"schema": {}}}}
        made[304] = {"description": "It is the one that the client has"}
    elif name == "openapi":
        made[200] = {"description": "OpenAPI 3.1", "content": {JSON: {"schema": {"type": "object"}}}}
    else:
        made[200] = _answer("The document", *DOCUMENTS[name])
    for status in (*_errors(route), *OWN_ERRORS.get(name, ())):
        made[status] = _error(status)
    return made


DOCUMENTS: Final[dict[Name, tuple[type, Any]]] = {
    "snapshots": (records.Snapshots, examples.SNAPSHOTS),
    "take_snapshot": (records.Snapshot, examples.SNAPSHOT),
    "trends": (records.Trends, examples.TRENDS),
    "state": (records.State, examples.STATE),
    "job": (records.Job, examples.JOB),
    "patches": (records.Patches, examples.PATCHES),
    "patch": (records.PatchDetail, examples.DETAIL),
    "phase": (records.Phase, examples.PHASE),
}


def _errors(route: Route) -> tuple[int, ...]:
    """The statuses that access alone may give."""
    if route.right == "page":
        return (403,)
    if route.right == "glance":
        return (401, 429)
    return (401, 403, 429) if route.method == "GET" else (401, 403, 413, 429)


def _error(status: int) -> dict[str, Any]:
    made = _answer(ERRORS[status], records.Error, examples.ERROR if status == 409 else None)
    if status == 401:
        made["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    if status == 429:
        made["headers"] = {
            "Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "required": True}
        }
    return made


def _answer(told: str, kind: type, example: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _schema(kind)}
    if example is not None:
        content["example"] = msgspec.to_builtins(example)
    return {"description": told, "content": {JSON: content}}


def _plain(told: str, media: str, example: str | None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "string"}}
    if example is not None:
        content["example"] = example
    return {"description": told, "content": {media: content}}


def _schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a record, whole: no record holds one of its own kind."""
    (top,), known = msgspec.json.schema_components([kind], ref_template="{name}")
    made: dict[str, Any] = _whole(top, known)
    return made


def _whole(part: Any, known: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _whole(known[part["$ref"]], known)
        return {key: _whole(value, known) for key, value in part.items()}
    return [_whole(each, known) for each in part] if isinstance(part, list) else part
