"""Serving the page: from this machine alone, with nothing fetched from any other."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.upload import MAX_BYTES

STATIC = Path(__file__).parent / "static"
# Gradio builds pages from inline scripts and compiles event code, so these have to be allowed; other hosts are not.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class ClosedNetwork:
    """Tells the browser with every answer that this host is the only one it may ask."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


def launch(blocks: gr.Blocks, host: str, port: int) -> None:
    """Serve until the process is told to end; prints the page's address when it can be opened."""
    script = (STATIC / "page.js").read_text()
    blocks.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=STATIC / "page.css",
        head=f"<script>{script}</script>",
        app_kwargs={"middleware": [Middleware(ClosedNetwork)]},
        max_file_size=MAX_BYTES,
        footer_links=[],
        run_history=False,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    print(f"page: http://{host}:{port}  (Ctrl-C ends it)", flush=True)
    try:
        blocks.block_thread()
    finally:
        blocks.close()


def theme() -> Any:
    """Gradio's plain theme in the fonts of the visitor's own system."""
    return gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
