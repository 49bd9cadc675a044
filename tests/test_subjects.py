"""The grammar of subject references, setting keys and origins."""

import pytest

from ledger.errors import BadSubject
from ledger.subjects import KINDS, is_id, is_origin, is_setting_key, is_text, kind_of, parse_subject

ALPHABET = "ABCXYZabcxyz0189._~@/+:-"


@pytest.mark.parametrize("kind", [*KINDS, "catalog"])
def test_every_kind_and_every_character_of_the_grammar_is_accepted(kind: str) -> None:
    assert parse_subject(f"{kind}:{ALPHABET}") == f"{kind}:{ALPHABET}"
    assert kind_of(f"{kind}:{ALPHABET}") == kind


def test_an_id_has_1_to_256_characters() -> None:
    assert [is_id("a" * length) for length in (0, 1, 256, 257)] == [False, True, True, False]


def test_a_setting_key_has_1_to_128_characters() -> None:
    assert [is_setting_key("a" * length) for length in (0, 1, 128, 129)] == [False, True, True, False]
    assert is_setting_key("Training.opt_in-2")


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\0", " ", "é", "٣", "\uff41", "%", "?", "#", "\\", '"', "\u200b", "*"]
)
def test_no_other_character_is_accepted_anywhere(character: str) -> None:
    for text in (f"a{character}", f"{character}a", character):
        assert not is_id(text)
        assert not is_setting_key(text)
        assert not is_origin(text)
        with pytest.raises(BadSubject):
            parse_subject(f"org:{text}")


@pytest.mark.parametrize("character", "~@/+:")
def test_an_id_may_contain_characters_that_a_setting_key_may_not(character: str) -> None:
    assert is_id(character)
    assert not is_setting_key(character)


@pytest.mark.parametrize(
    "text", ["", "org", "org:", ":a", "Org:a", "orgs:a", " org:a", "org :a", None, 7, b"org:a", ["org:a"]]
)
def test_a_malformed_reference_is_refused(text: object) -> None:
    with pytest.raises(BadSubject):
        parse_subject(text)


def test_only_the_given_kinds_are_accepted() -> None:
    assert parse_subject("org:a", ("org",)) == "org:a"
    with pytest.raises(BadSubject, match="the kinds are org"):
        parse_subject("account:a", ("org",))


def test_an_origin_is_like_a_host_and_a_path() -> None:
    for origin in ("a", "ledger.example.com", "inforce.local/0a1b2c3d", "a/b/c/d"):
        assert is_origin(origin)
    for origin in ("", "/a", "a/", "a//b", "A", "https://a", ".a", "a:1", "a" * 64, "a/b/c/d/e"):
        assert not is_origin(origin)


def test_half_of_a_surrogate_pair_is_not_a_text() -> None:
    assert all(map(is_text, ("", "a", "é", "🙂", "\ud7ff", "\ue000")))
    assert not any(map(is_text, ("\ud800", "a\udfff", "\ud83d\ude42")))
