"""The settings of an instance: the table of keys, and their values.

Plain values, not models of a library: also processes read them that start light.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from controller.model import notice_targets
from controller.model.policy.shipped import DEFAULT_POLICY, SHIPPED_POLICIES
from controller.model.quantities import format_duration_ms, parse_duration_ms

STANDARD_SOCKET = "unix:///var/run/docker.sock"
#: The directory of the desired state of the system's instance.
SYSTEM_DIRECTORY = "/etc/trimtab/desired-state"
#: The default file of registry credentials.
REGISTRY_AUTH = "/etc/trimtab/registry.json"
#: After a month, nobody remembers the purpose of a stopped container.
QUARANTINE_MAX_MS = 30 * 24 * 3_600_000
LIST_MAX = 32
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
BACKUPS_KEPT = 7


class Process(StrEnum):
    """A process that reads settings. The value is the name of its unit without ``.service``."""

    BROKER = "trimtab-broker"
    CONTROLLER = "trimtab-controller"
    FETCHER = "trimtab-fetch"
    SHIPPER = "trimtab-ship"
    NOTIFIER = "trimtab-notify"
    WEB = "trimtab-web"
    VERIFY = "trimtab-verify"
    BACKUP = "trimtab-backup"


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """The values of all keys, each as it is written in the file."""

    #: '' for the directory that the instance is bound to.
    desired_state: str = ""
    engine: str = STANDARD_SOCKET
    #: The name of a shipped policy, or the path of a file.
    policy: str = DEFAULT_POLICY
    #: How long pruned containers are kept.
    quarantine: str = "0s"
    #: '' for ``REGISTRY_AUTH``, which is allowed to be missing.
    registry_auth: str = ""
    #: The address of the listener for webhooks; '' for none.
    webhook: str = ""
    #: The controller's user; '' for the default.
    controller_user: str = ""
    ship_to: tuple[str, ...] = ()
    ship_metrics: str = ""
    metrics_textfile: str = ""
    #: The address of the page's server; '' for none.
    web_listen: str = ""
    #: '' for ``http://`` and the address.
    web_url: str = ""
    web_proxy_user: str = ""
    web_proxy_header: str = ""
    verify_key: tuple[str, ...] = ()
    verify_checkpoint: tuple[str, ...] = ()
    #: The lowest level of messages in the logs.
    log: str = "WARNING"
    backup_to: str = ""
    #: A public key of age; '' leaves keys and generated values out.
    backup_recipient: str = ""
    #: Names of volumes, or ``all``.
    backup_volumes: tuple[str, ...] = ()
    #: How many backups of the timer are kept; '' for ``BACKUPS_KEPT``.
    backup_keep: str = ""
    #: The destinations of notifications as JSON (``notice_targets``); '' for none.
    notify_destinations: str = ""

    @property
    def quarantine_ms(self) -> int:
        """How long pruned containers are kept, in milliseconds."""
        return parse_duration_ms(self.quarantine)


@dataclass(frozen=True, slots=True)
class InForce:
    """The content of ``settings.json``: what the broker read last."""

    settings: InstanceSettings = field(default_factory=InstanceSettings)
    #: Of the file of settings; '' before the first start.
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SettingForm:
    """The form of a text: what it is, as a person is told, and in JSON Schema."""

    told: str
    pattern: str
    fits: Callable[[str], bool] = lambda _text: True
    #: The file may have an integer.
    is_number: bool = False

    def is_valid(self, text: object) -> bool:
        """Return True if a value of a file has the form."""
        return (
            isinstance(text, str) and re.search(self.pattern, text) is not None and self.fits(text)
        )

    @property
    def schema(self) -> dict[str, object]:
        """The JSON Schema of the form."""
        if self.is_number:
            return {"type": "integer", "minimum": 1}
        return {"type": "string", "pattern": self.pattern}


def _is_quarantine(text: str) -> bool:
    return parse_duration_ms(text) <= QUARANTINE_MAX_MS


def _is_policy(text: str) -> bool:
    return text.startswith("/") or text in SHIPPED_POLICIES


_PATH = SettingForm("an absolute path", r"^/[^\x00]*$")
_ENGINE = SettingForm("the path of a Unix socket: unix:///PATH", r"^unix:///[^\x00]+$")
_POLICY = SettingForm(f"{', '.join(SHIPPED_POLICIES)}, or an absolute path", r"^[/a-z]", _is_policy)
_DURATION = SettingForm(
    "a duration such as 24h, at most 720h", r"^[0-9]{1,12}(ms|s|m|h)$", _is_quarantine
)
_ADDRESS = SettingForm(
    "ADDRESS:PORT such as 127.0.0.1:9000, or '' for none", r"^$|^\S+:[0-9]{1,5}$"
)
_LISTEN = SettingForm(
    "127.0.0.1:PORT, [::1]:PORT or unix:///PATH",
    r"^(127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\]):[0-9]{1,5}$|^unix:///[^\x00]+$",
)
_URL = SettingForm(
    "https://HOST or https://HOST:PORT, in small letters; http:// with a loopback address alone",
    r"^(https://([a-z0-9.-]+|\[[0-9a-f:]+\])|http://(127\.[0-9.]+|localhost|\[::1\]))(:[0-9]{1,5})?$",
)
_HEADER = SettingForm("the name of a header", r"^[A-Za-z][A-Za-z0-9-]{0,63}$")
_USER = SettingForm("the name of a user", r"^[a-z_][a-z0-9_-]{0,31}$")
_DESTINATION = SettingForm("NAME=URL", r"^[a-z0-9-]+=\S+$")
_LEVEL = SettingForm(", ".join(LEVELS), f"^({'|'.join(LEVELS)})$")
_RECIPIENT = SettingForm("a public key of age: age1…", r"^age1[0-9a-z]{58}$")
_VOLUME = SettingForm("the name of a volume, or all", r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
_COUNT = SettingForm("a number from 1", r"^[1-9][0-9]{0,3}$", is_number=True)
_KEY = SettingForm("an absolute path, or a public key", r"^\S(.*\S)?$")
_TARGETS = SettingForm("destinations by their names; see notifications.md", r"^\{.*\}$")


@dataclass(frozen=True, slots=True)
class SettingKey:
    """A key of the file of settings: a row of the table."""

    #: As in the file; a dot divides section and member.
    name: str
    #: The field of ``InstanceSettings``.
    field: str
    form: SettingForm
    means: str
    #: What holds without the key.
    default: str
    processes: tuple[Process, ...]
    #: A reload is enough. Otherwise the processes must start again.
    live: bool = False
    many: bool = False
    #: The value is a mapping by names of destinations, and the field has its JSON.
    has_targets: bool = False

    @property
    def path(self) -> tuple[str, ...]:
        """The keys of the file that lead to the value."""
        return tuple(self.name.split("."))

    @property
    def told(self) -> str:
        """The form of the value, for people."""
        return f"a list, each {self.form.told}" if self.many else self.form.told

    @property
    def schema(self) -> dict[str, object]:
        """The JSON Schema of the value."""
        if self.has_targets:
            return {**notice_targets.schema(), "description": self.means}
        one = self.form.schema
        value = {"type": "array", "items": one, "maxItems": LIST_MAX} if self.many else one
        return {**value, "description": self.means}

    def read(self, value: object) -> str | tuple[str, ...] | None:
        """Return the value of the field; None if *value* has another form."""
        if self.has_targets:
            return None if notice_targets.read_targets(value)[1] else json.dumps(value)
        if self.form.is_number and type(value) is int:
            value = str(value)
        if not self.many:
            return value if isinstance(value, str) and self.form.is_valid(value) else None
        if not isinstance(value, list) or len(value) > LIST_MAX:
            return None
        return tuple(value) if all(map(self.form.is_valid, value)) else None


#: The table. Nothing else says which keys there are.
KEYS: Sequence[SettingKey] = (
    SettingKey(
        "desiredState",
        "desired_state",
        _PATH,
        "The directory of documents. Another one is taken by 'trimtab settings rebind' alone",
        f"the instance's own; at first {SYSTEM_DIRECTORY}, or DIR of 'up'",
        (Process.BROKER, Process.CONTROLLER, Process.FETCHER),
    ),
    SettingKey(
        "engine",
        "engine",
        _ENGINE,
        "The engine's socket",
        STANDARD_SOCKET,
        (Process.BROKER,),
    ),
    SettingKey(
        "policy",
        "policy",
        _POLICY,
        "The policy: a shipped one by its name, or a file",
        DEFAULT_POLICY,
        (Process.BROKER,),
        live=True,
    ),
    SettingKey(
        "quarantine",
        "quarantine",
        _DURATION,
        "How long pruned containers are kept, stopped, before they are removed",
        "0s",
        (Process.CONTROLLER,),
    ),
    SettingKey(
        "registryAuth",
        "registry_auth",
        _PATH,
        "The file of registry credentials, as docker's config.json",
        f"{REGISTRY_AUTH}, if it is there",
        (Process.BROKER,),
        live=True,
    ),
    SettingKey(
        "git.webhook",
        "webhook",
        _ADDRESS,
        "Where to listen for webhooks that wake a Git source",
        "none",
        (Process.FETCHER,),
    ),
    SettingKey(
        "users.controller",
        "controller_user",
        _USER,
        "The controller's user, for a broker of root's",
        "trimtab",
        (Process.BROKER,),
    ),
    SettingKey(
        "ship.to",
        "ship_to",
        _DESTINATION,
        "Where the journal is shipped to",
        "none",
        (Process.SHIPPER,),
        many=True,
    ),
    SettingKey(
        "ship.metrics",
        "ship_metrics",
        _PATH,
        "The file of the shipper's metrics, for Prometheus' textfile collector",
        "none",
        (Process.SHIPPER,),
    ),
    SettingKey(
        "metrics.textfile",
        "metrics_textfile",
        _PATH,
        "The file of broker's and controller's metrics, for Prometheus' textfile collector",
        "none",
        (Process.CONTROLLER,),
    ),
    SettingKey(
        "web.listen",
        "web_listen",
        _LISTEN,
        "Where 'trimtab web run' serves the page; to other hosts by a proxy with TLS",
        "none",
        (Process.WEB,),
    ),
    SettingKey(
        "web.url",
        "web_url",
        _URL,
        "The address of the page in a browser. Requests with another Host are refused",
        "http:// and the address of web.listen; a Unix socket needs it",
        (Process.WEB,),
    ),
    SettingKey(
        "web.proxyUser",
        "web_proxy_user",
        _USER,
        "The user of a proxy that checks who its users are; for a Unix socket alone",
        "none: tokens alone",
        (Process.WEB,),
    ),
    SettingKey(
        "web.proxyHeader",
        "web_proxy_header",
        _HEADER,
        "The header in which web.proxyUser names a user",
        "none: tokens alone",
        (Process.WEB,),
    ),
    SettingKey(
        "verify.key",
        "verify_key",
        _KEY,
        "Public keys that 'trimtab journal verify' trusts, and no others",
        "journal.pub of the state folder",
        (Process.VERIFY,),
        live=True,
        many=True,
    ),
    SettingKey(
        "verify.checkpoint",
        "verify_checkpoint",
        _PATH,
        "Checkpoints that were saved elsewhere: no record before them was changed",
        "none",
        (Process.VERIFY,),
        live=True,
        many=True,
    ),
    SettingKey(
        "log",
        "log",
        _LEVEL,
        "The lowest level of messages in the logs; `$TRIMTAB_LOG` of a process wins",
        "WARNING",
        (
            Process.BROKER,
            Process.CONTROLLER,
            Process.FETCHER,
            Process.SHIPPER,
            Process.NOTIFIER,
            Process.WEB,
        ),
    ),
    SettingKey(
        "notify.destinations",
        "notify_destinations",
        _TARGETS,
        "Where notifications are sent to",
        "none: nothing is sent",
        (Process.NOTIFIER,),
        live=True,
        has_targets=True,
    ),
    SettingKey(
        "backup.to",
        "backup_to",
        _PATH,
        "The folder for the backups of the timer",
        "none: no backup is made",
        (Process.BACKUP,),
        live=True,
    ),
    SettingKey(
        "backup.recipient",
        "backup_recipient",
        _RECIPIENT,
        "Encrypt keys and generated values to this key",
        "none: they are left out",
        (Process.BACKUP,),
        live=True,
    ),
    SettingKey(
        "backup.volumes",
        "backup_volumes",
        _VOLUME,
        "The volumes to dump; their containers are stopped meanwhile",
        "none",
        (Process.BACKUP,),
        live=True,
        many=True,
    ),
    SettingKey(
        "backup.keep",
        "backup_keep",
        _COUNT,
        "How many backups stay in the folder; older ones of this instance are removed",
        f"{BACKUPS_KEPT}",
        (Process.BACKUP,),
        live=True,
    ),
)
BY_NAME: Mapping[str, SettingKey] = {key.name: key for key in KEYS}
SECTIONS = frozenset(key.path[0] for key in KEYS if len(key.path) > 1)


@dataclass(frozen=True, slots=True)
class SettingFault:
    """A mistake in a file of settings, at a path of keys."""

    path: tuple[str, ...]
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """The settings of a parsed file; with faults, they aren't to be used."""

    settings: InstanceSettings
    #: The names of the keys that the file has.
    written: frozenset[str] = frozenset()
    faults: tuple[SettingFault, ...] = field(default=())


