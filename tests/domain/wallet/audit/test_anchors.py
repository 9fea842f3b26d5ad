"""Chain heads in a signed file: read back unchanged, or refused."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.wallet.audit.anchors import HeadsRefused, read_heads, signed_heads
from domain.wallet.audit.chain import Head
from tests.domain.support import T0

KEY = "a key from elsewhere"
HEADS = [Head(f"org_{number}", number, bytes([number]) * 32) for number in range(3)]


def signed(heads=HEADS, key=KEY):
    return b"".join(signed_heads(heads, T0, key))


def resigned(body):
    """Sign any bytes as a file of heads is signed."""
    digest = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
    return body + f'{{"hmac_sha256":"{digest}"}}\n'.encode()


@pytest.mark.parametrize("heads", [HEADS, []])
def test_heads_are_the_same_after_writing_and_reading(heads):
    assert read_heads(signed(heads), KEY) == {head.organization_id: head for head in heads}


def test_file_consists_of_readable_lines_of_json():
    first, *_, last = signed(HEADS[:1]).decode().splitlines()
    assert first == '{"format":"holdfast heads 1","at":"2026-03-01T12:00:00+00:00"}'
    assert last.startswith('{"hmac_sha256":"')


@pytest.mark.parametrize("key", ["", KEY + "x"])
def test_another_key_is_refused(key):
    with pytest.raises(HeadsRefused):
        read_heads(signed(), key)


@given(st.data())
def test_a_changed_byte_anywhere_is_refused(data):
    raw = bytearray(signed())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(HeadsRefused):
        read_heads(bytes(raw), KEY)


@given(st.integers(0, len(signed()) - 1))
def test_a_file_cut_anywhere_is_refused(length):
    with pytest.raises(HeadsRefused):
        read_heads(signed()[:length], KEY)


def test_a_line_left_out_is_refused():
    first, _, *rest = signed().splitlines(keepends=True)
    with pytest.raises(HeadsRefused):
        read_heads(b"".join([first, *rest]), KEY)


def test_signed_file_with_other_contents_is_refused():
    for body in (b"", b"[]\n", b'{"format":"other"}\n', b'{"format":"holdfast heads 1"}\n{}\n'):
        with pytest.raises(HeadsRefused):
            read_heads(resigned(body), KEY)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n", "this is not a file of `verify anchor`"),
        (b"entry,amount\n1,2\n", "this is not a file of `verify anchor`"),
        (signed()[1:], "this is not a file of `verify anchor`"),
        (signed()[:-1], "the end of the file is missing or changed"),
        (signed()[:90], "the end of the file is missing or changed"),
        (signed().rpartition(b'{"hmac')[0], "the end of the file is missing or changed"),
        (signed() + b"\n", "the end of the file is missing or changed"),
        (signed(key="other"), "the file was signed with another key, or changed since"),
        (signed().replace(b"org_1", b"org_7"), "signed with another key, or changed since"),
        (
            resigned(b'{"format":"holdfast heads 2"}\n'),
            "the file's format is 'holdfast heads 2', not 'holdfast heads 1'",
        ),
        (
            resigned(b'{"format":"holdfast heads 1"}\n[]\n'),
            "the signature is valid, but a line is not a chain head",
        ),
    ],
)
def test_refusal_of_the_file_names_what_is_wrong(raw, reason):
    with pytest.raises(HeadsRefused) as refused:
        read_heads(raw, KEY)
    assert reason in refused.value.detail
