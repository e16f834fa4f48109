"""The credentials of a peer, and the role that follows from them."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from controller.broker.host.peer_credentials import (
    Peer,
    PeerRules,
    UnknownPeer,
    Where,
    identify,
    locate_process,
    peer_of,
    user_of,
)
from controller.model.records import Actor, ViewerScope

ME = os.geteuid()
CONTROLLER, OPERATOR, ALICE, STRANGER, VIEWER, GROUP = 998, 1000, 1001, 1002, 1003, 900
RULES = PeerRules(
    controller_uid=CONTROLLER,
    own_uid=0,
    operators=frozenset({OPERATOR}),
    clients=((ALICE, "alice"),),
    viewers={VIEWER: ViewerScope(frozenset({"alice"}))},
    group=GROUP,
)


def peer(uid: int, *groups: int, where: Where = "here") -> Peer:
    return Peer(uid=uid, gid=uid, pid=7, groups=frozenset(groups), where=where)


def check(who: Peer, expected: str, *, rules: PeerRules = RULES, claims: bool = False) -> None:
    """Compare with ``role[/owner][ not separated]``, or the rule that refuses."""
    found = identify(who, rules, claims_controller=claims)
    if isinstance(found, UnknownPeer):
        assert found.rule == expected, found
        return
    assert isinstance(found, Actor)
    owner = f"/{found.owner}" if found.owner else ""
    told = f"{found.role.value}{owner}{'' if found.separated else ' not separated'}"
    assert (told, found.uid, found.pid) == (expected, who.uid, 7)


def test_the_role_comes_from_uid_and_claim() -> None:
    check(peer(CONTROLLER), "controller", claims=True)
    check(peer(CONTROLLER), "role.denied")
    check(peer(0), "operator")
    check(peer(0), "operator", claims=True)
    check(peer(OPERATOR), "operator")
    check(peer(ALICE, GROUP), "client/alice")
    check(peer(ALICE, GROUP), "client/alice", claims=True)
    check(replace(peer(ALICE), gid=GROUP), "client/alice")
    check(peer(ALICE), "role.denied")
    check(peer(ALICE), "client/alice", rules=replace(RULES, group=None))
    check(peer(STRANGER, GROUP), "role.denied")


def test_a_viewer_needs_no_group_and_no_claim_and_has_connections_of_its_own() -> None:
    for claims in (False, True):
        check(peer(VIEWER), "viewer", claims=claims)
        check(peer(VIEWER, GROUP), "viewer", claims=claims)
    found = identify(peer(VIEWER), RULES, claims_controller=False)
    assert isinstance(found, Actor)
    assert found.scope == ViewerScope(frozenset({"alice"}))
    for where in ("elsewhere", "gone", "hidden"):
        check(peer(VIEWER, where=where), "peer.namespace")
    for rules in (replace(RULES, controller_uid=VIEWER), replace(RULES, own_uid=VIEWER)):
        assert "viewer" not in repr(identify(peer(VIEWER), rules, claims_controller=True))
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        rules = replace(RULES, own_uid=ME + 1, operators=frozenset(), viewers={ME: ViewerScope()})
        group = "operator" if ME == 0 else "viewer"
        assert user_of(ours, rules).group == group


def test_a_controller_that_shares_an_operator_s_uid_is_told_by_its_claim_alone() -> None:
    for rules in (
        replace(RULES, controller_uid=OPERATOR),
        replace(RULES, own_uid=OPERATOR, operators=frozenset(), controller_uid=OPERATOR),
    ):
        check(peer(OPERATOR), "controller not separated", rules=rules, claims=True)
        check(peer(OPERATOR), "operator not separated", rules=rules)
        check(peer(0), "operator", rules=rules, claims=True)


@pytest.mark.parametrize("uid", [0, OPERATOR, CONTROLLER, ALICE])
def test_a_peer_in_another_pid_namespace_is_refused_whoever_it_is(uid: int) -> None:
    for where in ("elsewhere", "gone"):
        check(peer(uid, GROUP, where=where), "peer.namespace", claims=True)
    admitted = replace(RULES, container_peers=frozenset({ALICE}))
    expected = "client/alice" if uid == ALICE else "peer.namespace"
    check(peer(uid, GROUP, where="elsewhere"), expected, rules=admitted)


def test_no_operator_speaks_from_a_container_whatever_the_policy_names() -> None:
    named = frozenset({0, OPERATOR, ALICE, CONTROLLER})
    rules = replace(RULES, container_peers=named)
    for uid in (0, OPERATOR):
        check(peer(uid, GROUP, where="elsewhere"), "peer.namespace", rules=rules, claims=True)
    check(peer(ALICE, GROUP, where="elsewhere"), "client/alice", rules=rules, claims=True)
    check(peer(CONTROLLER, where="elsewhere"), "controller", rules=rules, claims=True)
    check(peer(CONTROLLER, where="elsewhere"), "role.denied", rules=rules)


def test_a_peer_that_can_t_be_looked_at_must_be_a_trusted_one() -> None:
    check(peer(0, where="hidden"), "operator")
    check(peer(CONTROLLER, where="hidden"), "controller", claims=True)
    check(peer(ALICE, GROUP, where="hidden"), "peer.namespace")


CONNECT = """
import os, socket, sys
uid, groups, path = int(sys.argv[1]), [int(g) for g in sys.argv[2].split(",") if g], sys.argv[3].replace("@", chr(0))
if os.geteuid() == 0:
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.recv(1)
"""


def accepted(path: str, *argv: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Let another process connect, and return our end of the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        process = subprocess.Popen(argv)
        return listener.accept()[0], process


@pytest.mark.needs_root
def test_the_kernel_tells_uid_pid_and_all_groups() -> None:
    groups = ",".join(str(gid) for gid in range(2000, 2600))
    # An abstract name: another user may not walk to a test's folder.
    name = f"trimtab-test-{os.getpid()}"
    ours, process = accepted(f"\0{name}", sys.executable, "-c", CONNECT, "1234", groups, f"@{name}")
    with ours:
        expected = Peer(1234, 1234, process.pid, frozenset({1234, *range(2000, 2600)}), "here")
        assert peer_of(ours) == expected
        ours.send(b"x")
        process.wait(20)
        assert peer_of(ours).where == "gone"
        # Were its pid used again meanwhile, by a process that lives here: it is another one.
        assert peer_of(ours, locate=lambda _pid: "here").where == "gone"


@pytest.mark.needs_root
def test_a_peer_in_a_pid_namespace_of_its_own_is_elsewhere(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    argv = ("unshare", "--pid", "--fork", sys.executable, "-c", CONNECT, "0", "", path)
    ours, process = accepted(path, *argv)
    with ours:
        assert peer_of(ours).where == "elsewhere"
        ours.send(b"x")
    assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("rules", "where", "group"),
    [
        (PeerRules(998, ME), "here", "operator"),
        (PeerRules(ME, ME), "here", "operator"),
        (PeerRules(998, 5, operators=frozenset({ME})), "hidden", "operator"),
        (PeerRules(998, ME), "elsewhere", "no-role"),
        (PeerRules(998, ME), "gone", "no-role"),
    ],
)
def test_the_uid_gives_the_group_and_no_container_has_a_trusted_one(
    rules: PeerRules, where: Where, group: str
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert user_of(ours, rules, locate=lambda _pid: where) == (group, ME)


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("uid", "where", "group"),
    [
        (CONTROLLER, "here", "controller"),
        (CONTROLLER, "elsewhere", "no-role"),
        (ALICE, "elsewhere", "client"),
        (STRANGER, "here", "no-role"),
    ],
)
def test_other_uids_give_their_group(uid: int, where: Where, group: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{tmp_path}")
        listener.listen()
        code = "import os, socket, sys; os.setresuid(*[int(sys.argv[1])] * 3);"
        code += "socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[2])"
        subprocess.run([sys.executable, "-c", code, str(uid), str(tmp_path)], check=True)
        connected, _ = listener.accept()
        with connected:
            assert user_of(connected, RULES, locate=lambda _pid: where) == (group, uid)


def test_where_a_process_lives_is_read_of_proc(tmp_path: Path) -> None:
    """Also without access to the namespace: then the number of pids decides."""

    def proc(pid: str, *, namespace: str = "", pids: str = "") -> None:
        folder = tmp_path / pid
        (folder / "ns").mkdir(parents=True)
        if namespace:
            (folder / "ns" / "pid").symlink_to(namespace)
        else:
            (folder / "ns" / "pid").write_text("")  # no link: reading one fails, EINVAL
        if pids:
            (folder / "status").write_text(f"Name:\tx\nNSpid:\t{pids}\nNSsid:\t1\n")

    proc("self", namespace="pid:[1]", pids="10")
    proc("11", namespace="pid:[1]")
    proc("12", namespace="pid:[2]")
    proc("13", pids="13")
    proc("14", pids="14\t1")
    proc("15")
    found = {pid: locate_process(pid, proc=tmp_path) for pid in (0, 11, 12, 13, 14, 15, 16)}
    assert found == {
        0: "elsewhere",
        11: "here",
        12: "elsewhere",
        13: "here",
        14: "elsewhere",
        15: "hidden",
        16: "gone",
    }
    assert locate_process(os.getpid()) == "here"
