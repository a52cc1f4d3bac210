"""Who is asking, and may they: bearer tokens, impersonation, and a table of what is denied."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.sim import status
from fleet.sim.request import Target
from fleet.sim.storage import Object

ADMIN: Final = "kubernetes-admin"
NAMESPACE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Requests that answer 403. `*` matches anything; `user` may be a regular expression."""

    user: str = ".*"
    verb: str = "*"
    group: str = "*"
    resource: str = "*"
    namespace: str = "*"

    def covers(self, user: str, verb: str, group: str, resource: str, namespace: str) -> bool:
        asked = ((self.verb, verb), (self.group, group), (self.resource, resource), (self.namespace, namespace))
        return bool(re.fullmatch(self.user, user)) and all(rule in ("*", value) for rule, value in asked)

    def touches(self, user: str, *asked: str) -> bool:
        """Tell whether the rule denies anything of what is asked, where `*` and no namespace ask for everything."""
        rules = (self.verb, self.group, self.resource, self.namespace)
        return bool(re.fullmatch(self.user, user)) and all(
            "*" in (rule, value) or rule == value or (index == NAMESPACE and not value)
            for index, (rule, value) in enumerate(zip(rules, asked, strict=True))
        )


@dataclass(slots=True)
class Access:
    """Tokens that are good, and what is denied to whom. Both may be changed at any time."""

    tokens: dict[str, str] = field(default_factory=dict)
    denials: list[Denial] = field(default_factory=list)

    def identify(self, headers: Mapping[str, str], certificate_name: str = "") -> str:
        """Return the user of a request.

        Raises:
            ApiError: 401.
        """
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        user = certificate_name if not scheme else self.tokens.get(token, "") if scheme == "Bearer" else ""
        if not user:
            raise status.unauthorized()
        return headers.get("Impersonate-User") or user

    def allows(self, user: str, verb: str, target: Target) -> bool:
        """Tell whether no denial covers the request."""
        resource = target.resource
        plural = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        return not any(d.covers(user, verb, resource.group, plural, target.namespace) for d in self.denials)

    def check(self, user: str, verb: str, target: Target) -> None:
        """Raises ApiError: 403 in the words of RBAC."""
        if self.allows(user, verb, target):
            return
        resource = target.resource
        plural = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
        why = f'User "{user}" cannot {verb} resource "{plural}" in API group "{resource.group}" {where}'
        raise status.forbidden(resource, target.name, why)

    def review(self, user: str, body: Object) -> Object:
        """Answer a SelfSubjectAccessReview."""
        asked: Mapping[str, Any] = body.get("spec", {}).get("resourceAttributes") or {}
        wanted = [asked.get(name, "") for name in ("verb", "group", "resource", "namespace")]
        denied = any(d.touches(user, *wanted) for d in self.denials)
        answer = {"allowed": not denied} if not denied else {"allowed": False, "reason": "denied"}
        return {**body, "metadata": {"creationTimestamp": None}, "status": answer}
