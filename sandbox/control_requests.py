"""Strict parsing of the control plane's requests.

Unknown fields are refused, so that a typing error in a test is reported.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse

#: An amount as decimal text. Numbers are refused, because a float cannot represent money exactly.
Value = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class ControlRequest(BaseModel):
    """The fields of every request: whether to send webhooks, and whether to retry."""

    model_config = ConfigDict(extra="forbid")

    deliver: bool = True
    retry: bool = True


Model = TypeVar("Model", bound=BaseModel)


async def parse_request(request: Request, model: type[Model]) -> Model:
    """Parse a JSON body; an empty body counts as {}.

    Raises: pydantic.ValidationError, which the control plane answers with 422 and the wrong fields.
    """
    return model.model_validate_json(await request.body() or b"{}")


def refuse(why: str, status: int) -> JSONResponse:
    """Answer with one reason and the status."""
    return JSONResponse({"error": why}, status)