def read_settings(value: object) -> SettingsRead:
    """Read parsed YAML or JSON. A key without a value counts as absent."""
    if value is None:
        return SettingsRead(InstanceSettings())
    if not isinstance(value, dict):
        return SettingsRead(
            InstanceSettings(),
            faults=(SettingFault((), "no keys and values", "write 'KEY: VALUE'"),),
        )
    values: dict[str, Any] = {}
    written: set[str] = set()
    faults: list[SettingFault] = []
    for path, found in _walk(value):
        key = BY_NAME.get(".".join(path))
        if key is None and path[0] in SECTIONS and len(path) == 1:
            faults.append(
                SettingFault(path, f"{path[0]} isn't a section with keys", _keys_of(path[0]))
            )
        elif key is None:
            section = path[0] if path[0] in SECTIONS else ""
            faults.append(SettingFault(path, f"{'.'.join(path)} is no setting", _keys_of(section)))
        elif key.has_targets and (wrong := notice_targets.read_targets(found)[1]):
            faults += (SettingFault(path + f.path, f.message, f.remedy) for f in wrong)
        elif (read := key.read(found)) is None:
            faults.append(SettingFault(path, f"{key.name} has another form", f"write {key.told}"))
        else:
            values[key.field] = read
            written.add(key.name)
    return SettingsRead(InstanceSettings(**values), frozenset(written), tuple(faults))


