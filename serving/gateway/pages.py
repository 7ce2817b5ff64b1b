"""The web page: the files of web/, the reports of docs/evaluation/, the API's description and its Swagger UI, on the
API's own origin.

They are read once, at the start, so no request reaches the file system. They hold nothing secret and need no token; the
page asks its visitor for it when it calls the API.
"""

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from swagger_ui_bundle import swagger_ui_path

from serving.gateway.settings import ROOT

WEB = ROOT / "web"
REPORTS = ROOT / "docs" / "evaluation"
DESCRIPTION = ROOT / "docs" / "openapi.json"
# `npm ci` in serving/viewer installs it. Without it the page shows regions without zoom.
OPENSEADRAGON = ROOT / "serving/viewer/node_modules/openseadragon/build/openseadragon/openseadragon.min.js"
# The page's screens have addresses of their own and are all drawn by index.html.
SCREENS = ("/", "/compare", "/region", "/model", "/tissues", "/server")
SUFFIXES = (".css", ".js", ".json", ".png", ".svg")
SWAGGER = Path(swagger_ui_path)
SWAGGER_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
# No markup is created from strings.
STRICT = POLICY + "require-trusted-types-for 'script'; trusted-types 'none'"
# Swagger UI creates markup from the description's Markdown, and its stylesheet holds pictures.
SWAGGER_POLICY = POLICY + "img-src 'self' data:"
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Every load asks whether the file has changed; the answer is 304 if not.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Page:
    """A file as it is served."""

    body: bytes
    content_type: str
    policy: str = STRICT

    @property
    def headers(self) -> dict[str, str]:
        return {**HEADERS, "Content-Security-Policy": self.policy, "Content-Type": self.content_type}

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def add_pages(application: web.Application) -> frozenset[str]:
    """Serve the page and the reports; returns their paths, which need no token and have no rate limit."""
    pages = dict(_pages())
    for path, page in pages.items():
        application.router.add_get(path, _handler(page))
    return frozenset(pages)


def _pages() -> Iterator[tuple[str, Page]]:
    for screen in SCREENS:
        yield screen, _read(WEB / "index.html")
    for path in WEB.rglob("*"):
        if path.suffix in SUFFIXES:
            yield f"/{path.relative_to(WEB).as_posix()}", _read(path)
    if OPENSEADRAGON.is_file():
        yield "/openseadragon.js", _module(OPENSEADRAGON)
    yield "/openapi.json", _read(DESCRIPTION)
    yield "/docs", _read(WEB / "docs.html", SWAGGER_POLICY)
    for name in SWAGGER_FILES:
        yield f"/docs/{name}", _read(SWAGGER / name)
    for path in REPORTS.glob("*.json"):
        yield f"/reports/{path.name}", _read(path)


def _read(path: Path, policy: str = STRICT) -> Page:
    kind = mimetypes.types_map[path.suffix]
    return Page(path.read_bytes(), kind if kind.startswith("image/") else f"{kind}; charset=utf-8", policy)


def _module(path: Path) -> Page:
    """A script in the form of modules of Node, as a module for browsers, so that the content policy allows it."""
    source = path.read_bytes().partition(b"//# sourceMappingURL=")[0]
    body = b"const module = { exports: {} };\n" + source + b"\nexport default module.exports;\n"
    return Page(body, "text/javascript; charset=utf-8")


def _handler(page: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        known = {item.value for item in request.if_none_match or ()}
        if page.etag in known:
            response = web.Response(status=304, headers=page.headers)
        else:
            response = web.Response(body=page.body, headers=page.headers)
        response.etag = page.etag
        return response

    return serve
