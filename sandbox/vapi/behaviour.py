"""How Vapi is told to misbehave, for all calls or for one, so that every backstop can be seen.

A request left without an answer is not of these: the faults do that, for every provider alike.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Behaviour(BaseModel):
    """What goes wrong inside Vapi. What is read is read at the moment that it concerns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Control messages are answered with success and ignored; deaf_to_say does so to speech alone.
    deaf: bool = False
    deaf_to_say: bool = False
    #: The call goes on past the longest time that it was given.
    ignore_max_duration: bool = False
    #: Messages that are never sent: reports, status-updates, either of them by chance.
    lose_reports: bool = False
    lose_status: bool = False
    lose_probability: Annotated[float, Field(ge=0, le=1)] = 0
    #: Each report is sent twice at once.
    double_reports: bool = False
    #: Seconds between the end and its report; None leaves it to the call's own plan.
    report_delay_seconds: Annotated[float, Field(ge=0)] | None = None
