"""Signing in and out: /login, /logout."""

from __future__ import annotations

from html import escape
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from nanochat.serve.api_error import ApiError
from nanochat.serve.http.callers import COOKIE, Callers, session_token
from nanochat.serve.http.error_response import ERRORS
from nanochat.serve.http.password_check import PasswordCheck
from nanochat.store import users, web_sessions

LOGIN_PAGE = resources.files("nanochat.serve") / "pages" / "login.html"
FORMS_ALLOWED = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
BUTTON = "Sign in with your organisation"
NOT_RIGHT = "name or password is not right"


def login_router(
    callers: Callers, passwords: PasswordCheck, sign_in_with: str | None = None
) -> APIRouter:
    """`sign_in_with`: what the button to the OpenID provider says, where there is one."""
    routes = APIRouter(tags=["accounts"], responses=ERRORS)
    storage = callers.storage

    @routes.get("/login", include_in_schema=False)
    async def login_page(request: Request, next: str = "/") -> Response:  # noqa: A002
        if not await callers.accounts() or await has_session(callers, request):
            return RedirectResponse(inside(request, next), 303)
        return login_form(request, next, sign_in_with)

    @routes.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        check_same_site(request)
        fields = form_fields(await request.body())
        name, password = fields.get("name", ""), fields.get("password", "")
        place = fields.get("next", "/")
        address = request.client.host if request.client else ""
        user = await storage.read(users.named, name.strip())
        usable = user is not None and user.kind == "account" and not user.disabled
        kept = user.password_hash if user is not None and usable else None
        try:
            fits = await passwords.fits(name.strip().casefold(), address, password, kept)
        except ApiError as error:
            return login_form(request, place, sign_in_with, error)
        if user is None or not fits:
            return login_form(request, place, sign_in_with, ApiError(401, NOT_RIGHT))
        return await start_session(callers, request, user.id, place)

    @routes.post("/logout", summary="Sign out")
    async def logout(request: Request) -> Response:
        await storage.write(web_sessions.end, session_token(request.headers))
        callers.forget()
        response = JSONResponse({"signed_in": False})
        response.delete_cookie(COOKIE, path=cookie_path(request))
        return response

    return routes


def login_form(
    request: Request, place: str, sign_in_with: str | None, error: ApiError | None = None
) -> Response:
    """The page with the form, and what was wrong with the last try."""
    said = "" if error is None else f'<p class="problem" role="alert">{escape(error.message)}.</p>'
    other = ""
    if sign_in_with is not None:
        other = f'<p><a class="button" href="login/oidc">{escape(sign_in_with)}</a></p>'
    page = LOGIN_PAGE.read_text(encoding="utf-8")
    filled = page.replace("{{next}}", escape(place, quote=True))
    filled = filled.replace("{{other}}", other).replace("{{problem}}", said)
    headers = {"Cache-Control": "no-store", "Content-Security-Policy": FORMS_ALLOWED}
    if error is not None and error.retry_after_s is not None:
        headers["Retry-After"] = str(int(error.retry_after_s) + 1)
    status = 200 if error is None else error.status
    return Response(filled, status, headers, media_type="text/html")


def form_fields(body: bytes) -> dict[str, str]:
    """The fields of an HTML form. ApiError 400."""
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise ApiError(400, "the body is not a form") from None
    return {name: values[0] for name, values in fields.items()}


def check_same_site(request: Request) -> None:
    """ApiError 403 for a form that another page has sent: it could sign a person in as somebody
    else.
    """
    said_by_browser = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if said_by_browser is not None:
        sound = said_by_browser in ("same-origin", "none")
    else:
        sound = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not sound:
        raise ApiError(403, "this form was sent from another page; load it again", code="csrf")


def inside(request: Request, place: str) -> str:
    """Where to go after the log-in: a path of this server, whatever was asked for."""
    sound = place.startswith("/") and not place.startswith("//") and place.isprintable()
    if not sound or "\\" in place or urlsplit(place).netloc:
        place = "/"
    return f"{request.scope.get('root_path', '')}{place}"


async def has_session(callers: Callers, request: Request) -> bool:
    token = session_token(request.headers)
    return bool(token) and await callers.storage.read(web_sessions.find, token) is not None


async def start_session(
    callers: Callers, request: Request, user_id: int, place: str, plain: bool = False
) -> Response:
    """Sign the browser in, with a token that nobody knew before; one that it had is over."""
    token = await callers.storage.write(renew, session_token(request.headers), user_id)
    callers.forget()
    response: Response = RedirectResponse(inside(request, place), 303)
    if plain:
        response = JSONResponse({"signed_in": True})
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(web_sessions.LIFETIME_S),
        path=cookie_path(request),
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def cookie_path(request: Request) -> str:
    return request.scope.get("root_path", "") or "/"


def is_secure(request: Request) -> bool:
    """Whether the browser came by TLS, perhaps to a proxy in front. Who claims so without a reason
    gets a cookie that does less.
    """
    claimed = request.headers.get("x-forwarded-proto", "")
    return request.url.scheme == "https" or claimed.strip().lower() == "https"


def renew(session: Session, old_token: str, user_id: int) -> str:
    web_sessions.end(session, old_token)
    return web_sessions.start(session, user_id)
