"""How the control plane reads what it is asked: strictly, so that a slip of the pen is told."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse

#: An amount as decimal text; numbers are refused, since a float is not money.
Value = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Asked(BaseModel):
    """What every request may say: whether to deliver webhooks, and whether again on refusal."""

    model_config = ConfigDict(extra="forbid")

    deliver: bool = True
    retry: bool = True


Model = TypeVar("Model", bound=BaseModel)


async def understand(request: Request, model: type[Model]) -> Model:
    """This function will read a JSON body; an empty one counts as {}.

    Raises: pydantic.ValidationError, which the control plane answers with 422 and the fields.
    """
    return model.model_validate_json(await request.body() or b"{}")


def refuse(why: str, status: int) -> JSONResponse:
    """This function will answer with one clear reason."""
    return JSONResponse({"error": why}, status)
