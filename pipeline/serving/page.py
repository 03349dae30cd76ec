"""The web page of `gansweep serve`: sample from one generator, fix a seed, interpolate, choose a label.

Responsible for the page, its three other addresses and the limits of a request. It listens on loopback only
and answers to no other host name, so that no web site can reach it by DNS rebinding.
"""

from __future__ import annotations

import io
import math
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Template

from pipeline.data.pictures import image_sheet, save_drawing
from pipeline.errors import ConfigError, RegistryError
from pipeline.tracking.registry.latent_walk import slerp
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import text_of
from pipeline.tracking.registry.registered_model import Images

HOST = "127.0.0.1"
MAX_IMAGES = 1024
MAX_BYTES = 2**24
"""Most bytes of pixels in one response: 85 images of 256 px in colour."""

Count = Annotated[int, Query(ge=1, le=MAX_IMAGES)]
Seed = Annotated[int, Query(ge=0, le=2**31)]
Fraction = Annotated[float, Query(ge=0.0, le=1.0)]
Scale = Annotated[float, Query(gt=0.0, le=2.0)]
Label = Annotated[str, Query(max_length=300)]
"""A class by its number or its name; -1 = any."""


def page_app(generator: LoadedGenerator, name: str) -> FastAPI:
    """The app: a page of `generator` with title `name`, and /facts, /grid.png and /samples.npz."""
    app = FastAPI(title=f"gansweep {name}", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    lock = threading.Lock()  # a slider sends requests faster than a CPU samples: one at a time, in order

    def sampled(
        n: Count = 64,
        seed: Seed = 0,
        label: Label = "-1",
        truncation: Scale = 1.0,
        to: Seed = 1,
        at: Fraction = 0.0,
    ) -> Images:
        most = min(MAX_IMAGES, MAX_BYTES // (generator.size**2 * generator.channels))
        if n > most:
            raise RegistryError(
                "n = {seen} is out of range",
                rule=f"n is at most {most} here",
                seen=n,
                fix="use gansweep sample for more",
            )
        chosen = None if label == "-1" else generator.class_number(label)
        with lock:
            z, labels = generator.latents(n, seed, chosen, truncation)
            if at > 0:
                z = slerp(z, generator.latents(n, to, chosen, truncation)[0], at)
            return generator.render(z, labels)

    requested_images = Depends(sampled)  # by the query of the request

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return _page(generator, name)

    @app.get("/facts")
    def facts() -> dict[str, object]:
        shape = {"size": generator.size, "channels": generator.channels, "labels": _labels(generator)}
        return {"model": name, **shape, "facts": generator.metadata.to_json()}

    @app.get("/grid.png")
    def grid(images: Any = requested_images) -> Response:
        buffer = io.BytesIO()
        save_drawing(image_sheet(images, math.ceil(math.sqrt(len(images)))), buffer, compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "no-store"})

    @app.get("/samples.npz")
    def samples(images: Any = requested_images) -> Response:
        buffer = io.BytesIO()
        np.savez(buffer, images=images)
        return Response(buffer.getvalue(), media_type="application/octet-stream")

    _add_error_handlers(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    """Errors as JSON with status 400: {"error": LINE}."""

    @app.exception_handler(RegistryError)
    def registry_error(request: Request, error: RegistryError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)


def serve_page(
    generator: LoadedGenerator, name: str, port: int = 8000, on_ready: Callable[[str], object] = print
) -> None:
    """Serve the page on loopback until it is interrupted.

    port: 0 = any free one. on_ready: called with the page's address once the port is reserved.

    Raises:
        ConfigError: the port is in use.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port} cannot be used",
                rule="a free port is needed",
                seen=str(error),
                fix="write --port 0 for any",
            ) from error
        on_ready(f"http://{HOST}:{listener.getsockname()[1]}/  (Ctrl+C ends it)")
        config = uvicorn.Config(page_app(generator, name), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def _labels(generator: LoadedGenerator) -> list[str]:
    """The names of the labels, else their numbers; empty for an unconditional generator."""
    return list(generator.class_names) or [str(label) for label in range(generator.classes)]


def _page(generator: LoadedGenerator, name: str) -> str:
    facts = generator.metadata.to_json()
    rows = [(key, text_of(facts[key])) for key in _SHOWN_FACTS.split() if facts.get(key) is not None]
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"), autoescape=True)
    text: str = template.render(name=name, labels=_labels(generator), rows=rows)
    return text


_SHOWN_FACTS = "fid fid_low fid_high extractor balance overfit memorisation collapse kimg data trial"
