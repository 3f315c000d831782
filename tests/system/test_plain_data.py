"""Mappings out of JSON, or why a text holds none."""

import pytest

from mrn_components.system.plain_data import parse_mapping


def test_a_mapping_is_returned():
    assert parse_mapping('{"a": [1]}') == parse_mapping(b'{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds list, expected a mapping of names"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
        ('{"a": ' + "[" * 200_000, "too many levels"),
    ],
)
def test_another_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mapping(text)
