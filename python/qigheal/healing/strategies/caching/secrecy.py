"""Which functions a cache would keep a secret of, told by names alone: a password, a key, a number of a card.

Refuses too much rather than too little. Whether a function is pure, and worth a cache, is told elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from qigheal.healing.hostcode.wording import snake
from qigheal.healing.strategies.caching.purity import Host, Proof

SECRET = re.compile(
    r"passw|passphrase|pass_?(?:code|key|port)|secret|credential|pwd|authori[sz]ation|social_?security|mnemonic|"
    r"pin_?code|(?:seed|recovery)_?(?:phrase|word|code|key)|session_?id|(?:card|cc|account|iban)_?(?:number|num|no)(?:_|$)|"
    r"(?:api|priv|private|access|signing|sign|encryption|decryption|encrypt|ssh|rsa|aes|hmac|pgp|gpg|tls|ssl|auth|session|"
    r"license|storage|master|symmetric|shared|cipher|wallet|deploy|service|jwt|crypto)_?key|key_?pem|"
    r"(?:id|api|login|access|auth|bearer|session|refresh|csrf|xsrf|reset|user|client|device|security|oauth|bot|push|"
    r"sso|jwt|invite|magic|verification|confirmation)_?token|"
    r"(?:auth|access|security|verification|backup|sms)_?code|"
    r"(?:^|_)(?:pass|pw|pin|userpin|otp|totp|mfa|cvv|cvc|ssn|iban|jwt|pem|bearer|cookies?|pepper|creds?|auth|sid)"
    r"\d*(?:_|$)"
)
"""Names, spelled with underscores, of what a cache would keep in memory in clear."""

WORD = re.compile(r"[^\W\d]\w*")
TEXT = re.compile(r"[\w.-]{1,80}")
"""A text that may be a key or a header's name."""


def secret_among(names: Iterable[str]) -> str:
    """The first of the names that is a secret's, "" when none is."""
    return next((name for name in names if SECRET.search(snake(name))), "")


def secret_given(parameters: Iterable[str], kinds: Iterable[Iterable[str]]) -> str:
    """The first name of a secret among a function's parameters and the fields of what they were seen to be given."""
    said = (word for each in kinds for kind in each for word in WORD.findall(kind))
    return secret_among((*parameters, *said))


def secret_reached(host: Host, proof: Proof) -> str:
    """The first name of a secret in what a function is made of, or in what it is called with; "" when there is none."""
    reached = sorted(proof.reached, key=lambda function: (function.module.path, function.node.lineno))
    own = (name for function in reached for node in ast.walk(function.node) for name in _names(node))
    return secret_among(own) or secret_among(_asked(host, proof.function.name))


def _asked(host: Host, name: str) -> Iterator[str]:
    """Names in the arguments of every call of what is called so."""
    for module in host.modules.values():
        for call in ast.walk(module.tree):
            if isinstance(call, ast.Call) and name in (
                getattr(call.func, "attr", ""),
                getattr(call.func, "id", ""),
            ):
                for given in (*call.args, *call.keywords):
                    for node in ast.walk(given):
                        yield from _names(node)


def _names(node: ast.AST) -> Iterator[str]:
    """Every name that a node of any kind bears, and a text that may be a key's."""
    for field, value in ast.iter_fields(node):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and field != "type_comment" and TEXT.fullmatch(one):
                yield one
