"""The actors: one function for each job type, with the job type's name.

`domain/jobs/types.py` declares the job types. An actor may run twice, concurrently, late and out of
order without harm.
"""

from __future__ import annotations

from workers.actors.billing import decide_top_up, look_at_payment
from workers.actors.calls import (
    end_call,
    expire_holds,
    look_at_call,
    reconcile_calls,
    warn_call,
)
from workers.actors.disputes import freeze_wallet, look_at_dispute, unfreeze_wallet
from workers.actors.events import process_event
from workers.actors.subscriptions import enforce_organization, look_at_subscription
from workers.actors.twilio import check_subaccount, converge_twilio, reconcile_twilio
from workers.actors.upkeep import prune
from workers.executor import Actor

ACTORS: dict[str, Actor] = {
    actor.__name__: actor
    for actor in (
        process_event,
        enforce_organization,
        converge_twilio,
        check_subaccount,
        reconcile_twilio,
        look_at_subscription,
        look_at_payment,
        look_at_dispute,
        freeze_wallet,
        unfreeze_wallet,
        decide_top_up,
        end_call,
        warn_call,
        look_at_call,
        reconcile_calls,
        expire_holds,
        prune,
    )
}
