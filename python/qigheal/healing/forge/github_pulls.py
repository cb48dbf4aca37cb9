"""Pull requests on GitHub: found by their branch, opened once, labelled.

A request belongs to the branch of that name in the repository itself; forks may have one of the same name.
"""

from __future__ import annotations

import logging
from typing import Final

from qigheal.healing.forge.github_answers import Label, Pull
from qigheal.healing.forge.github_api import Api, Refused, part

log = logging.getLogger("qigheal")

WITHDRAWN: Final = "qigheal-withdrawn"
"""Label of a pull request that the healer closed itself, and so may open again."""


class Pulls:
    """The pull requests of one repository."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def newest(self, branch: str) -> Pull | None:
        label = f"{self._api.repository.partition('/')[0]}:{branch}"
        asked = {"head": label, "state": "all"}
        pulls = [pull for page in self._api.pages("/pulls", tuple[Pull, ...], asked) for pull in page]
        # Anybody may name a branch of a fork as the healer names its own.
        own = [pull for pull in pulls if (pull.head.label or "").lower() == label.lower()]
        return max(own, key=lambda pull: pull.number, default=None)

    def create(self, branch: str, target: str, title: str, text: str) -> Pull:
        asked = {
            "title": title,
            "head": branch,
            "base": target,
            "body": text,
            "maintainer_can_modify": False,
        }
        try:
            return self._api.call("POST", "/pulls", Pull, body=asked)
        except Refused as refused:
            made = self.newest(branch)  # by a request whose answer was lost
            if refused.status == 422 and made is not None and made.state == "open":
                return made
            raise

    def label(self, number: int, names: list[str]) -> None:
        """Labels help people to find things. Where the token may not set them, the change goes on."""
        try:
            self._api.call("POST", f"/issues/{number}/labels", tuple[Label, ...], body={"labels": names})
        except Refused as refused:
            log.warning("pull request #%d keeps no label: %s", number, refused)

    def unlabel(self, number: int) -> None:
        try:
            self._api.call("DELETE", f"/issues/{number}/labels/{part(WITHDRAWN)}", tuple[Label, ...])
        except Refused as refused:
            log.warning("pull request #%d keeps label %s: %s", number, WITHDRAWN, refused)
