"""What tests build and read: organizations, money, brands, campaigns, due jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from base.settings import Settings
from db.engine import Database, clock
from db.models import Brand, Campaign, InboxEvent, Job, Subscription, Wallet
from domain import operator_actions, organizations
from domain.wallet import operations as wallet
from providers.registry import Providers
from tests.support.prepared import Prepared, organizations_of, read_rows
from tests.support.sandbox import RunningSandbox
from workers.actors import ACTORS
from workers.executor import Executor
from workers.provider_waits import ProviderWaits

T = TypeVar("T")


#: Short waits for lost requests.
WAITS = ProviderWaits(unsure_seconds=3, recheck_seconds=0.2)


@dataclass(frozen=True)
class Urls:
    """One test's servers: the database as its owner and as `holdfast_app`, and Redis."""

    owner_url: str
    app_url: str
    redis_url: str


@dataclass(frozen=True)
class Customer:
    """An organization with an active subscription at the sandbox's PayPal."""

    id: str
    subscription_id: str
    brand_ids: list[str]
    sids: list[str]
    #: Two that run and one that an operator paused, in this order.
    campaign_ids: list[str]


#: The customers made with each starting balance, and their rows.
_PREPARED: dict[int, list[tuple[Customer, Prepared]]] = defaultdict(list)


