"""Serve videos from a web application: all requests share one client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from kling_async import (
    AmbiguousSubmitError,
    InvalidRequestError,
    Job,
    KlingClient,
    KlingError,
    NotFoundError,
)

CLIENT = web.AppKey("client", KlingClient)


async def shared_client(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the application starts, and close it when the application ends."""
    async with KlingClient() as client:
        app[CLIENT] = client
        yield


def public_fields(job: Job) -> dict[str, str | None]:
    """The fields of a job that a visitor can see."""
    return {"id": job.request_id, "status": job.status, "video_url": job.video_url, "why": job.failure_reason}


async def submit(request: web.Request) -> web.Response:
    """Submit one video, and answer at once with its id."""
    try:
        prompt = (await request.json())["prompt"]
    except (ValueError, TypeError, KeyError):
        return web.json_response({"error": 'Send JSON such as {"prompt": "A comet"}.'}, status=400)
    try:
        job = await request.app[CLIENT].submit({"prompt": prompt, "duration": 5})
    except InvalidRequestError as error:
        return web.json_response({"error": str(error)}, status=400)
    except AmbiguousSubmitError as error:
        return web.json_response({"error": f"Do not try again at once: {error}"}, status=502)
    except KlingError as error:
        return web.json_response({"error": str(error)}, status=503)
    return web.json_response(
        public_fields(job), status=202, headers={"Location": f"/videos/{job.request_id}"}
    )


async def status(request: web.Request) -> web.Response:
    """Answer with the current status of a video."""
    try:
        job = await request.app[CLIENT].get_job(request.match_info["id"])
    except NotFoundError:
        return web.json_response({"error": "There is no such video."}, status=404)
    except KlingError as error:
        return web.json_response({"error": str(error)}, status=503)
    return web.json_response(public_fields(job))


def make_app() -> web.Application:
    """The application with its routes."""
    app = web.Application()
    app.cleanup_ctx.append(shared_client)
    app.add_routes([web.post("/videos", submit), web.get("/videos/{id}", status)])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
