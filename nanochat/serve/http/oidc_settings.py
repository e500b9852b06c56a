"""How this server is known to an OpenID Connect provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OIDCSettings:
    """How this server is known to the provider. `domains`: whose e-mail addresses may sign in; "*"
    lets in everybody whom the provider knows.
    """

    issuer: str
    client_id: str
    client_secret: str
    domains: tuple[str, ...]
    public_url: str | None = None
