"""What people change on a running container with the docker command, and what becomes of it.

The same rows are run (``test_drift``) and are the table of ``docs/operations/drift.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.core.engine_api.comparable_fields import MEMBERS, Handling

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "drift.md"


class Healed(StrEnum):
    """How it is put right."""

    IN_PLACE = "in place"  # the same container, never restarted
    STARTED = "started again"  # the same container
    REPLACED = "replaced"  # by another one of the same revision
    IGNORED = "left alone"


@dataclass(frozen=True, slots=True)
class Row:
    """One change. ``commands`` follow ``docker``, with the container as ``{it}``.

    ``cause`` stands in the journal's intent, and ``says`` why that is how it is healed.
    """

    #: Of the service in the test. Rows of one name are changed together, and all are repaired in place.
    name: str
    change: str
    commands: tuple[str, ...]
    healed: Healed
    cause: str = ""
    says: str = ""

    @property
    def restarts(self) -> int:
        """How many restarts that causes."""
        return 0 if self.healed in {Healed.IN_PLACE, Healed.IGNORED} else 1


NETWORK, EXTRA = "platform-network", "drift-extra"
NO_UNSET = "an engine can't unset it"
TABLE = (
    Row(
        "limits",
        "another memory limit",
        ("update --memory 96m --memory-swap 96m {it}",),
        Healed.IN_PLACE,
        "memory is 96Mi, admitted 64Mi",
    ),
    Row(
        "swap",
        "swap",
        ("update --memory-swap 128m {it}",),
        Healed.IN_PLACE,
        "swap",
        "beyond the policy, so that the broker takes it back if the controller hasn't by then",
    ),
    Row("limits", "other CPUs", ("update --cpus 0.75 {it}",), Healed.IN_PLACE, "nano cpus is 0.75"),
    Row(
        "limits", "another pids limit", ("update --pids-limit 99 {it}",), Healed.IN_PLACE, "pids is"
    ),
    Row(
        "unbound",
        "no pids limit",
        ("update --pids-limit -1 {it}",),
        Healed.IN_PLACE,
        "limit|unlimited",
        "as with swap",
    ),
    Row(
        "limits",
        "another restart policy",
        ("update --restart unless-stopped {it}",),
        Healed.IN_PLACE,
        "restart policy is unless-stopped",
    ),
    Row(
        "joined",
        "a network more",
        (f"network connect {EXTRA} {{it}}",),
        Healed.IN_PLACE,
        f"in the network {EXTRA}",
        "it is left before anything else is done; the broker sees to that too",
    ),
    Row(
        "left",
        "a network less",
        (f"network disconnect {NETWORK} {{it}}",),
        Healed.IN_PLACE,
        f"isn't in its network {NETWORK}",
    ),
    Row(
        "alias",
        "another name on its network",
        (
            f"network disconnect {NETWORK} {{it}}",
            f"network connect --alias registry {NETWORK} {{it}}",
        ),
        Healed.IN_PLACE,
        f"answers to registry|isn't in its network {NETWORK}",
    ),
    Row("renamed", "a rename", ("rename {it} mine",), Healed.IN_PLACE, "names are final"),
    Row("paused", "a pause", ("pause {it}",), Healed.IN_PLACE, "is paused"),
    Row(
        "stopped",
        "a stop",
        ("stop -t 1 {it}",),
        Healed.STARTED,
        "stopped on the engine's own socket: it exited",
    ),
    Row(
        "killed",
        "a kill",
        ("kill {it}",),
        Healed.STARTED,
        "stopped on the engine's own socket: it exited",
    ),
    Row(
        "removed",
        "a removal by force",
        ("rm -f {it}",),
        Healed.REPLACED,
        "slot 1 is missing: .* was removed from outside",
    ),
    Row(
        "shares",
        "CPU shares",
        ("update --cpu-shares 77 {it}",),
        Healed.REPLACED,
        "cpu shares is 77",
        NO_UNSET,
    ),
    Row(
        "cpuset",
        "a CPU set",
        ("update --cpuset-cpus 0 {it}",),
        Healed.REPLACED,
        "cpuset is 0",
        NO_UNSET,
    ),
    Row(
        "reserved",
        "a memory reservation",
        ("update --memory-reservation 32m {it}",),
        Healed.REPLACED,
        "memory reservation is 32Mi",
        NO_UNSET,
    ),
    Row(
        "executed",
        "a command run in it",
        ("exec {it} /bin/sh -c 'echo x >/tmp/x'",),
        Healed.IGNORED,
        says="what a container does inside is its own",
    ),
)

_MEANS = {
    Handling.IN_PLACE: "repaired on the running container",
    Handling.RECREATE: "fixed on the running container: replaced",
    Handling.IGNORED: "not compared",
}
_INTRO = """\
# Drift

