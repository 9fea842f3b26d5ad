"""Show and manage organizations and campaigns."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from base.enums import CampaignStatus
from cli.commands.output import print_result, show
from cli.commands.reconcile import Wait, all_in_line, describe, sentence, wait_for_checks
from cli.commands.shared import acting, consequences, in_transaction, me, permission, what_followed
from cli.options import By, Json, Org, Why
from db.locks import OrganizationNotFound
from db.models import Brand, Campaign, Organization, Subscription
from domain import operator_actions
from domain import organizations as records
from domain.entitlement import spending_block, subscription_state
from domain.wallet import freezes as wallet_freezes
from domain.wallet import queries as wallet_queries

organizations = typer.Typer(no_args_is_help=True, help="Show, create and enforce organizations.")
campaigns = typer.Typer(no_args_is_help=True, help="Pause and start campaigns manually.")

#: Most rows of a list.
_LIST_MAX = 200


@organizations.command("list")
def list_organizations(as_json: Json = False) -> None:
    """List the newest organizations."""

    def read(session: Session, now: datetime) -> list[dict[str, Any]]:
        rows = session.scalars(
            select(Organization).order_by(Organization.id.desc()).limit(_LIST_MAX)
        )
        return [
            {
                "organization_id": row.id,
                "name": row.name,
                **permission(spending_block(session, row.id, now)),
            }
            for row in rows
        ]

    show(in_transaction(read), as_json, "organizations")


@organizations.command("show")
def show_organization(organization_id: Org, as_json: Json = False) -> None:
    """Show an organization's entitlement, subscriptions, brands and campaigns."""

    def read(session: Session, now: datetime) -> dict[str, Any]:
        organization = session.get(Organization, organization_id)
        if organization is None:
            raise OrganizationNotFound(organization_id)
        return _describe(session, organization, now)

    show(in_transaction(read), as_json)


@organizations.command("create")
def create_organization(
    name: str,
    currency: Annotated[str, typer.Option(help="Currency of its wallet (ISO 4217).")] = "USD",
    as_json: Json = False,
) -> None:
    """Create an organization and its wallet. It may spend once it subscribes and pays."""
    created = in_transaction(
        lambda session, now: records.create_organization(
            session, name=name, currency=currency, now=now
        )
    )
    done = {"organization_id": created, "action": "create", "name": name, "currency": currency}
    print_result(created, done, as_json)


@organizations.command("enforce")
def enforce(
    organization_id: Org, why: Why, by: By = "", wait: Wait = 30, as_json: Json = False
) -> None:
    """Enforce an organization's entitlement: freezes, campaigns, calls and Twilio.

    The state of each subaccount is read at Twilio, and drift is repaired. The exit status is 1
    unless every subaccount is in line now.
    """
    with acting() as do:
        done = do(
            lambda session, now: operator_actions.enforce_manually(
                session, organization_id, by=by or me(), why=why, now=now
            )
        )
        checks = wait_for_checks(do, done.subaccount_jobs.values(), wait)
    lines = [f"subscription {done.subscription_state}; {what_followed(done)}"]
    print_result(
        "\n".join([*lines, *map(sentence, checks)]),
        {
            "organization_id": organization_id,
            "action": "enforce",
            **consequences(done),
            "subaccounts": [describe(one) for one in checks],
        },
        as_json,
    )
    raise typer.Exit(0 if all_in_line(checks) else 1)


@organizations.command("add-brand")
def add_brand(
    organization_id: Org,
    name: str,
    subaccount: Annotated[str | None, typer.Option(help="Its Twilio subaccount: AC…")] = None,
    as_json: Json = False,
) -> None:
    """Add a brand, and set its Twilio subaccount to the organization's entitlement."""
    created = in_transaction(
        lambda session, now: records.create_brand(
            session, organization_id, name=name, twilio_subaccount_sid=subaccount, now=now
        )
    )
    done = {
        "brand_id": created,
        "organization_id": organization_id,
        "action": "add_brand",
        "name": name,
        "subaccount_sid": subaccount,
    }
    print_result(created, done, as_json)


@organizations.command("add-campaign")
def add_campaign(brand_id: str, name: str, as_json: Json = False) -> None:
    """Add a campaign to a brand, as a draft."""
    created = in_transaction(
        lambda session, now: records.create_campaign(session, brand_id, name=name, now=now)
    )
    done = {
        "campaign_id": created,
        "brand_id": brand_id,
        "action": "add_campaign",
        "name": name,
        "status": CampaignStatus.DRAFT,
    }
    print_result(created, done, as_json)


@campaigns.command("pause")
def pause(campaign_id: str, why: Why, by: By = "", as_json: Json = False) -> None:
    """Pause a campaign manually. Only an operator can resume it."""
    campaign = in_transaction(
        lambda session, now: operator_actions.pause_campaign_manually(
            session, campaign_id, by=by or me(), why=why, now=now
        )
    )
    _print_campaign(campaign, "pause", as_json)


@campaigns.command("start")
def start(campaign_id: str, why: Why, by: By = "", as_json: Json = False) -> None:
    """Start a draft or resume a manual pause, as far as the organization may spend."""
    campaign = in_transaction(
        lambda session, now: operator_actions.start_campaign_manually(
            session, campaign_id, by=by or me(), why=why, now=now
        )
    )
    _print_campaign(campaign, "start", as_json)


def _print_campaign(campaign: Campaign, action: str, as_json: bool) -> None:
    done = {
        "campaign_id": campaign.id,
        "action": action,
        "status": campaign.status,
        "pause_reason": campaign.pause_reason,
    }
    line = f"{campaign.id} {campaign.status} {campaign.pause_reason or ''}".rstrip()
    print_result(line, done, as_json)


def _describe(session: Session, organization: Organization, now: datetime) -> dict[str, Any]:
    key = organization.id
    subscriptions = session.scalars(
        select(Subscription).where(Subscription.organization_id == key)
    ).all()
    brands = session.scalars(select(Brand).where(Brand.organization_id == key)).all()
    runs = session.scalars(select(Campaign).where(Campaign.organization_id == key)).all()
    figures = wallet_queries.balance(session, key, now)
    return {
        "organization_id": organization.id,
        "name": organization.name,
        "subscription_state": subscription_state(subscriptions, now),
        **permission(spending_block(session, key, now)),
        "available_micros": figures.available_micros,
        "currency": figures.currency,
        "freezes": [
            {"reason": one.reason, "cause": one.cause, "placed_at": one.placed_at}
            for one in wallet_freezes.active_freezes(session, key, now)[0]
        ],
        "subscriptions": [
            {
                "subscription_id": one.external_id,
                "provider": one.provider,
                "status": one.status,
                "closing_reported_at": one.closing_reported_at,
                "refreshed_at": one.looked_at,
            }
            for one in subscriptions
        ],
        "brands": [
            {
                "brand_id": one.id,
                "name": one.name,
                "subaccount_sid": one.twilio_subaccount_sid,
                "actual_state": one.twilio_actual,
                "desired_state": one.twilio_desired,
                "problem": one.twilio_problem,
                "generation": one.twilio_generation,
            }
            for one in brands
        ],
        "campaigns": [
            {
                "campaign_id": one.id,
                "name": one.name,
                "status": one.status,
                "pause_reason": one.pause_reason,
            }
            for one in runs
        ],
    }
