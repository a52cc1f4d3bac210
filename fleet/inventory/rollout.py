"""The `rollout` part of environments and apps, as files write it."""

import difflib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from fleet.inventory.address import is_forbidden_host
from fleet.inventory.condition import parse_condition
from fleet.inventory.field import (
    FilePath,
    LabelKey,
    Name,
    Seconds,
    check_http_url,
    is_plain_beyond_loopback,
    parse_duration,
)
from fleet.inventory.jsonpath import parse_json_path
from fleet.inventory.placeholder import PLACE, list_names

_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_ACTIONS = ("wait", "defer", "fail")


def _check_cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("must have five fields: minute, hour, day of month, month, day of week")
    try:
        next(CronSim(text, _SOME_DAY))
    except CronSimError as error:
        field = str(error).removeprefix("Bad ")
        raise ValueError(f"the {field} is wrong, or the line never fires; write as in crontab: 0 9 * * 1-5") from None
    except StopIteration:
        raise ValueError("never fires; write a day that exists in one of its months") from None
    return text


def _check_timezone(text: str) -> str:
    known = available_timezones()
    if text not in known:
        close = difflib.get_close_matches(text, sorted(known), 1)
        hint = f"; did you mean {close[0]}?" if close else "; write a name such as Europe/Berlin or UTC"
        raise ValueError(f"is not a time zone{hint}")
    return text


def _read_amount(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}%?", value):
        if value.endswith("%") and int(value[:-1]) > 100:
            raise ValueError("is more than 100%")
        return value if value.endswith("%") else str(int(value))
    raise ValueError("must be a number of clusters or a share such as 25%")


def _check_batches(batches: tuple[str, ...]) -> tuple[str, ...]:
    highest: dict[bool, int] = {}
    for index, batch in enumerate(batches):
        size, share = int(batch.rstrip("%")), batch.endswith("%")
        if size == 0:
            raise ValueError(f"entry {index + 1} is {batch}: a batch needs at least one cluster")
        before = highest.get(share, 0)
        if size <= before:
            unit = "%" if share else ""
            raise ValueError(
                f"entry {index + 1} is {batch}, not more than {before}{unit} before it: batches are cumulative"
            )
        if highest.get(True) == 100:
            raise ValueError(f"entry {index + 1} comes after 100%, which is all clusters; remove it")
        highest[share] = size
    return batches


def _read_unreachable(value: object) -> object:
    if isinstance(value, str):
        if value not in _ACTIONS:
            close = difflib.get_close_matches(value, _ACTIONS, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"must be wait, defer, fail or {{wait: 1h}}{hint}")
        return {"action": value}
    if not isinstance(value, dict) or set(value) != {"wait"}:
        raise ValueError("must be wait, defer, fail or {wait: 1h}")
    try:
        return {"action": "wait", "wait": parse_duration(value["wait"]) and value["wait"]}
    except ValueError as error:
        raise ValueError(f"wait {error}") from None


def _check_text(text: str) -> str:
    list_names(text)
    return text


def _check_url(url: str, info: ValidationInfo) -> str:
    check_http_url(PLACE.sub("1", _check_text(url)))
    host = urlsplit(url).hostname or ""
    if "${" not in host and not info.data.get("allow_link_local") and is_forbidden_host(host):
        raise ValueError(
            f"{host} is a link-local, metadata or multicast address; name another, or set allowLinkLocal: true if it is meant"
        )
    return url


def _check_json_path(text: str) -> str:
    if text:
        parse_json_path(text)
    return text


def _check_json(text: str) -> str:
    if text and not list_names(text):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"is not JSON; of a text write the double quotes, too: '{json.dumps(text)}'") from None
    return text


Cron = Annotated[str, AfterValidator(_check_cron)]
TimeZone = Annotated[str, AfterValidator(_check_timezone)]
_AMOUNT = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,9}%?$"}]}
AmountText = Annotated[str, BeforeValidator(_read_amount), WithJsonSchema(_AMOUNT)]
"""A number of clusters, or a share such as `25%`; text either way once read."""
Batches = Annotated[tuple[AmountText, ...], AfterValidator(_check_batches), Field(min_length=1)]
ProbeUrl = Annotated[str, AfterValidator(_check_url)]
Template = Annotated[str, AfterValidator(_check_text)]
"""Text that may hold `${NAME}`."""


def _check_condition(text: str) -> str:
    parse_condition(text)
    return text.strip()


Condition = Annotated[str, AfterValidator(_check_condition)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, alias_generator=to_camel
    )


class Order(_Part):
    """In which order the clusters of an environment go; by name where nothing else decides."""

    first: tuple[Name, ...] = Field(default=(), description="Clusters that go first, in this order.")
    label: LabelKey | None = Field(
        default=None, description="A cluster label that orders the rest, as a number where it is one."
    )


class Approval(_Part):
    """People who must say yes before a stage begins."""

    required: Annotated[int, Field(ge=0, le=100)] = Field(description="How many different people; 0 = nobody.")
    expires: Seconds | None = Field(default=None, description="How long an approval counts; for ever if absent.")


class Window(_Part):
    """A span of time that begins whenever `cron` fires."""

    cron: Cron = Field(description="Minute, hour, day of month, month, day of week, as in crontab.")
    duration: Annotated[Seconds, Field(ge=60.0)] = Field(
        description="How long it lasts, in elapsed time; at least 60s."
    )
    timezone: TimeZone = Field(default="UTC", description="IANA time zone in which `cron` is read.")
    reason: str = Field(default="", description="Shown to whoever waits.")


