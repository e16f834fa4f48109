"""The journal's records of operators' acts on services, and of held Git sources, in closed forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.records.parts import ServicePart
from controller.model import mutations, names
from controller.model.names import (
    COMMIT_ID,
    JOB_NAME_MAX,
    NAMESPACE_MAX,
    SERVICE_NAME_MAX,
    Key,
    is_dns_label,
    is_revision,
)

NOTE_MAX = 512
_REASON = re.compile(r"[a-z][a-z.-]{0,63}", re.ASCII)
_MEMBERS = frozenset({"act", "object", "revision", "anew", "note"})


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """An operator's act on a service, or a request for a run of a job."""

    act: str
    key: Key
    #: The revision of a rollback or a restart.
    revision: str = ""
    #: A restart resolves the image of the revision again, and forgets its pin.
    anew: bool = False
    note: str = ""

    @property
    def summary(self) -> dict[str, object]:
        """The summary in the record; queries find the record by its labels."""
        return ServicePart(
            act=self.act,
            note=self.note,
            labels={names.NAMESPACE: self.key.namespace, names.SERVICE: self.key.name},
            revision=self.revision,
            resolves_image=self.anew,
        ).members


def read_service_act(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the act to record, or a text about the fault in the body."""
    if not body.keys() <= _MEMBERS:
        return f"it has no member {min(body.keys() - _MEMBERS)!r:.64}"
    act, key = body.get("act"), read_key(body.get("object"))
    revision, note, anew = body.get("revision", ""), body.get("note", ""), body.get("anew", False)
    if not isinstance(act, str) or act not in mutations.SERVICE_ACTS:
        return f"act isn't one of {', '.join(mutations.SERVICE_ACTS)}"
    if key is None:
        return "object isn't a service: Service/NAMESPACE/NAME"
    if not isinstance(revision, str) or not (revision == "" or is_revision(revision)):
        return "revision isn't one: v2: and 64 hex digits"
    if act == mutations.SERVICE_ROLLBACK and not revision:
        return f"{act} names the revision to go back to"
    if revision and act not in (mutations.SERVICE_ROLLBACK, mutations.SERVICE_RESTART):
        return f"{act} is of no revision"
    if not isinstance(anew, bool) or (anew and not (act == mutations.SERVICE_RESTART and revision)):
        return f"anew is true or false, and true for {mutations.SERVICE_RESTART} of a revision only"
    if not isinstance(note, str) or len(note) > NOTE_MAX:
        return f"note isn't a text of at most {NOTE_MAX} characters"
    return ServiceRecord(act, key, revision, anew, note)


def read_run_request(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the request for a run of a job, or a text about the fault in the body."""
    return _read_noted_act(mutations.JOB_RUN, "Job", "a job", body, name_max=JOB_NAME_MAX)


def read_forget_request(body: Mapping[str, object]) -> ServiceRecord | str:
    """Return the act to forget the values of a Secret, or a text about the fault in the body."""
    return _read_noted_act(mutations.SECRET_FORGET, "Secret", "a Secret", body)


def _read_noted_act(
    act: str,
    kind: str,
    noun: str,
    body: Mapping[str, object],
    *,
    name_max: int = SERVICE_NAME_MAX,
) -> ServiceRecord | str:
    """Return an act with an object and a note alone, or a text about the fault in the body."""
    if surplus := body.keys() - {"act", "object", "note"}:
        return f"it has no member {min(surplus)!r:.64}"
    key, note = read_key(body.get("object"), kind), body.get("note", "")
    if key is None or len(key.name) > name_max:
        return f"object isn't {noun}: {kind}/NAMESPACE/NAME"
    if not isinstance(note, str) or len(note) > NOTE_MAX:
        return f"note isn't a text of at most {NOTE_MAX} characters"
    return ServiceRecord(act, key, note=note)


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A Git source that doesn't serve a newer commit."""

    key: Key
    commit: str
    #: The code and the message of the reason.
    reason: str
    message: str


def read_hold(body: Mapping[str, object]) -> HoldRecord | str:
    """Return the hold to record, or a text about the fault in the body."""
    members = ("act", "object", "commit", "reason", "message")
    if body.keys() != {*members}:
        return f"expected the members {', '.join(members)}"
    key = read_key(body["object"], "Source")
    texts = [body[name] for name in members[2:]]
    if key is None:
        return "object isn't a source: Source/default/NAME"
    commit, reason, message = (text if isinstance(text, str) else None for text in texts)
    if commit is None or not COMMIT_ID.fullmatch(commit):
        return "commit isn't a commit id"
    if reason is None or not _REASON.fullmatch(reason):
        return "reason isn't a code"
    if message is None or len(message) > NOTE_MAX:
        return f"message isn't a text of at most {NOTE_MAX} characters"
    return HoldRecord(key, commit, reason, message)


def read_key(text: object, kind: str = "Service") -> Key | None:
    """Return the key of a resource of a kind; None for any other value."""
    try:
        key = Key.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
    fits = (
        key is not None
        and key.kind == kind
        and is_dns_label(key.namespace, length=NAMESPACE_MAX)
        and is_dns_label(key.name, length=SERVICE_NAME_MAX)
    )
    return key if fits else None
