"""The sampler of `api.tracing`, in a module of its own, because its base class comes with the extra."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class NothingOfCallers(Sampler):
    """Decides as `sampler` does. Leaves of a span's first attributes only `kept`, and nothing of its trace state."""

    def __init__(self, sampler: Sampler, kept: Collection[str]) -> None:
        self._sampler = sampler
        self._kept = kept

    def should_sample(  # noqa: PLR0917 - the base class's arguments
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        kept = {key: value for key, value in (attributes or {}).items() if key in self._kept}
        result = self._sampler.should_sample(parent_context, trace_id, name, kind, kept, links)
        return SamplingResult(result.decision, kept)

    def get_description(self) -> str:
        return f"NothingOfCallers({self._sampler.get_description()})"
