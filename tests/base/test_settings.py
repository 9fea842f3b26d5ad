"""Settings: an error names the setting in one line, and no secret is shown."""

from __future__ import annotations

import re

import pytest

from base.settings import Settings, SettingsError, load_settings, require


def refusal(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.__cause__ is None
    return line


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Removes all settings from the environment in which the tests run."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_settings_have_defaults_without_any_variable():
    settings = load_settings()
    assert (settings.port, settings.paypal_environment, settings.database_url) == (8080, "live", "")


def test_empty_variable_counts_as_not_set(monkeypatch):
    # Given every variable, each of them empty, as in an environment file that passes on unset
    # variables
    plain = load_settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    # Then the settings are the defaults, and no file is named "."
    assert load_settings() == plain
    assert load_settings().paypal_ca_file is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("PUBLIC_URL", "ftp://x"),
        ("PAYPAL_BASE_URL", "paypal"),
        ("PAYPAL_WEBHOOK_ID", "webhook_id"),
        ("PAYPAL_WEBHOOK_ID", "8PT597110X-687430"),
        ("PAYPAL_WEBHOOK_ID", "8PT597110X_687430"),
        ("PAYPAL_WEBHOOK_ID", " 8PT597110X687430"),
        ("PAYPAL_WEBHOOK_ID", "x" * 51),
        ("PAYPAL_ENVIRONMENT", "test"),
        ("JOBS_KEPT_DAYS", "0"),
        ("TWILIO_BULK_PER_SECOND", "0"),
    ],
)
def test_wrong_setting_is_named_in_one_line(monkeypatch, name, value):
    assert f"{name}: " in refusal(monkeypatch, **{name: value})


#: Every setting that is a time or a rate, so that a new one is tested too.
DURATIONS = [name for name in Settings.model_fields if re.search("_seconds(_max)?$|_days$", name)]
RATES = [name for name in Settings.model_fields if name.endswith("_per_second")]


@pytest.mark.parametrize("name", [*DURATIONS, *RATES])
@pytest.mark.parametrize("value", ["0", "0.0", "-1", "1e-9", "1e12", "inf", "nan", "0ms", "5s"])
def test_senseless_duration_or_rate_is_named(monkeypatch, name, value):
    if name == "subscription_grace_seconds" and float_of(value) == 0:
        monkeypatch.setenv(name.upper(), value)
        assert load_settings().subscription_grace_seconds == 0
        return
    assert f"{name.upper()}: " in refusal(monkeypatch, **{name.upper(): value})


def float_of(value):
    return float(value) if value[-1].isdigit() else None


def test_every_duration_and_rate_is_tested():
    assert len(DURATIONS) == 3
    assert len(RATES) == 2


def test_webhook_id_of_letters_and_digits_is_accepted(monkeypatch):
    monkeypatch.setenv("PAYPAL_WEBHOOK_ID", "8PT597110X687430LKGECATA")
    assert load_settings().paypal_webhook_id == "8PT597110X687430LKGECATA"


def test_all_wrong_settings_are_named_at_once(monkeypatch):
    line = refusal(monkeypatch, PORT="x", LOG_LEVEL="y")
    assert "PORT: " in line
    assert "LOG_LEVEL: " in line


def test_error_shows_no_value(monkeypatch):
    line = refusal(
        monkeypatch,
        PORT="hunter2",
        PAYPAL_CLIENT_SECRET="hunter2",
        TWILIO_AUTH_TOKEN="hunter2",
        DATABASE_URL="postgresql://holdfast_app:hunter2@db/holdfast",
    )
    assert "hunter2" not in line


def test_printed_settings_show_no_secret(monkeypatch):
    monkeypatch.setenv("PAYPAL_CLIENT_SECRET", "hunter2")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "hunter3")
    settings = load_settings()
    for printed in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter" not in printed
    assert settings.paypal_client_secret.get_secret_value() == "hunter2"


def test_printed_settings_show_no_database_password(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://holdfast_app:hunter2@db/holdfast")
    monkeypatch.setenv("DATABASE_OWNER_URL", "postgresql://postgres:hunter3@db/holdfast")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter4@cache/0")
    assert "hunter" not in repr(load_settings())


def test_every_missing_setting_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        require(load_settings(), "database_url", "paypal_client_secret", "paypal_environment")
    assert str(caught.value) == "missing setting: DATABASE_URL, PAYPAL_CLIENT_SECRET"


def test_given_setting_is_not_missing(monkeypatch):
    monkeypatch.setenv("PAYPAL_CLIENT_SECRET", "x")
    require(load_settings(), "paypal_client_secret", "paypal_environment")


def test_trailing_slash_of_a_url_is_removed(monkeypatch):
    monkeypatch.setenv("PUBLIC_URL", "https://example.test/")
    assert load_settings().public_url == "https://example.test"