def _walk(value: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, found in value.items():
        if found is None and (name in SECTIONS or name in BY_NAME):
            continue
        if isinstance(found, dict) and name in SECTIONS:
            yield from (((name, inner), each) for inner, each in found.items() if each is not None)
        else:
            yield (name,), found


def _keys_of(section: str) -> str:
    names = [key.name for key in KEYS if not section or key.path[0] == section]
    return f"the keys are {', '.join(names)}"


def to_json(settings: InstanceSettings) -> dict[str, object]:
    """Return all values in the form of the file; without those whose default depends on the instance."""
    shown: dict[str, Any] = {}
    for name, value in values_of(settings).items():
        if value in ("", ()):
            continue
        folder, _, last = name.rpartition(".")
        target = shown.setdefault(folder, {}) if folder else shown
        key = BY_NAME[name]
        if isinstance(value, tuple):
            target[last] = [*value]
        elif key.has_targets:
            target[last] = json.loads(value)
        else:
            target[last] = int(value) if key.form.is_number else value
    return shown


def values_of(settings: InstanceSettings) -> dict[str, str | tuple[str, ...]]:
    """Return the value of each key by its name, in the order of the table."""
    values = asdict(settings)
    return {key.name: values[key.field] for key in KEYS}


def changed_keys(before: InstanceSettings, after: InstanceSettings) -> tuple[SettingKey, ...]:
    """Return the keys with different values, in the order of the table."""
    return tuple(key for key in KEYS if getattr(before, key.field) != getattr(after, key.field))


def digest_of(settings: InstanceSettings, process: Process) -> str:
    """Return a digest of what a process takes at its start alone: it differs while a restart is needed."""
    values = {
        key.name: getattr(settings, key.field)
        for key in KEYS
        if process in key.processes and not key.live
    }
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def choose(
    *,
    desired_state: str | None = None,
    engine: str | None = None,
    policy: str | None = None,
    quarantine_ms: int | None = None,
    registry_auth: str | None = None,
    webhook: str | None = None,
    controller_user: str | None = None,
) -> dict[str, str]:
    """Return the options of a command as values of keys; None for an option that wasn't given."""
    quarantine = (
        None
        if quarantine_ms is None
        else format_duration_ms(quarantine_ms)
        if quarantine_ms
        else "0s"
    )
    given = {
        "desiredState": desired_state,
        "engine": engine,
        "policy": policy,
        "quarantine": quarantine,
        "registryAuth": registry_auth,
        "git.webhook": webhook,
        "users.controller": controller_user,
    }
    return {name: value for name, value in given.items() if value is not None}


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of the file of settings."""
    properties: dict[str, Any] = {}
    for key in KEYS:
        folder, _, last = key.name.rpartition(".")
        if folder:
            section = properties.setdefault(
                folder, {"type": "object", "additionalProperties": False, "properties": {}}
            )
            section["properties"][last] = key.schema
        else:
            properties[last] = key.schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trimtab.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


assert {key.field for key in KEYS} == {each.name for each in fields(InstanceSettings)}
