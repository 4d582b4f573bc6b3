"""Start the page: on this machine alone unless a link is asked for, and with nothing to serve."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from engine.errors import UsageError
from scripts.page.benchmark import Benchmark
from scripts.page.build import CSS, FONT, build
from scripts.page.clip_desk import ClipDesk
from scripts.page.runs import Runs
from scripts.page.scene_desk import SceneDesk

HOST = "127.0.0.1"
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"


class OwnSourcesOnly:
    """Tells the browser to load nothing from elsewhere: fonts, scripts, pictures."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def with_policy(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, with_policy)


def serve(folders: list[Path], data: Path, weights: dict[str, Path], device: str, port: int, upload: str,
          share: bool, block: bool = True) -> gr.Blocks:
    """`upload`: the largest file that is taken. `block`: until Ctrl-C."""
    runs = Runs(folders, weights, device)
    page = build(SceneDesk(Benchmark(data), runs), ClipDesk(runs), paths=not share)
    try:
        _, _, link = page.launch(
            server_name=HOST, server_port=port, share=share, max_file_size=upload, allowed_paths=[], ssr_mode=False,
            enable_monitoring=False, footer_links=[], quiet=True, inbrowser=False, prevent_thread_lock=True,
            theme=gr.themes.Default(primary_hue="indigo", font=FONT, font_mono=["monospace"]), css_paths=CSS,
            app_kwargs={"middleware": [Middleware(OwnSourcesOnly)]})
    except OSError as error:
        if "port" not in str(error):
            raise
        raise UsageError(f"port {port} cannot be used; choose another one with --port") from error
    print(f"open {page.local_url}{f' or, from elsewhere, {link}' if link else ''}; Ctrl-C ends the page", flush=True)
    if block:
        page.block_thread()
    return page