trimtab detects a change of a container from outside at once, by the engine's events, or at the latest at the next full
observation (300 s). Drift is a difference from the settings admitted at creation, including defaults from image and policy;
a changed policy causes no drift, and other limits in a document are [no drift](rollouts.md#limits-change-in-place) either.
The journal has each repair, with its cause. A repair in place costs no restart. If a repair in place is impossible, trimtab replaces the container as in a rollout, with the successor first if ports and
volumes allow. A stopped container with drift is recreated.

If a container has several differences, and one can't be repaired in place, trimtab replaces the container at once.

## Changes from outside, and their repairs

Run against a real engine by `tests/e2e/test_drift.py::test_what_people_change_is_seen_and_put_right`.

"""
_MEMBERS = """
## Each member of an inspect

The first row with a member gives its repair. A member of a newer engine without a row is reported as `drift.unknown`, and
never repaired.

"""


_FIGHTS = """
## Changed, stopped or removed again and again

Another program may repeatedly undo repairs. Three times within ten minutes, trimtab repairs the same change of the same
replica at once. From the fourth time on, the service has the condition `Contended`, and the repair waits: 2 s, then three
times as long each time, up to 300 s. The rule holds for each altered field, for stops and for removals. After ten quiet
minutes the count starts again, and also after a change of the document or `trimtab resume`. `status` shows the next try.

Foreign networks and limits beyond the policy are always reverted at once. After four such changes within ten minutes, the
broker ends the container, with a `violation` in the journal.

A setting that the engine itself dropped is no change by anybody: it isn't repaired
([troubleshooting.md](troubleshooting.md#the-engine-ignores-a-setting)).

## Ended by the broker

The broker ends a container that doesn't run as admitted. The end counts as a crash of the replica: the next
container is created after 1 s, then 5, 10, 20, 40, 80, 160 and 300 s. Three failures in a row fail a rollout; five within
ten minutes are a `CrashLoop`, and the service is `Stalled` with the finding (`effective.mount: ...`). A changed
document, or `trimtab resume`, tries again at once.

## Who did it

The cause of an action says who ended a container, if known:

| cause in the journal | meaning |
|---|---|
| `exited with 1`, `was killed: out of memory (limit 64Mi)` | the program ended without a request |
| `was ended by the broker: effective.mount: ...` | the container didn't run as admitted; the journal has a `violation` |
| `was stopped by uid:1000 through the gate` | this user ran `docker stop` (or kill, or rm) on the broker's socket |
| `was stopped on the engine's own socket`, `was removed from outside` | somebody used the engine's own socket |
| `exited with 0: it ended by itself, or was stopped with docker or the engine` | no event of the engine showed a stop, and trimtab, not the engine, restarts the service: its Secrets must be there first, or `restart.boot` is `Ordered` |

With Secrets, `restart.boot: Ordered`, or in a crash loop, a container that ends stays down until trimtab starts it: the engine has no restart
policy for it. So the state of the container doesn't tell a `docker stop` from an exit. The engine's events do, as far as trimtab followed them
([decision 102](../decisions/0102-what-the-engine-shows.md)). An end without such an event counts as a failure of the service.
"""


def page() -> str:
    """Return the page."""
    head = ("change", "with `docker`", "healed", "restarts", "")
    return "".join(
        (
            _INTRO,
            *_table(head, (_row(row) for row in TABLE)),
            _MEMBERS,
            *_table(("section", "members", "becomes", "why"), _members()),
            _FIGHTS,
        )
    )


def _row(row: Row) -> tuple[str, ...]:
    commands = "<br>".join(f"`{command.format(it='IT')}`" for command in row.commands)
    return row.change, commands, row.healed.value, str(row.restarts), row.says


def _members() -> Iterator[tuple[str, ...]]:
    for row in MEMBERS:
        members = " ".join(f"`{member}`" for member in row.members.split())
        yield row.section or "(top)", members, _MEANS[row.handling], row.why


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cells)} |".replace(" |  |", " | |") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
