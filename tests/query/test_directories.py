"""A cached decision follows the regions and providers, to the microsecond."""

from projections.decisions.model import Observed, RequestRecord
from tests.support.questions import NOON, QueryLedger, changed

EAST = RequestRecord(NOON, org_id="acme", handling=Observed(region="us-east"))


def verdicts(bench: QueryLedger) -> list[str]:
    """One microsecond before noon, at noon, and one microsecond after it; twice, so that the cache answers, too."""
    instants = (NOON - 1, NOON, NOON + 1)
    once, again = ([bench.query.check(EAST._replace(at=at)).outcome.verdict for at in instants] for _ in range(2))
    assert once == again
    return list(once)


def test_a_decision_changes_with_the_region_around_a_region(bench: QueryLedger) -> None:
    bench.submit(NOON - 100, changed("org:acme", "residency.regions", ["North America"]))
    bench.submit(NOON - 90, changed("region:na", "region.names", ["North America"]))
    assert verdicts(bench) == ["violation"] * 3
    within = changed("region:us-east", "region.within", "region:na", NOON)
    bench.submit(NOON - 80, within)
    assert verdicts(bench) == ["violation", "compliant", "compliant"]
    bench.submit(NOON - 70, changed("region:na", "region.names", ["NA"]))
    assert verdicts(bench) == ["violation"] * 3


def test_a_backdated_region_is_hindsight_only(bench: QueryLedger) -> None:
    bench.submit(NOON - 100, changed("org:acme", "residency.regions", ["na"]))
    assert verdicts(bench) == ["violation"] * 3
    bench.submit(NOON + 1, changed("region:us-east", "region.within", "region:na", NOON))
    assert verdicts(bench) == ["violation", "violation", "compliant"]
    hindsight = [bench.query.check(EAST._replace(at=at)).hindsight for at in (NOON - 1, NOON, NOON + 1)]
    assert [None if one is None else one.outcome.verdict for one in hindsight] == [None, "compliant", None]