def with_database(url: str, name: str) -> str:
    """Return the same server's address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def fund(database: Database, organization_id: str, micros: int) -> None:
    """Credit micros of USD to a wallet, under a key that is new each time."""

    def work(session: Session) -> None:
        now = clock(session)
        outcome = wallet.credit(
            session,
            organization_id,
            key=f"fund:{now.isoformat()}",
            amount_micros=micros,
            currency="USD",
            now=now,
        )
        assert outcome.ok, outcome

    database.run(work)


def make_organization(database: Database, *, micros: int = 0) -> str:
    """Make an organization without a subscription, with this many micros of USD."""
    organization_id = database.run(
        lambda session: organizations.create_organization(
            session, name="Acme", currency="USD", now=clock(session)
        )
    )
    if micros:
        fund(database, organization_id, micros)
    return organization_id


class World:
    """One test's Holdfast: database, providers, and a worker that the test calls."""

    def __init__(
        self,
        owner_url: str,
        database: Database,
        settings: Settings,
        sandbox: RunningSandbox,
        providers: Providers,
    ) -> None:
        self.owner_url = owner_url
        self.database = database
        self.settings = settings
        self.sandbox = sandbox
        self.providers = providers
        self.executor = Executor(database, providers, settings, ACTORS, "test-worker", waits=WAITS)

    def do(self, fn: Callable[[Session, datetime], T]) -> T:
        """Run `fn(session, now)` in a transaction."""
        return self.database.run(lambda session: fn(session, clock(session)))

    def read(self, model: type[T], **where: Any) -> list[T]:
        """Read the rows of a model."""
        return self.database.run(
            lambda session: list(session.scalars(select(model).filter_by(**where)))
        )

    def customer(self, *, micros: int = 50_000_000) -> Customer:
        """Make a customer that may spend, with its subaccounts active at Twilio.

        The first customer is made with jobs. Later ones are copies of customers that the run has
        made in other databases. If a job waits, no copy is used, because making the customer runs
        that job.
        """
        present = organizations_of(self.owner_url)
        if present is None:
            return self._make_customer(micros)
        for first, rows in _PREPARED[micros]:
            if first.id not in present:
                subscription_id, sids = self._open_accounts(first.id)
                rows.load(self.owner_url, [subscription_id, *sids])
                return Customer(
                    first.id, subscription_id, first.brand_ids, sids, first.campaign_ids
                )
        before = read_rows(self.owner_url)
        made = self._make_customer(micros)
        provider_ids = [made.subscription_id, *made.sids]
        _PREPARED[micros].append((made, Prepared(before, read_rows(self.owner_url), provider_ids)))
        return made

    def _open_accounts(self, organization_id: str) -> tuple[str, list[str]]:
        """Make a subscription at PayPal and two subaccounts at Twilio; return their ids."""
        subscription = self.sandbox.control(
            "POST",
            "/paypal/subscriptions",
            {"organization_id": organization_id, "deliver": False},
        )
        sids = [
            self.sandbox.control("POST", "/twilio/subaccounts", {"friendly_name": name})["sid"]
            for name in ("one", "two")
        ]
        return subscription["id"], sids

    def _make_customer(self, micros: int) -> Customer:
        organization_id = make_organization(self.database, micros=micros)
        subscription_id, sids = self._open_accounts(organization_id)
        self.stage("look_at_subscription", provider="paypal", external_id=subscription_id)
        self.run_due()
        brand_ids = [
            self.do(
                lambda session, now, sid=sid: organizations.create_brand(
                    session, organization_id, name=sid, twilio_subaccount_sid=sid, now=now
                )
            )
            for sid in sids
        ]
        campaign_ids = [self._campaign(brand_ids[0], name) for name in ("a", "b", "by hand")]
        self.do(lambda session, now: operator_actions.pause_campaign(session, campaign_ids[2], now))
        self.run_due()
        return Customer(organization_id, subscription_id, brand_ids, sids, campaign_ids)

    def stage(self, name: str, **kwargs: str) -> str:
        """Stage a job by name, as an event or an operation would."""
        from domain.jobs.staging import stage
        from domain.jobs.types import JOB_TYPES

        return self.do(lambda session, _: stage(session, JOB_TYPES[name], None, **kwargs))

    def stage_twin(self, name: str, **kwargs: str) -> str:
        """Stage a refresh beside others of the same object, without a key.

        The version before keys staged them in this way.
        """
        from db.jobs import staging
        from domain.jobs.types import JOB_TYPES

        queue = str(JOB_TYPES[name].queue)
        return self.do(
            lambda session, _: staging.insert(
                session, name=name, queue=queue, kwargs=dict(kwargs), organization_id=None
            )
        )

    def run_due(self, limit: int = 200) -> list[tuple[str, str]]:
        """Run all due jobs and the jobs that they stage; return (name, outcome) pairs."""
        ran: list[tuple[str, str]] = []
        while due := self._due():
            for job_id, name in due:
                ran.append((name, self.executor.execute(job_id)))
                assert len(ran) < limit, f"jobs without end: {ran[-10:]}"
        return ran

    def due_now(self) -> None:
        """End all waiting: retries, postponements and leases are over now."""
        with self.database.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE jobs SET due_at = clock_timestamp(), ring_at = clock_timestamp(),"
                    " lease_until = CASE WHEN lease_until IS NULL THEN NULL"
                    " ELSE clock_timestamp() END WHERE ring_at IS NOT NULL"
                )
            )

    def receive(self, event_id: str, event_type: str, body: bytes, queue: str = "safety") -> str:
        """Store a PayPal event in the inbox as the ingress does; return the verdict."""
        with self.database.engine.begin() as connection:
            verdict = connection.execute(
                text(
                    "SELECT (inbox_receive(ARRAY[:id], ARRAY['paypal'], ARRAY[:external],"
                    " ARRAY[:external], ARRAY[:type], ARRAY[CAST(:body AS bytea)], ARRAY[:cor],"
                    " ARRAY[:job], ARRAY[:queue]))[1]"
                ),
                {
                    "id": f"evt_{event_id}",
                    "external": event_id,
                    "type": event_type,
                    "body": body,
                    "cor": f"cor_{event_id}",
                    "job": f"job_{event_id}",
                    "queue": queue,
                },
            ).scalar_one()
        return str(verdict)

    def wallet(self, organization_id: str) -> Wallet:
        return self.read(Wallet, organization_id=organization_id)[0]

    def brands(self, organization_id: str) -> list[Brand]:
        """Read an organization's brands, the oldest first."""
        found = self.read(Brand, organization_id=organization_id)
        return sorted(found, key=lambda brand: brand.created_at)

    def subscription(self, external_id: str) -> Subscription:
        return self.read(Subscription, external_id=external_id)[0]

    def campaign(self, campaign_id: str) -> Campaign:
        return self.read(Campaign, id=campaign_id)[0]

    def event(self, event_id: str) -> InboxEvent:
        return self.read(InboxEvent, external_id=event_id)[0]

    def job(self, job_id: str) -> Job:
        return self.read(Job, id=job_id)[0]

    def set_status_at_paypal(self, subscription_id: str, status: str) -> None:
        """Change a subscription at PayPal without a webhook."""
        path = f"/paypal/subscriptions/{subscription_id}/status"
        self.sandbox.control("POST", path, {"status": status, "deliver": False})

    def twilio_status(self, sid: str) -> str:
        """Return a subaccount's status at the sandbox's Twilio."""
        status: str = self.sandbox.control("GET", f"/twilio/subaccounts/{sid}")["status"]
        return status

    def _campaign(self, brand_id: str, name: str) -> str:
        def work(session: Session, now: datetime) -> str:
            campaign_id = organizations.create_campaign(session, brand_id, name=name, now=now)
            operator_actions.start_campaign(session, campaign_id, now)
            return campaign_id

        return self.do(work)

    def _due(self) -> list[tuple[str, str]]:
        with self.database.engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT id, name FROM jobs WHERE ring_at IS NOT NULL"
                    " AND due_at <= clock_timestamp()"
                    " AND (lease_until IS NULL OR lease_until <= clock_timestamp()) ORDER BY id"
                )
            )
            return [(row.id, row.name) for row in rows]
