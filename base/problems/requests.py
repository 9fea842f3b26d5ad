"""Codes of HTTP requests that are refused before any rule of the domain applies."""

from __future__ import annotations

from base.problems.code import Code

MALFORMED_REQUEST = Code(
    "MALFORMED_REQUEST",
    400,
    "The request cannot be read, or a value in it is wrong.",
    "Correct what `detail` names and send the request again.",
)
UNAUTHENTICATED = Code(
    "UNAUTHENTICATED",
    401,
    "The bearer token is missing or invalid.",
    "Send a token that a key of `API_JWKS_FILE` signed and that has not expired.",
)
UNVERIFIED_WEBHOOK = Code(
    "UNVERIFIED_WEBHOOK",
    401,
    "The request does not prove that the provider sent it.",
    "Compare the secrets, the webhook id and `PUBLIC_URL` with the provider's settings.",
    money="No money moved. Nothing of the webhook is stored.",
)
FORBIDDEN = Code(
    "FORBIDDEN",
    403,
    "The token does not allow this request.",
    "Send a token that has the scope, or the organization, that `detail` names.",
)
NOT_FOUND = Code(
    "NOT_FOUND",
    404,
    "There is nothing at this address.",
    "Compare the path with GET /api/openapi.json.",
)
METHOD_NOT_ALLOWED = Code(
    "METHOD_NOT_ALLOWED",
    405,
    "The address does not accept this method.",
    "Use a method that the `Allow` header names.",
)
REQUEST_TIMEOUT = Code(
    "REQUEST_TIMEOUT",
    408,
    "The body did not arrive in time.",
    "Send the request again over a faster connection.",
)
BODY_TOO_LARGE = Code(
    "BODY_TOO_LARGE",
    413,
    "The body is larger than the limit.",
    "Send a smaller body; `detail` names the limit.",
    money="No money moved. If a provider sent the body, its report is missing.",
)
UNSUPPORTED_MEDIA_TYPE = Code(
    "UNSUPPORTED_MEDIA_TYPE",
    415,
    "The body has a media type that is not accepted.",
    "Send the media type that `detail` names.",
)
INTERNAL_ERROR = Code(
    "INTERNAL_ERROR",
    500,
    "An unexpected error occurred.",
    "Send the same request again. If that fails too, search the log for the error.",
    money="The request may have taken effect. A repeat with the same ids moves no money twice.",
)
API_NOT_CONFIGURED = Code(
    "API_NOT_CONFIGURED",
    503,
    "The API has no keys to verify tokens with.",
    "Set `API_JWKS_FILE` and start the ingress again.",
)
TEMPORARILY_UNAVAILABLE = Code(
    "TEMPORARILY_UNAVAILABLE",
    503,
    "The request cannot be carried out now.",
    "Send the same request again after the seconds in `Retry-After`.",
)
OUTCOME_UNKNOWN = Code(
    "OUTCOME_UNKNOWN",
    503,
    "It is unknown whether the request took effect.",
    "Send the same request again after the seconds in `Retry-After`.",
    money="Money may have moved. A repeat with the same ids moves no money twice.",
)
NOT_READY = Code(
    "NOT_READY",
    503,
    "The ingress cannot store webhooks now.",
    "Restore PostgreSQL; `detail` names its fault. Providers send their webhooks again.",
)
