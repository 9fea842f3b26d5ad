"""The model's calls: money held while they live, and their charges.

A hold moves no money. It leaves "open" once, and a call is charged once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.model.model import AMOUNT_MAX, Answer, Hold, No, Purse


@dataclass
class Wallet(Purse):
    """One organization's money, and its calls."""

    def reserve(
        self,
        call: str,
        provider_call: str | None,
        amount: int,
        currency: str,
        expires_at: float,
        now: float,
    ) -> Answer:
        """Reserve one hold per call; while it is open, any further request is a replay."""
        _in_bounds(amount)
        self._same_currency(currency)
        known = self.holds.get(call)
        if known:
            if None not in (provider_call, known.provider_call) and (
                provider_call != known.provider_call
            ):
                raise No("IDEMPOTENCY_CONFLICT")
            if known.status != "open":
                raise No("CALL_SETTLED")
            return self._ok(replayed=True)
        if provider_call and any(h.provider_call == provider_call for h in self.holds.values()):
            raise No("IDEMPOTENCY_CONFLICT")
        _ends_later(expires_at, now)
        self._may_spend(amount, now)
        self.holds[call] = Hold("open", amount, expires_at, provider_call)
        return self._ok()

    def extend(self, call: str, nth: int, amount: int, expires_at: float, now: float) -> Answer:
        """Add to an open hold in numbered steps; its end never becomes earlier."""
        _in_bounds(amount)
        if nth < 1:
            raise No("INVALID_EXTENSION")
        known = self._hold(call)
        if known.status != "open":
            raise No("CALL_SETTLED")
        if nth < known.extensions or (nth, amount) == (known.extensions, known.extended):
            return self._ok(replayed=True)
        if nth != known.extensions + 1:
            raise No("IDEMPOTENCY_CONFLICT")
        _in_bounds(known.reserved + amount)
        _ends_later(expires_at, now)
        self._may_spend(amount, now)
        self.holds[call] = replace(
            known,
            reserved=known.reserved + amount,
            expires_at=max(known.expires_at, expires_at),
            extensions=nth,
            extended=amount,
        )
        return self._ok()

    def commit(self, call: str, amount: int, currency: str, now: float) -> Answer:
        """Charge the hold, then available money, then the debt limit, also while frozen.

        The rest becomes an outstanding amount.
        """
        if not 0 <= amount <= AMOUNT_MAX:
            raise No("INVALID_AMOUNT")
        request, key = ("commit", amount, currency), f"call:{call}:commit"
        if key in self.firsts:
            return self._again(key, request)
        self._same_currency(currency)
        known = self.holds.get(call) or Hold("committed", expires_at=now)
        own = known.reserved if known.status == "open" else 0
        charged = min(amount, own + self.available + self.debt_limit)
        settled = replace(known, billed=amount, shortfall=amount - charged)
        if known.status == "open":
            captured = min(amount, own)
            settled = replace(
                settled, status="committed", captured=captured, released=own - captured
            )
        self.holds[call] = settled
        if charged:
            self._write("call", charged, moved=-charged)
        self._owe(amount - charged, "call_shortfall", call)
        if charged == amount:
            self._pay_owed()
        self.firsts[key] = (request, self._ok())
        return self._ok()

    def release(self, call: str, now: float) -> Answer:
        """Release the hold of a call that never began; a returned hold stays unchanged."""
        known = self._hold(call)
        if known.billed is not None:
            raise No("CALL_SETTLED")
        if known.status != "open":
            return self._ok(replayed=True)
        self._give_back(call, "released")
        return self._ok()

    def expire(self, calls: tuple[str, ...], now: float) -> Answer:
        """Return the holds that are still open and past their end."""
        past = [
            call
            for call in sorted(set(calls) & set(self.holds))
            if self.holds[call].status == "open" and self.holds[call].expires_at <= now
        ]
        for call in past:
            self._give_back(call, "expired")
        return Answer("OK", result=tuple(past))

    def _hold(self, call: str) -> Hold:
        if call not in self.holds:
            raise No("HOLD_NOT_FOUND")
        return self.holds[call]

    def _give_back(self, call: str, status: str) -> None:
        known = self.holds[call]
        self.holds[call] = replace(known, status=status, released=known.reserved)
        self._pay_owed()


def _in_bounds(amount: int) -> None:
    if not 1 <= amount <= AMOUNT_MAX:
        raise No("INVALID_AMOUNT")


def _ends_later(expires_at: float, now: float) -> None:
    if expires_at <= now:
        raise No("INVALID_EXPIRY")
