"""Answers Vapi's questions about calls in time, even without the database.

If the database gives no result in time, the call is refused, unless its organization has chosen to
admit such calls. A campaign may then not dial.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from base.facts import AdmissionRequest, PermissionRequest
from base.ids import new_id
from base.log import get_logger
from base.outcomes import NotYet, OutcomeUnknown
from domain.calls import admission, permission
from domain.calls.admission import Admission
from domain.calls.pairing import fail_open_token
from domain.calls.permission import Permission
from domain.calls.settings import Terms
from domain.wallet.ledger import log_refusal
from ingress.calls.deadline import TooLate, UrgentTransactions
from ingress.calls.snapshot import KnownEntryPoint, Snapshot
from providers.vapi.events import (
    ASSISTANT_REQUEST,
    PREDIAL,
    VapiMessage,
    answer_admitted,
    answer_other,
    answer_predial,
    answer_refused,
    call_ask_of,
    predial_of,
)
from providers.vapi.mapping import OUR_CALL, OUR_ORGANIZATION, OUR_TOKEN

log = get_logger(__name__)

#: Errors that mean: the database did not answer in time, or its outcome is unknown.
_DATABASE_FAILURES = (TooLate, NotYet, OutcomeUnknown)


class CallAnswers:
    """Answers the messages whose answer Vapi uses.

    `began` is the monotonic time at which the message arrived. An unused permission to dial holds
    money for `permission_seconds`.
    """

    def __init__(
        self,
        urgent: UrgentTransactions,
        snapshot: Snapshot,
        *,
        permission_seconds: float = permission.PERMISSION_SECONDS,
    ) -> None:
        self._urgent = urgent
        self._snapshot = snapshot
        self._permission_seconds = permission_seconds

    async def answer(self, message: VapiMessage, began: float) -> dict[str, Any]:
        """Answer a message. If another server decides it, the answer is valid but empty.

        Raises: MalformedWebhook.
        """
        if message.type == ASSISTANT_REQUEST:
            return await self._admit(call_ask_of(message), began + self._urgent.answer_seconds)
        if message.type == PREDIAL:
            return await self._predial(predial_of(message), began + self._urgent.answer_seconds)
        return answer_other(message.type)

    async def _admit(self, ask: AdmissionRequest, until: float) -> dict[str, Any]:
        # The snapshot is read once, because the undo and the answer without the database must use
        # the same terms.
        entry_point = self._snapshot.entry_point_of(ask)
        undo = None if _admits_without_database(entry_point) else _withdraw
        try:
            decision = await self._urgent.run(_admission_work(ask), until=until, undo=undo)
        except _DATABASE_FAILURES as error:
            return self._answer_without_database(ask, entry_point, error)
        except Exception:
            # If a bug left Vapi without an answer, the caller would hear silence until it gives up.
            log.exception("call_not_decided", call=ask.external_id)
            return answer_refused(Terms().refusal_text)
        if decision.refusal is not None or decision.assistant_id is None:
            org, reason = decision.organization_id, decision.refusal
            if not log_refusal(org, reason, what="call", call=ask.external_id):
                log.info("call_refused", call=ask.external_id, reason=reason)
            return answer_refused(decision.text)
        metadata = {
            OUR_ORGANIZATION: decision.organization_id or "",
            OUR_CALL: decision.call_id or "",
        }
        return answer_admitted(decision.assistant_id, decision.max_duration_seconds, metadata)

    def _answer_without_database(
        self, ask: AdmissionRequest, entry_point: KnownEntryPoint | None, error: Exception
    ) -> dict[str, Any]:
        log.error(
            "call_decided_without_database",
            call=ask.external_id,
            admitted=_admits_without_database(entry_point),
            error=type(error).__name__,
        )
        if entry_point is None or not _admits_without_database(entry_point):
            return answer_refused(entry_point.refusal_text if entry_point else Terms().refusal_text)
        # The first report of this call creates its row and starts metering (domain/calls/adoption).
        call_id = new_id("call")
        token = fail_open_token(
            entry_point.fail_open_key or "", entry_point.organization_id, call_id, ask.external_id
        )
        metadata = {
            OUR_ORGANIZATION: entry_point.organization_id,
            OUR_CALL: call_id,
            OUR_TOKEN: token,
        }
        return answer_admitted(
            str(entry_point.assistant_id), int(entry_point.fail_open_seconds or 0), metadata
        )

    async def _predial(self, ask: PermissionRequest, until: float) -> dict[str, Any]:
        try:
            decision = await self._urgent.run(
                lambda session, now: permission.permit(
                    session, ask, now, permission_seconds=self._permission_seconds
                ),
                until=until,
                undo=_withdraw,
            )
            org, reason = decision.organization_id, decision.refusal
            was_logged = log_refusal(org, reason, what="contact", campaign=ask.campaign_id)
            if reason is not None and not was_logged:
                log.info("contact_refused", campaign=ask.campaign_id, reason=reason)
            return answer_predial(decision.refusal is None)
        except _DATABASE_FAILURES as error:
            log.error("campaign_not_decided", campaign=ask.campaign_id, error=type(error).__name__)
            return answer_predial(False)


def _admission_work(ask: AdmissionRequest) -> Callable[[Session, datetime], Admission]:
    return lambda session, now: admission.admit(session, ask, now)


def _admits_without_database(entry_point: KnownEntryPoint | None) -> bool:
    """Return whether a call is admitted without the database.

    In that case, a decision that the database makes too late is kept.
    """
    return entry_point is not None and bool(
        entry_point.fail_open_seconds and entry_point.assistant_id
    )


def _withdraw(session: Session, decision: Admission | Permission, now: datetime) -> None:
    # Another request has admitted or reserved a call that was known before. That call stays.
    if decision.is_new and decision.organization_id and decision.call_id:
        admission.withdraw(session, decision.organization_id, decision.call_id, now)
