"""The entry of every request to a stand-in: record it, then apply a fault or act.

A request that has begun continues even if the client disconnects. A lost request can therefore
still take effect, as at a real provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.core import Sandbox
from sandbox.exchange import Answer, ApiRequest, Json, Rejected
from sandbox.faults import Fault

Handler = Callable[[Sandbox, ApiRequest], Answer]
Endpoint = Callable[[Request], Awaitable[Response]]

#: Key of the connection's transport in the scope's extensions. server.py stores it there.
TRANSPORT = "holdfast.transport"


class NoAnswer(Response):
    """Closes the connection without sending a byte of a response."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][TRANSPORT].abort()
        # Wait until the server has noticed the disconnect. Otherwise the server would answer 500,
        # because the application returned without a response.
        while (await receive())["type"] != "http.disconnect":
            pass


class Gate:
    """Turns a provider's handler into an endpoint that obeys the faults."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._tasks: set[asyncio.Task[Response]] = set()

    def endpoint(self, provider: str, handler: Handler) -> Endpoint:
        """Return the endpoint of one operation of one provider."""

        async def receive(request: Request) -> Response:
            call = await _read(provider, request)
            # The handler runs in a separate task, so that a lost connection cannot cancel it.
            task = asyncio.create_task(self._handle(call, handler))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await asyncio.shield(task)

        return receive

    async def _handle(self, request: ApiRequest, handler: Handler) -> Response:
        entry = self._sandbox.journal.record(request)
        fault = self._sandbox.faults.pick(request)
        if fault is None:
            return self._act(request, handler, entry)
        entry["fault_id"] = fault.id
        return await self._fail(fault, request, handler, entry)

    async def _fail(
        self, fault: Fault, request: ApiRequest, handler: Handler, entry: Json
    ) -> Response:
        order = fault.order
        match order.kind:
            case "delay":
                await asyncio.sleep(order.seconds)
                return self._act(request, handler, entry)
            case "hold":
                return await self._hold(fault, request, handler, entry)
            case "act_then_drop":
                self._act(request, handler, entry)
                entry["outcome"] = "acted, not answered"
                return NoAnswer()
            case "act_then_timeout":
                self._act(request, handler, entry)
                entry["outcome"] = "acted, not answered"
                await asyncio.sleep(order.seconds)
                return NoAnswer()
            case "drop":
                entry["outcome"] = "dropped"
                return NoAnswer()
            case "status":
                entry["outcome"], entry["status"] = "answered by fault", order.status
                return _refusal(request, order.status, order.headers)

    async def _hold(
        self, fault: Fault, request: ApiRequest, handler: Handler, entry: Json
    ) -> Response:
        held = fault.hold()
        entry["outcome"] = "held"
        if not await held.decision:
            entry["outcome"] = "dropped"
            return NoAnswer()
        try:
            return self._act(request, handler, entry)
        finally:
            held.effect_done.set()

    def _act(self, request: ApiRequest, handler: Handler, entry: Json) -> Response:
        try:
            answer = handler(self._sandbox, request)
        except Rejected as rejected:
            answer = rejected.answer
        entry["outcome"], entry["status"] = "answered", answer.status
        return _response(answer)


async def _read(provider: str, request: Request) -> ApiRequest:
    path = request.url.path.removeprefix(f"/{provider}")
    return ApiRequest(
        provider=provider,
        method=request.method,
        path=path,
        params=request.path_params,
        query=request.query_params,
        headers=request.headers,
        body=await request.body(),
    )


def _response(answer: Answer) -> Response:
    response = Response(answer.body or None, answer.status, dict(answer.headers))
    if answer.body:
        response.headers["content-type"] = answer.media_type
    return response


def _refusal(request: ApiRequest, status: int, headers: dict[str, str]) -> Response:
    # Only Twilio's clients read the body of such a response, so only Twilio's has the provider's
    # format.
    message = "this failure was requested from the sandbox"
    if request.provider == "twilio":
        code = 20429 if status == 429 else 20000 + status
        body = f'{{"code":{code},"message":"{message}","more_info":"","status":{status}}}'
    else:
        body = f'{{"name":"FAULT","message":"{message}"}}'
    return Response(body, status, headers, "application/json")
