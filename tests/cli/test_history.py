"""history: the events of a subject, page by page."""

from tests.support.command import Inforce


def test_a_history_continues_at_the_version_it_names(inforce: Inforce) -> None:
    for value in ("true", "false", "true"):
        inforce("submit", "org:acme", "training.opt_in", value)
    first = inforce("history", "org:acme", "--limit", "2", "--format", "json").json()
    assert [event["event"]["data"]["version"] for event in first["events"]] == [3, 2]
    rest = inforce("history", "org:acme", "--after", str(first["next_after"]), "--format", "csv").out.splitlines()
    assert rest[1].split(",")[1:6:2] == ["1", "inforce.setting.changed.v1", "true"]
    assert "more: --after 2" in inforce("history", "org:acme", "--limit", "2").err
