"""What the scenes use: an organization, the sandbox and the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import httpx
import redis
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.engine import Database, clock
from db.jobs.search import PAGE_MAX, Filters
from db.models import Brand, InboxEvent, Job
from db.redis.client import NAMESPACE, Notifier, connect
from domain import operator_actions, organizations
from domain.entitlement import spending_block
from domain.jobs.queries import list_jobs
from domain.organization_queries import SubscriptionView, list_campaigns, read_organization
from domain.wallet import operations as wallet
from domain.wallet import queries as wallet_queries
from local.errors import WaitExpired
from local.stack import Stack

T = TypeVar("T")


@dataclass
class DemoSystem:
    """One organization, and connections to the sandbox, the database and Redis."""

    stack: Stack
    database: Database
    control: httpx.Client
    redis: redis.Redis
    notifier: Notifier
    organization_id: str = ""
    brand_ids: list[str] = field(default_factory=list)
    sids: list[str] = field(default_factory=list)
    campaign_ids: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, stack: Stack) -> DemoSystem:
        """Connect to the running processes."""
        notifier = Notifier(stack.env["REDIS_URL"])
        return cls(
            stack,
            Database(stack.urls.app_url, name="demo", pool_size=4, after_commit=notifier.notify),
            httpx.Client(base_url=f"{stack.info['base_url']}/_control", timeout=30),
            connect(stack.env["REDIS_URL"]),
            notifier,
        )

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
        self.control.close()
        self.redis.close()
        self.notifier.close()

    def do(self, fn: Callable[[Session, datetime], T]) -> T:
        """Run fn(session, now) in one transaction, as the company's backend would."""
        return self.database.run(lambda session: fn(session, clock(session)))

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request to the sandbox's control plane and return its answer."""
        try:
            answer = self.control.request(method, path, json=body)
        except httpx.TimeoutException:
            seconds = float(self.control.timeout.read or 0)
            raise WaitExpired(f"the sandbox to answer {method} {path}", seconds) from None
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def send(self, event_type: str, **more: Any) -> list[dict[str, Any]]:
        """Make the sandbox's PayPal send a signed webhook, and return the deliveries."""
        deliveries: list[dict[str, Any]] = self.ask(
            "POST",
            "/paypal/events",
            {"event_type": event_type, "organization_id": self.organization_id, **more},
        )
        return deliveries

    def create(self) -> None:
        """Create the organization, its brands and its campaigns."""
        self.organization_id = self.do(
            lambda session, now: organizations.create_organization(
                session, name="Acme Flowers", currency="USD", now=now
            )
        )
        for name in ("Acme North", "Acme South"):
            subaccount = self.ask("POST", "/twilio/subaccounts", {"friendly_name": name})
            self.sids.append(subaccount["sid"])
            self.brand_ids.append(self._brand(name, subaccount["sid"]))
        for name in ("Spring", "Summer", "Autumn"):
            self.campaign_ids.append(self._campaign(name))
        self.do(
            lambda session, now: operator_actions.pause_campaign(session, self.campaign_ids[2], now)
        )

    def wallet(self) -> wallet_queries.Balance:
        """Read the wallet's figures."""
        return self.do(
            lambda session, now: wallet_queries.balance(session, self.organization_id, now)
        )

    def balance(self) -> int:
        """Read the balance in micros."""
        return self.wallet().balance_micros

    def freezes(self) -> list[str]:
        """List the reasons of the active freezes, sorted."""
        found = self.do(
            lambda session, now: wallet_queries.read_wallet(session, self.organization_id, now)
        )
        return sorted(freeze.reason for freeze in (*found.stopping, *found.overridden))

    def campaigns(self) -> list[str]:
        """List each campaign's pause reason, oldest first; if it has none, its status."""
        newest_first = self.database.run(
            lambda session: list_campaigns(
                session, organization_id=self.organization_id, limit=len(self.campaign_ids)
            )
        )
        return [one.pause_reason or one.status for one in reversed(newest_first)]

    def refusal(self) -> str | None:
        """Return the reason why the organization may not spend; None if it may."""
        return self.do(lambda session, now: spending_block(session, self.organization_id, now))

    def twilio(self) -> list[str]:
        """List the subaccounts' statuses at the sandbox."""
        return [self.ask("GET", f"/twilio/subaccounts/{sid}")["status"] for sid in self.sids]

    def read_back(self) -> list[str | None]:
        """List the subaccounts' statuses as we last read them from Twilio.

        A status is None if the newest desired state has not been confirmed yet.
        """
        rows = self._all(
            select(Brand).where(Brand.organization_id == self.organization_id).order_by(Brand.id)
        )
        return [
            row.twilio_actual if row.twilio_converged == row.twilio_generation else None
            for row in rows
        ]

    def twilio_changes(self) -> int:
        """Count the requests to the sandbox's Twilio that may change something.

        Reads are left out: schedules read subaccounts at any time, independently of events.
        """
        requests = self.ask("GET", "/requests?provider=twilio")
        return sum(one["method"] != "GET" for one in requests)

    def subscription(self, external_id: str) -> SubscriptionView | None:
        """Read the organization's subscription with this ID; None if there is none."""
        found = self.do(lambda session, now: read_organization(session, self.organization_id, now))
        of_id = (one for one in found.subscriptions if one.subscription_id == external_id)
        return next(of_id, None)

    def inbox(self, external_id: str) -> list[InboxEvent]:
        """List the inbox rows of one event."""
        return self._all(select(InboxEvent).where(InboxEvent.external_id == external_id))

    def count(self, model: Any, *where: Any) -> int:
        """Count the rows that match."""
        return int(self._one(select(func.count()).select_from(model).where(*where)))

    def event_jobs(self) -> int:
        """Count the jobs that webhooks and commands led to.

        Jobs that a schedule staged are left out, as are their follow-up jobs, because they start at
        any time.
        """
        scheduled = select(Job.correlation_id).where(Job.cause.startswith("schedule:"))
        return self.count(Job, Job.correlation_id.not_in(scheduled))

    def entries(self, kind: str) -> int:
        """Count the entries of one kind in the wallet's history."""
        return len(
            self.database.run(
                lambda session: wallet_queries.history(
                    session,
                    self.organization_id,
                    kinds=[kind],
                    limit=wallet_queries.PAGE_MAX,
                )
            )
        )

    def jobs(self, state: str) -> int:
        """Count the jobs in a state, at most PAGE_MAX."""
        filters = Filters(state=state)
        return len(self.database.run(lambda session: list_jobs(session, filters, limit=PAGE_MAX)))

    def unfinished(self) -> int:
        """Count the jobs that still wait or run."""
        return self.jobs("open")

    def debit(self, micros: int, key: str) -> str:
        """Try to spend, and return the outcome."""
        outcome = self.do(
            lambda session, now: wallet.debit(
                session,
                self.organization_id,
                key=key,
                amount_micros=micros,
                currency="USD",
                now=now,
            )
        )
        return outcome.outcome

    def waiting_in_redis(self, queue: str) -> int:
        """Count the messages in a queue of Redis."""
        return int(self.redis.llen(f"{NAMESPACE}:{queue}"))

    def writers(self, *tables: str) -> set[str]:
        """Find the transactions that last wrote the rows of these tables.

        The `xmin` of the organization's rows names them. Lifted freezes and manually paused
        campaigns are left out.
        """
        found: set[str] = set()
        for table in tables:
            query = text(
                f"SELECT DISTINCT xmin::text FROM {table} WHERE organization_id = :id"  # noqa: S608
                + (" AND NOT manually_paused" if table == "campaigns" else " AND lifted_at IS NULL")
            )
            found |= set(
                self.database.run(
                    lambda session, query=query: session.scalars(  # type: ignore[misc]
                        query, {"id": self.organization_id}
                    ).all()
                )
            )
        return found

    def _brand(self, name: str, sid: str) -> str:
        return self.do(
            lambda session, now: organizations.create_brand(
                session, self.organization_id, name=name, twilio_subaccount_sid=sid, now=now
            )
        )

    def _campaign(self, name: str) -> str:
        def work(session: Session, now: datetime) -> str:
            campaign_id = organizations.create_campaign(
                session, self.brand_ids[0], name=name, now=now
            )
            operator_actions.start_campaign(session, campaign_id, now)
            return campaign_id

        return self.do(work)

    def _one(self, query: Any) -> Any:
        return self.database.run(lambda session: session.scalars(query).one())

    def _all(self, query: Any) -> list[Any]:
        return self.database.run(lambda session: list(session.scalars(query)))
