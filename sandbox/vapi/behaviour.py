"""Misbehaviour of Vapi, for all calls or for one.

It makes every safeguard against a failing Vapi testable. A request without a response is not part
of it, because the faults produce that for every provider.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Behaviour(BaseModel):
    """What goes wrong inside Vapi. Each setting is read at the moment it applies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Control messages are answered with success and ignored. With `deaf_to_say`, only speech is
    #: ignored.
    deaf: bool = False
    deaf_to_say: bool = False
    #: The call continues after its maximum duration.
    ignore_max_duration: bool = False
    #: Reports or status updates are never sent, or any message is lost with the given probability.
    lose_reports: bool = False
    lose_status: bool = False
    lose_probability: Annotated[float, Field(ge=0, le=1)] = 0
    #: Each report is sent twice, concurrently.
    double_reports: bool = False
    #: Seconds between the end of the call and its report. If None, the call's own plan decides.
    report_delay_seconds: Annotated[float, Field(ge=0)] | None = None