class HttpCheck(_Part):
    """An HTTP request whose answer says whether all is well."""

    allow_link_local: bool = Field(default=False, description="Allow link-local, metadata and multicast addresses.")
    url: ProbeUrl = Field(description="https or http URL; may hold `${cluster}`, `${environment}`, `${app}` and so on.")
    method: Literal["GET", "HEAD", "POST"] = Field(default="GET", description="Request method.")
    status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = Field(default=(200,), description="Statuses that pass.")
    body: Template = Field(default="", description="Text that the body must contain.")
    json_path: Annotated[str, AfterValidator(_check_json_path)] = Field(
        default="", description="Where to look in a JSON body: `$.items[0].ready`, `$.items[*].ready`."
    )
    equals: Annotated[str, AfterValidator(_check_json)] = Field(
        default="", description="What `jsonPath` must find, written as JSON; anything if absent."
    )
    ca_file: FilePath | None = Field(default=None, description="PEM certificates to trust instead of the system's.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.equals and not self.json_path:
            raise ValueError("equals needs jsonPath")
        if self.method == "HEAD" and (self.body or self.json_path):
            raise ValueError("method HEAD is answered without a body; use GET")
        return self


class PrometheusCheck(_Part):
    """A query whose value must satisfy a condition."""

    allow_link_local: bool = Field(default=False, description="Allow link-local, metadata and multicast addresses.")
    url: ProbeUrl = Field(description="https or http URL of the server.")
    query: Annotated[Template, Field(min_length=1)] = Field(description="PromQL; may hold `${cluster}` and so on.")
    condition: Condition = Field(description="A comparison with a number, such as `< 0.01`.")
    token_file: FilePath | None = Field(default=None, description="File with a bearer token.")
    ca_file: FilePath | None = Field(default=None, description="PEM certificates to trust instead of the system's.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.token_file and is_plain_beyond_loopback(self.url):
            raise ValueError("tokenFile: over http a token would go in clear; use https")
        return self


class Check(_Part):
    """A question asked before a run goes on: exactly one of http and prometheus."""

    name: Name = Field(description="Shown in the run's history.")
    http: HttpCheck | None = Field(default=None, description="An HTTP request.")
    prometheus: PrometheusCheck | None = Field(default=None, description="A Prometheus query.")
    per_cluster: bool = Field(default=False, description="Ask for every cluster instead of once per stage.")
    interval: Annotated[Seconds, Field(ge=1.0)] = Field(default=10.0, description="Time between questions.")
    count: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Passed results that make it pass.")
    failure_limit: Annotated[int, Field(ge=0, le=1000)] = Field(default=0, description="Failed results forgiven.")
    timeout: Annotated[Seconds, Field(ge=0.1)] = Field(default=10.0, description="Time for one answer.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.http is None) == (self.prometheus is None):
            raise ValueError("needs exactly one of http, prometheus")
        return self


class Unreachable(_Part):
    """What happens to a cluster that cannot be reached; written `defer`, `fail`, `wait` or `{wait: 1h}`."""

    action: Literal["wait", "defer", "fail"]
    wait: Seconds | None = None


_UNREACHABLE = {
    "anyOf": [
        {"enum": list(_ACTIONS)},
        {"type": "object", "properties": {"wait": {"type": "string"}}, "required": ["wait"], "additionalProperties": False},
    ]
}  # fmt: skip
OnUnreachable = Annotated[Unreachable, BeforeValidator(_read_unreachable), WithJsonSchema(_UNREACHABLE)]


def _check_names(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    names = [check.name for check in checks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"two checks are named {twice}; give each a name of its own")
    return checks


class Rules(_Part):
    """How clusters follow a release. What is absent is left to the weaker document, at last to the default."""

    batches: Batches | None = Field(
        default=None, description="Clusters at a time, cumulative: `[1, 25%, 100%]`. All at once by default."
    )
    order: Order | None = Field(default=None, description="In which order clusters go.")
    pace: Seconds | None = Field(default=None, description="Least time between two starts; 0s by default.")
    soak: Seconds | None = Field(default=None, description="Continuous health before a cluster is done; 0s by default.")
    deadline: Annotated[Seconds, Field(ge=1.0)] | None = Field(
        default=None, description="From the start of a cluster to healthy; 15m by default."
    )
    stage_deadline: Annotated[Seconds, Field(ge=1.0)] | None = Field(
        default=None, description="From the start of a stage to its end, gates not counted; none by default."
    )
    failure_budget: AmountText | None = Field(
        default=None, description="Clusters that a run may break, as a number or a share; 0 by default."
    )
    on_failure: Literal["pause", "rollback"] | None = Field(
        default=None, description="When more broke; pause by default."
    )
    on_unreachable: OnUnreachable | None = Field(
        default=None, description="`defer` (the default), `fail`, `wait` or `{wait: 1h}`."
    )
    on_new_release: Literal["supersede", "finish", "queue"] | None = Field(
        default=None, description="What a newer release does to a run under way; supersede by default."
    )
    approval: Approval | None = Field(default=None, description="People who must say yes first.")
    windows: tuple[Window, ...] | None = Field(default=None, description="Starts happen only inside one of them.")
    freezes: tuple[Window, ...] | None = Field(default=None, description="No start inside any of them.")
    checks: Annotated[tuple[Check, ...], AfterValidator(_check_names)] | None = Field(
        default=None, description="Questions asked before a run goes on."
    )


class AppRollout(Rules):
    """What an app wants otherwise than its environments; each field given replaces the environment's."""

    environments: dict[Name, Rules] = Field(
        default={}, description="The same fields, for one environment by its name; stronger still."
    )


def list_layers(environment: Rules | None, app: AppRollout | None, name: str) -> tuple[Rules, ...]:
    """Return the rules that apply to an app in environment `name`, weakest first."""
    own: Mapping[str, Any] = app.environments if app else {}
    return tuple(rules for rules in (environment, app, own.get(name)) if rules is not None)
