"""Show and manage organizations and campaigns."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from base.enums import CampaignStatus
from cli.commands.output import print_result, show, show_page
from cli.commands.reconcile import Wait, all_in_line, check_row, summary_line, wait_for_checks
from cli.commands.shared import (
    acting_operator,
    consequence_fields,
    consequences_text,
    in_transaction,
    open_database,
    permission,
)
from cli.options import By, Json, Org, Why
from db.models import Campaign
from domain import operator_actions, organization_queries
from domain import organizations as records
from domain.organization_queries import OrganizationView

organizations = typer.Typer(no_args_is_help=True, help="Show, create and enforce organizations.")
campaigns = typer.Typer(no_args_is_help=True, help="List, pause and start campaigns.")

Limit = Annotated[int, typer.Option(min=1, max=organization_queries.PAGE_MAX, help="Rows a page.")]


@organizations.command("list")
def list_organizations(
    after: Annotated[
        str | None, typer.Option(help="Cursor: last organization id of a page.")
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List organizations and whether they may spend, newest first."""
    page = in_transaction(
        lambda session, now: organization_queries.list_organizations(
            session, now, after=after, limit=limit
        )
    )
    rows = [
        {"organization_id": one.organization_id, "name": one.name, **permission(one.block)}
        for one in page
    ]
    cursor = page[-1].organization_id if len(page) == limit else None
    show_page(rows, cursor, as_json, "organizations")


@organizations.command("show")
def show_organization(organization_id: Org, as_json: Json = False) -> None:
    """Show an organization's entitlement, subscriptions, brands and newest campaigns."""
    found = in_transaction(
        lambda session, now: organization_queries.read_organization(session, organization_id, now)
    )
    show(_described(found), as_json)


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
    operator = acting_operator(by, why)
    with open_database() as do:
        done = do(
            lambda session, now: operator_actions.enforce_manually(
                session, organization_id, operator=operator, now=now
            )
        )
        checks = wait_for_checks(do, done.subaccount_jobs.values(), wait)
    lines = [f"subscription {done.subscription_state}; {consequences_text(done)}"]
    print_result(
        "\n".join([*lines, *map(summary_line, checks)]),
        {
            "organization_id": organization_id,
            "action": "enforce",
            **consequence_fields(done),
            "subaccounts": [check_row(one) for one in checks],
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


@campaigns.command("list")
def list_campaigns(
    organization_id: Annotated[
        str | None, typer.Option("--org", help="Only this organization's campaigns.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Cursor: last campaign id of a page.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List campaigns, newest first."""
    page = in_transaction(
        lambda session, _: organization_queries.list_campaigns(
            session, organization_id=organization_id, after=after, limit=limit
        )
    )
    cursor = page[-1].campaign_id if len(page) == limit else None
    show_page([asdict(one) for one in page], cursor, as_json, "campaigns")


@campaigns.command("pause")
def pause(campaign_id: str, why: Why, by: By = "", as_json: Json = False) -> None:
    """Pause a campaign manually. Only an operator can resume it."""
    operator = acting_operator(by, why)
    campaign = in_transaction(
        lambda session, now: operator_actions.pause_campaign_manually(
            session, campaign_id, operator=operator, now=now
        )
    )
    _print_campaign(campaign, "pause", as_json)


@campaigns.command("start")
def start(campaign_id: str, why: Why, by: By = "", as_json: Json = False) -> None:
    """Start a draft or resume a manual pause, as far as the organization may spend."""
    operator = acting_operator(by, why)
    campaign = in_transaction(
        lambda session, now: operator_actions.start_campaign_manually(
            session, campaign_id, operator=operator, now=now
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


def _described(found: OrganizationView) -> dict[str, Any]:
    figures = found.wallet.balance
    return {
        "organization_id": found.organization_id,
        "name": found.name,
        "subscription_state": found.subscription_state,
        **permission(found.block),
        "available_micros": figures.available_micros,
        "currency": figures.currency,
        "freezes": [
            {"reason": one.reason, "cause": one.cause, "placed_at": one.placed_at}
            for one in found.wallet.stopping
        ],
        "subscriptions": [asdict(one) for one in found.subscriptions],
        "brands": [asdict(one) for one in found.brands],
        "campaigns": [
            {
                "campaign_id": one.campaign_id,
                "name": one.name,
                "status": one.status,
                "pause_reason": one.pause_reason,
            }
            for one in found.campaigns
        ],
        "has_more_campaigns": found.has_more_campaigns,
    }
