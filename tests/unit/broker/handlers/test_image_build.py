"""What a failed build leaves on the engine, and what of it the broker removes."""

from __future__ import annotations

from collections.abc import Mapping

from controller.broker.gate.call import Flow
from controller.broker.gate.commands import BuildEnded, Forward, ReadEngine
from controller.broker.handlers import image_build
from controller.model.records import Reply
from tests.unit.broker.dialogue import NOON, NOT_FOUND, reply, state

LAYER, COMMITTED, OTHER = "1a" * 6, "sha256:" + "2b" * 32, "sha256:" + "3c" * 32
IMAGES = "/images/json?all=1"
CONTAINER = "4d" * 6


def removed(answers: Mapping[str, list[Reply]], *, builds: int = 1) -> tuple[list[str], list[str]]:
    """Return the reads and the removals after a failed build that named a layer and a container."""
    knows = state()
    knows.builds.update({f"build-{number}": "alice" for number in range(builds)})
    ended = BuildEnded(Reply(422), (LAYER,), (CONTAINER,))

    def flow() -> Flow[None]:
        layers = ended.layers + (yield from image_build._unnamed_results(knows, ended))
        yield from image_build._remove_layers(knows, layers, NOON)

    left = {path: [*replies] for path, replies in answers.items()}
    reads: list[str] = []
    removals: list[str] = []
    going = flow()
    command = next(going, None)
    while command is not None:
        assert isinstance(command, ReadEngine | Forward)
        (reads if isinstance(command, ReadEngine) else removals).append(command.path)
        replies = left.get(command.path, [])
        answer = NOT_FOUND if not replies else replies.pop(0)
        try:
            command = going.send(answer)
        except StopIteration:
            break
    return reads, removals


def image(identifier: str) -> Reply:
    return reply({"Id": identifier, "Created": "2026-01-01T12:00:01Z"})


ANSWERS = {
    f"/containers/{CONTAINER}/json": [reply({"Id": CONTAINER}), reply({"Id": CONTAINER})],
    IMAGES: [
        reply(
            [
                {"Id": COMMITTED, "ParentId": f"sha256:{LAYER}{'0' * 52}"},
                {"Id": OTHER, "ParentId": "sha256:" + "5e" * 32},
            ]
        )
    ],
    f"/images/{LAYER}/json": [image(f"sha256:{LAYER}{'0' * 52}")],
    f"/images/{COMMITTED}/json": [image(COMMITTED)],
    f"/images/{OTHER}/json": [image(OTHER)],
}


def test_an_image_that_the_engine_finished_after_the_end_is_removed_before_its_layer() -> None:
    reads, removals = removed(ANSWERS)
    assert reads[:4] == [*[f"/containers/{CONTAINER}/json"] * 3, IMAGES]
    assert removals == [f"/images/{COMMITTED}", f"/images/sha256:{LAYER}{'0' * 52}"]


def test_while_another_build_runs_no_image_is_taken_for_a_result_of_this_one() -> None:
    _, removals = removed(ANSWERS, builds=2)
    assert removals == [f"/images/sha256:{LAYER}{'0' * 52}"]


def test_a_container_that_stays_is_waited_for_a_bounded_time() -> None:
    stays = {f"/containers/{CONTAINER}/json": [reply({"Id": CONTAINER})] * 1000}
    reads, removals = removed({**ANSWERS, **stays})
    assert reads.count(f"/containers/{CONTAINER}/json") == image_build.LOOKS
    assert removals == [f"/images/{COMMITTED}", f"/images/sha256:{LAYER}{'0' * 52}"]
