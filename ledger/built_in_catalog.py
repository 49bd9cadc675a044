"""The built-in catalog: the definitions that every ledger begins with, each with the published rule behind it.

Proved by tests/test_catalog.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from ledger.catalog import Definition

_DATA_PRIVACY: Final = "Published data privacy rules"
_ENTERPRISE: Final = "Published enterprise data rules"

_switch: Final = partial(Definition, value_type="bool", protective=False, writable_by="admin", source=_DATA_PRIVACY)
_reference: Final = partial(Definition, value_type="subject_ref", default=None, protective=None, source=_DATA_PRIVACY)
_of_model: Final = partial(
    Definition,
    kinds=("model",),
    default=None,
    protective=None,
    writable_by="operator",
    source="Published model listing rules",
)
_of_region: Final = partial(
    Definition, kinds=("region",), protective=None, writable_by="operator", source="Published hosting rules"
)
_of_provider: Final = partial(
    Definition, kinds=("provider",), default=None, protective=None, writable_by="operator", source=_DATA_PRIVACY
)

_ACCESS: Final = "Published access rules"
_of_principal: Final = partial(Definition, kinds=("principal",), writable_by="operator", source=_ACCESS)
_of_token: Final = partial(
    Definition, kinds=("token",), default=None, protective=None, writable_by="operator", source=_ACCESS
)

_SERVED_AS_PUBLISHED: Final = (
    "What is served is what the author published: full precision, not distilled, no forced system prompt, "
    "no layered censorship, and which published version."
)
_PASSTHROUGH_POLICY: Final = "A passthrough request is governed by the provider's own data policy."
_HOSTED_IN: Final = "Models are hosted in data centers of a named part of the world."
_BY_THOSE_WHO_MAY: Final = "Settings are checked and changed by those who may."
_PROVIDERS_OWN_POLICY: Final = "Data sent by passthrough is handled under that provider's own data policy."

BUILT_IN: Final[Mapping[str, Definition]] = {
    "training.opt_in": _switch(
        kinds=("account", "org"),
        default=False,
        title="Training opt-in",
        description="Data sharing for training other models is opt-in.",
    ),
    "storage.inputs_outputs": _switch(
        kinds=("account", "org"),
        default=False,
        title="Storage of inputs and outputs",
        description="Inputs and outputs are not stored by default.",
    ),
    "caching.temporary": _switch(
        kinds=("account", "org"),
        default=True,
        title="Temporary caching",
        description="Temporary caching may be used unless configured otherwise.",
    ),
    "passthrough.allowed": _switch(
        kinds=("org",),
        default=False,
        title="Allow my organization to use passthrough models",
        description=(
            "Allow my organization to use passthrough models. Independent of training; while off, nothing leaves "
            "the platform and non-passthrough models work as normal."
        ),
    ),
    "residency.regions": Definition(
        kinds=("org",),
        value_type="set_of",
        default=(),
        protective=None,
        writable_by="operator",
        title="Data residency",
        description="Enterprise data residency: the regions in which data may be handled; empty means anywhere.",
        source=_ENTERPRISE,
    ),
    "network.private_only": _switch(
        kinds=("org",),
        default=False,
        protective=True,
        title="Private networking only",
        description="Private networking / VPC deployment: requests travel on a private network only.",
        source=_ENTERPRISE,
        writable_by="operator",
    ),
    "model.hosting": _of_model(
        value_type="one_of",
        members=("hosted", "passthrough"),
        protective="passthrough",
        title="Hosting",
        description=(
            "Passthrough forwards prompts and responses to the upstream provider; hosted third-party models run on "
            "the platform's own infrastructure and nothing reaches their author."
        ),
    ),
    "model.author": _of_model(
        value_type="text", title="Author", description=f"Who made the model. {_PASSTHROUGH_POLICY}"
    ),
    "model.provider": _of_model(
        value_type="text", title="Provider", description=f"Who receives passthrough traffic. {_PASSTHROUGH_POLICY}"
    ),
    "model.policy_url": _of_model(
        value_type="text",
        title="Data policy",
        description=f"Where the data policy that governs it is published. {_PASSTHROUGH_POLICY}",
    ),
    "model.regions": _of_model(
        value_type="set_of",
        default=(),
        title="Regions",
        description=f"Where the model runs; empty: not stated. {_PASSTHROUGH_POLICY}",
    ),
    "model.precision": _of_model(value_type="text", title="Precision", description=_SERVED_AS_PUBLISHED),
    "model.distilled": _of_model(value_type="bool", title="Distilled", description=_SERVED_AS_PUBLISHED),
    "model.system_prompt_forced": _of_model(
        value_type="bool", title="Forced system prompt", description=_SERVED_AS_PUBLISHED
    ),
    "model.censorship_layer": _of_model(
        value_type="bool", title="Layered censorship", description=_SERVED_AS_PUBLISHED
    ),
    "model.revision": _of_model(value_type="text", title="Published revision", description=_SERVED_AS_PUBLISHED),
    "subjects.must_be_known": Definition(
        kinds=("account", "org", "project", "key"),
        value_type="set_of",
        members=("account", "org", "project", "key"),
        default=(),
        protective=None,
        writable_by="operator",
        title="Subjects that must be known",
        description=(
            "Unknown is never permission: the default names the kinds of subject for which nothing is decided while "
            "the ledger has no event of the subject; empty means that defaults decide."
        ),
        source="Published enterprise data rules",
    ),
    "owner": _reference(
        kinds=("key", "project"),
        ref_kinds=("project", "org", "account"),
        writable_by="operator",
        title="Owner",
        description="A key belongs to a project, org or account; a project to an org or account.",
    ),
    "attached_to": _reference(
        kinds=("account",),
        ref_kinds=("org",),
        writable_by="admin",
        title="Attached to",
        description="Personal traffic is governed by the account only while it is not attached to an organization.",
    ),
    "region.within": _of_region(
        value_type="subject_ref",
        ref_kinds=("region",),
        default=None,
        title="Within",
        description=f"The region that contains this one. {_HOSTED_IN}",
    ),
    "region.names": _of_region(
        value_type="set_of",
        default=(),
        title="Names",
        description=f"Further names of the region in settings and logs. {_HOSTED_IN}",
    ),
    "provider.names": _of_provider(
        value_type="set_of",
        default=(),
        title="Names",
        description=f"Names of the provider in settings and logs, in any case. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.policy_url": _of_provider(
        value_type="text",
        title="Data policy",
        description=f"Where the provider's data policy is published. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.policy_sha256": _of_provider(
        value_type="text",
        title="Hash of the data policy",
        description=f"SHA-256, in hex, of the text of the data policy as it was read. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.trains": _of_provider(
        value_type="bool",
        title="Trains",
        description=f"Whether the provider trains on the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.stores": _of_provider(
        value_type="bool",
        title="Stores",
        description=f"Whether the provider stores the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.retention_days": _of_provider(
        value_type="integer",
        title="Retention",
        description=f"Days for which the provider keeps the data that it receives. {_PROVIDERS_OWN_POLICY}",
    ),
    "provider.regions": _of_provider(
        value_type="set_of",
        default=(),
        title="Regions",
        description=f"Where the provider handles the data that it receives; empty: not stated. {_PROVIDERS_OWN_POLICY}",
    ),
    "access.roles": _of_principal(
        value_type="set_of",
        default=(),
        protective=(),
        title="Roles",
        description=(
            "The roles of a person or a service: operator, auditor, gateway, privacy, corrector, admin@org:X, "
            f"member@org:X, self@account:X. {_BY_THOSE_WHO_MAY}"
        ),
    ),
    "access.disabled": _of_principal(
        value_type="bool",
        default=False,
        protective=True,
        title="Disabled",
        description=f"Whether the principal may do nothing, whatever its roles and tokens are. {_BY_THOSE_WHO_MAY}",
    ),
    "token.principal": _of_token(
        value_type="subject_ref",
        ref_kinds=("principal",),
        title="Principal",
        description=f"The person or the service that signs in with the token. {_BY_THOSE_WHO_MAY}",
    ),
    "token.secret_sha256": _of_token(
        value_type="text",
        title="Hash of the secret",
        description=(
            "SHA-256, in hex, of the token's secret of 256 random bits. The token expires with the change's "
            f"effective_until; a clear revokes it. {_BY_THOSE_WHO_MAY}"
        ),
    ),
}
"""Setting → definition. A new ledger records them as its first events, effective from the beginning of time."""
