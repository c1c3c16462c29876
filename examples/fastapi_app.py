"""A FastAPI application that starts runs, served by Hypercorn on Trio.

FastAPI runs on Trio as well as on asyncio, and Hypercorn can serve it there, so the runtime is
opened in the application's own lifespan: one loop, no threads and no bridge in between. Run it
with `python -m examples.fastapi_app`: it serves itself, and is its own first client.
"""

# Hypercorn's types leave gaps.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, cast

import httpx
import trio
from fastapi import Depends, FastAPI, HTTPException, Request
from hypercorn.config import Config
from hypercorn.trio import serve

import aiki_trio
from aiki_sdk import Client, Event, NotFound, Run, workflow

confirmed = Event("confirmed")


@workflow("sign-up", "1.0.0", events=[confirmed])
async def sign_up(run: Run, email: str) -> str:
    await run.wait(confirmed)
    return f"{email} is registered"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with aiki_trio.open_runtime("memory://", workflows=[sign_up]) as runtime:
        app.state.client = runtime.client
        yield


def client_of(request: Request) -> Client:
    return cast("Client", request.app.state.client)


app = FastAPI(lifespan=lifespan)
Aiki = Annotated[Client, Depends(client_of)]


@app.put("/sign-ups/{email}", status_code=202)
async def start(email: str, client: Aiki) -> dict[str, str]:
    await client.start(sign_up, email, reference_id=email, on_conflict="return_existing")
    return {"email": email}


@app.post("/sign-ups/{email}/confirmation")
async def confirm(email: str, client: Aiki) -> dict[str, str]:
    try:
        handle = await client.get(workflow=sign_up, reference_id=email)
    except NotFound:
        raise HTTPException(404, f"{email} has not signed up") from None
    await handle.send(confirmed)
    return {"result": await handle.result(timeout=10)}


async def main() -> None:
    config = Config.from_mapping(bind=["127.0.0.1:0"], loglevel="WARNING")
    ada, ben = "/sign-ups/ada@example.org", "/sign-ups/ben@example.org"
    requests = (("PUT", ada), ("POST", f"{ada}/confirmation"), ("POST", f"{ben}/confirmation"))
    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(serve, app, config)
        async with httpx.AsyncClient(base_url=urls[0]) as web:
            for method, path in requests:
                response = await web.request(method, path)
                print(method, path, response.status_code, response.text)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
