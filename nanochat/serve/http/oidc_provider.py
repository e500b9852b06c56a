"""An OpenID Connect provider: where it sends people to sign in, and who they are when they come
back (OpenID Connect Core 1.0, authorization code flow with PKCE, RFC 7636).
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.oidc_settings import OIDCSettings

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
TIMEOUT_S = 10.0
SCOPE = "openid profile email"


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A log-in on its way: what only this browser and we know of it."""

    state: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    verifier: str = field(default_factory=lambda: generate_token(48))
    place: str = "/"


class OIDCProvider:
    """Asks the provider what it supports when it is first needed. ApiError 502 when it fails."""

    def __init__(self, settings: OIDCSettings) -> None:
        self.settings = settings
        self._metadata: dict[str, Any] = {}

    async def address(self, flow: Flow, callback: str) -> str:
        """Where to send the browser."""
        metadata = await self._supported()
        async with self._client(callback) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=flow.state,
                nonce=flow.nonce,
                code_verifier=flow.verifier,
            )
        return str(url)

    async def claims(self, code: str, flow: Flow, callback: str) -> dict[str, Any]:
        """What the provider says of who signed in, if its signature holds. ApiError 401, 502."""
        metadata = await self._supported()
        try:
            async with self._client(callback) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=flow.verifier
                )
        except OAuthError as error:
            raise refused(f"the provider says {error.error}") from None
        except httpx.HTTPError as error:
            raise unreachable(error) from None
        return await asyncio.to_thread(
            self._checked, token.get("id_token", ""), await self._keys(), flow
        )

    def _checked(self, id_token: str, keys: Any, flow: Flow) -> dict[str, Any]:
        settings = self.settings
        rules = jwt.JWTClaimsRegistry(
            leeway=60,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.client_id},
            sub={"essential": True},
            exp={"essential": True},
            nonce={"essential": True, "value": flow.nonce},
        )
        try:
            token = jwt.decode(id_token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)
            rules.validate(token.claims)
        except (JoseError, ValueError, KeyError) as error:
            raise refused(f"what the provider sent does not hold ({error})") from None
        if token.claims.get("azp", settings.client_id) != settings.client_id:
            raise refused("what the provider sent is for another program")
        return dict(token.claims)

    def _client(self, callback: str) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            self.settings.client_id,
            self.settings.client_secret,
            scope=SCOPE,
            redirect_uri=callback,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
        )

    async def _supported(self) -> dict[str, Any]:
        if not self._metadata:
            place = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            found = await get_json(place)
            if found.get("issuer") != self.settings.issuer:
                raise ApiError(502, f"the provider calls itself {found.get('issuer')!r}")
            self._metadata = found
        return self._metadata

    async def _keys(self) -> dict[str, Any]:
        """Asked for each time: log-ins are rare, and keys change."""
        return await get_json((await self._supported())["jwks_uri"])


async def get_json(url: str) -> dict[str, Any]:
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = (await client.get(url)).raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise unreachable(error) from None
    if not isinstance(answer, dict):
        raise ApiError(502, "the provider's answer is no JSON object")
    return answer


def unreachable(error: Exception) -> ApiError:
    return ApiError(502, f"the provider does not answer ({type(error).__name__}); try again")


def refused(reason: str) -> ApiError:
    return ApiError(401, f"the log-in failed: {reason}; try again")


def allowed(claims: dict[str, Any], domains: tuple[str, ...]) -> bool:
    """Whether the e-mail address, if the provider has verified it, is of one of the domains."""
    if "*" in domains:
        return True
    address = str(claims.get("email", "")).lower()
    verified = claims.get("email_verified") is True
    return verified and address.rpartition("@")[2] in domains
