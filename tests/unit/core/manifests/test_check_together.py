"""Documents become the desired state, or problems with place, fault and remedy."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.manifests.check_together import desired_of
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Severity

HEAD = "apiVersion: trimtab/v1\nkind: Service\n"


def service(spec: str = "", *, name: str = "web", image: str = "team/web:1", more: str = "") -> str:
    """Return a Service with its spec in line 4 at column 8."""
    return (
        f"{HEAD}metadata: {{name: {name}, owner: team{more}}}\nspec: {{{spec}, image: '{image}'}}\n"
        if spec
        else f"{HEAD}metadata: {{name: {name}, owner: team{more}}}\nspec: {{image: '{image}'}}\n"
    )


def problem_lines(text: str | dict[str, str]) -> list[str]:
    """Return each problem as ``FILE:LINE:COLUMN code: message``."""
    found = desired_of(text if isinstance(text, dict) else {"f.yaml": text})
    return [f"{p.file}:{p.line}:{p.column} {p.code}: {p.message}" for p in found.problems]


def check(
    text: str | dict[str, str], *, problems: list[str], keys: str, blind: str, all_blind=False
):
    """Compare the problems, the valid services and the blind keys."""
    files = text if isinstance(text, dict) else {"f.yaml": text}
    found = desired_of(files)
    assert problem_lines(files) == problems
    assert " ".join(str(one.key) for one in found.services) == keys
    assert " ".join(sorted(map(str, found.blind_keys))) == blind
    assert found.blind is all_blind


def test_a_service_is_read_with_its_place():
    desired = desired_of({"a/web.yaml": "# a comment\n" + service(more=", labels: {tier: web}")})
    (web,) = desired.services
    assert (str(web.key), web.owner, web.labels) == (
        "Service/default/web",
        "team",
        (("tier", "web"),),
    )
    assert (web.source.file, web.source.line) == ("a/web.yaml", 2)
    assert (desired.problems, desired.blind, desired.blind_keys) == ((), False, frozenset())


def test_the_lines_of_fields_are_kept():
    text = """\
metadata: {name: web, owner: team}
apiVersion: trimtab/v1
kind: Service
spec:
  replicas: 2
  env: {A: b}

  # the limits
  resources:
    cpus: 0.5
    memory: 64Mi
  image: trimtab.local/web:1
"""
    (_, web) = desired_of({"f.yaml": service(name="api") + "---\n" + text}).services
    begins = web.source.line
    assert {name: line - begins for name, line in web.source.lines} == {
        "env": 5,
        "image": 11,
        "resources.cpus": 9,
        "resources.memory": 10,
    }


def test_an_unknown_key_names_the_one_that_was_meant():
    (problem,) = desired_of({"f.yaml": service("replics: 2")}).problems
    assert problem.render() == (
        'f.yaml:4:8: error field.unknown: unknown key "replics" in spec\n'
        "    remedy: did you mean replicas?"
    )
    assert problem.expected.startswith("one of build, command, containerLabels, dependsOn, ")
    (other,) = desired_of({"f.yaml": service("qqq: 2")}).problems
    assert other.render().split("\n")[1] == f"    expected: {other.expected}"
    assert str(problem.key) == "Service/default/web"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("replicas: many", "4:18 field.type: spec.replicas is a string; expected a whole number"),
        ("replicas: 1.5", "4:18 field.type: spec.replicas is the number 1.5; expected a whole number"),
        ("replicas: 1000", "4:18 field.value: spec.replicas is too large"),
        ("replicas: -1", "4:18 field.value: spec.replicas is too small"),
        ("init: 'yes'", "4:14 field.type: spec.init is a string; expected true or false"),
        ("command: serve", "4:17 field.type: spec.command is a string; expected a list"),
        ("command: []", "4:17 field.value: spec.command is empty"),
        ("command: [1]", "4:18 field.type: spec.command[0] is the number 1; expected a string"),
        ("env: {PORT: 8080}", "4:20 field.type: spec.env.PORT is the number 8080; expected a string"),
        ("env: {PORT: }", "4:20 field.type: spec.env.PORT is empty; expected a string"),
        ("env: [A=b]", "4:13 field.type: spec.env is a list; expected a mapping"),
        ("env: {1A: b}", '4:14 env.name: "1A" is not a valid name of an environment variable'),
        ("env: {'A=': b}", '4:14 env.name: "A=" is not a valid name of an environment variable'),
        ('env: {A: "\\0"}', "4:17 yaml.character: a string can't hold a NUL"),
        ("state: running", "4:15 field.value: spec.state is not one of Running, Stopped"),
        ("stopGracePeriod: 10", "4:25 field.value: spec.stopGracePeriod 10 has no unit"),
        ("stopGracePeriod: 301s", "4:25 field.value: spec.stopGracePeriod is too large"),
        ("stopGracePeriod: 1500ms", '4:25 field.value: spec.stopGracePeriod "1500ms" has a fraction of a second'),
        ("stopSignal: TERM", "4:20 field.value: spec.stopSignal is not valid"),
        ("workingDir: srv", "4:20 field.value: spec.workingDir is not an absolute path"),
        ("user: 'a b'", "4:14 field.value: spec.user is not valid"),
        ("resources: {memory: 512M}", '4:28 field.value: spec.resources.memory "512M" has a unit that is not used here'),
        ("resources: {memory: 1Mi}", "4:28 field.value: spec.resources.memory is too small"),
        ("resources: {cpus: 0.0001}", "4:26 field.value: spec.resources.cpus is too small"),
        ("resources: {cpus: 0.0125}", "4:26 field.value: spec.resources.cpus is too precise"),
        ("security: {capAdd: [chown]}", "4:27 field.value: spec.security.capAdd is not valid"),
        ("ports: [{host: 80}]", "4:16 field.missing: spec.ports[0].container is missing"),
        ("ports: [{container: 0}]", "4:28 field.value: spec.ports[0].container is too small"),
        ("ports: [{container: 80, hostIP: here}]", "4:40 field.value: spec.ports[0].hostIP is not valid"),
        ("ports: [{container: 80, protocol: http}]", "4:42 field.value: spec.ports[0].protocol is not one of tcp, udp"),
        ("mounts: [{type: nfs, target: /a}]", "4:17 field.value: spec.mounts[0].type is not one of bind, volume or tmpfs"),
        ("mounts: [{type: tmpfs, target: /a}]", "4:17 field.missing: spec.mounts[0].size is missing"),
        ("mounts: [{type: tmpfs, target: a, size: 1Mi}]", "4:39 field.value: spec.mounts[0].target is not an absolute path"),
        ("mounts: [{type: bind, source: /a/../b, target: /a, readOnly: true}]", '4:38 field.value: spec.mounts[0].source contains "/../"'),
        ("mounts: [{type: bind, source: /a/, target: /a, readOnly: true}]", "4:38 field.value: spec.mounts[0].source ends with a slash"),
        ("mounts: [{type: tmpfs, target: /, size: 1Mi}]", "4:39 field.value: spec.mounts[0].target is the root folder"),
        ("mounts: [{type: volume, source: a, target: /a, readonly: true}]", '4:55 field.unknown: unknown key "readonly" in spec.mounts[0]'),
        ("mounts: [{type: volume, source: /a, target: /a}]", '4:40 volume.name: "/a" is not a valid name of a volume'),
        ("mounts: [{type: tmpfs, target: /a, size: 1Mi}, {type: volume, source: a, target: /a}]", "4:89 mount.duplicate: two mounts have the target /a"),
        ("network: {mode: host}", "4:24 field.value: spec.network.mode is not one of isolated, bridge, none"),
        ("network: {attach: [other/db]}", "4:27 unsupported: attaching to a network of another namespace is not supported yet"),
        ("network: {attach: [db]}", "4:27 network.undeclared: Network/default/db is not declared"),
        ("network: {mode: none, attach: [db]}", "4:30 network.none: a container on network mode none can't be attached to other networks"),
        ("network: {mode: none}, ports: [{container: 80}]", "4:31 port.no-network: a container on network mode none can't have ports"),
        ("ports: [{container: 80}, {container: 80}]", "4:33 port.duplicate: port 80/tcp is listed twice"),
        ("replicas: 2, ports: [{container: 80, host: 8080}]", "4:51 port.replicas: host port 8080 can belong to one replica only, and replicas is 2"),
        ("replicas: 2, mounts: [{type: volume, source: a, target: /a}]", "4:30 volume.exclusive: volume a can be written to by one replica only, and replicas is 2"),
        ("rollout: {order: StartFirst}, ports: [{container: 80, host: 8080}]", "4:25 rollout.order: StartFirst is impossible: two replicas can't have host port 8080 at the same time"),
        ("rollout: {order: StartFirst}, mounts: [{type: volume, source: a, target: /a}]", "4:25 rollout.order: StartFirst is impossible: two replicas can't have volume a at the same time"),
        ("containerLabels: {io.trimtab.owner: x}", '4:26 label.reserved: label "io.trimtab.owner" begins with io.trimtab., which is reserved for trimtab'),
        ("containerLabels: {IO.Trimtab.x: x}", '4:26 label.reserved: label "IO.Trimtab.x" begins with io.trimtab., which is reserved for trimtab'),
        ("containerLabels: {'ｉo.trimtab.x': x}", '4:26 label.reserved: label "\\uff49o.trimtab.x" begins with io.trimtab., which is reserved for trimtab'),
        ("healthcheck: {exec: [a], interval: 0s}", "4:43 field.value: spec.healthcheck.interval is too small"),
        ("healthcheck: {}", "4:21 field.value: spec.healthcheck has no check"),
        ("healthcheck: {exec: [a], tcp: {port: 1}}", "4:21 field.value: spec.healthcheck has exec and tcp"),
        ("healthcheck: {http: {path: /a}}", "4:22 field.missing: spec.healthcheck.http.port is missing"),
        ("healthcheck: {http: {path: a, port: 1}}", "4:35 field.value: spec.healthcheck.http.path is not valid"),
        ("healthcheck: {http: {path: /a b, port: 1}}", "4:35 field.value: spec.healthcheck.http.path is not valid"),
        ("healthcheck: {http: {path: '/a#b', port: 1}}", "4:35 field.value: spec.healthcheck.http.path is not valid"),
        ("healthcheck: {http: {port: 1, scheme: https}}", '4:38 field.unknown: unknown key "scheme" in spec.healthcheck.http'),
        ("healthcheck: {tcp: {port: 65536}}", "4:34 field.value: spec.healthcheck.tcp.port is too large"),
        ("healthcheck: {tcp: {port: 1}, interval: 999ms}", "4:48 healthcheck.interval: spec.healthcheck.interval is too small for tcp"),
        ("healthcheck: {http: {port: 1}, timeout: 61s}", "4:48 healthcheck.timeout: spec.healthcheck.timeout is too large for http"),
        ("network: {mode: none}, healthcheck: {http: {port: 1}}", "4:45 healthcheck.no-network: a http check is impossible: on network mode none the container has no address"),
        ("network: {mode: none}, healthcheck: {tcp: {port: 1}}", "4:45 healthcheck.no-network: a tcp check is impossible: on network mode none the container has no address"),
        ("image: 'x:1'", '4:22 yaml.duplicate-key: key "image" is repeated; it is first on line 4'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place_and_blinds_one_key(spec, problem):
    found = desired_of({"f.yaml": service(spec)})
    place, _, _ = problem.partition(" ")
    first = problem_lines(service(spec))[0]
    assert first.startswith(f"f.yaml:{problem}"), first
    assert place
    assert (found.services, found.blind) == ((), False)
    assert {str(key) for key in found.blind_keys} == {"Service/default/web"}
    assert {str(p.key) for p in found.problems} == {"Service/default/web"}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("kind: Servce\napiVersion: trimtab/v1", '6:7 kind.unknown: kind "Servce" is unknown'),
        ("apiVersion: trimtab/v1", "6:1 kind.unknown: kind is missing"),
        ("kind: Service", "6:1 field.missing: apiVersion is missing"),
        ("kind: Deployment\napiVersion: apps/v1", '7:13 apiversion: apiVersion is "apps/v1"'),
        ("- a", "6:1 document.type: the document is a list; expected a mapping with apiVersion, kind, metadata and spec"),
        ("a: [", "6:5 yaml.syntax: a list or mapping that begins before and is never closed"),
        ("kind: [Service]", "6:1 apiversion: apiVersion is missing"),
        (HEAD + "metadata: {name: a, name: b, owner: team}\nspec: {image: x}",
         '8:21 yaml.duplicate-key: key "name" is repeated; it is first on line 8'),
        (HEAD + "metadata: {name: Web, owner: team}\nspec: {image: x}",
         '8:18 name.invalid: metadata.name "Web" is not a valid name'),
        (HEAD + f"metadata: {{name: {'a' * 28}, owner: team}}\nspec: {{image: x}}",
         '8:18 name.invalid: metadata.name "aaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not a valid name: it has 28 characters'),
        (HEAD + f"metadata: {{name: a, namespace: {'a' * 21}, owner: team}}\nspec: {{image: x}}",
         '8:32 namespace.invalid: metadata.namespace "aaaaaaaaaaaaaaaaaaaaa" is not a valid name: it has 21 characters'),
        (HEAD + "metadata: 5\nspec: {image: x}", "8:11 field.type: metadata is the number 5; expected a mapping"),
    ],
)  # fmt: skip
def test_a_document_that_may_have_declared_anything_blinds_the_source(document, problem):
    text = service() + "---\n" + document + "\n---\n" + service(name="other")
    found = desired_of({"f.yaml": text})
    assert problem_lines(text)[0] == f"f.yaml:{problem}"
    assert [str(one.key) for one in found.services] == [
        "Service/default/other",
        "Service/default/web",
    ]
    assert found.blind
    assert found.blind_keys == frozenset()
    assert any(p.key is None for p in found.problems)


def test_an_owner_is_required_and_must_be_a_name():
    check(
        f"{HEAD}metadata: {{name: a}}\nspec: {{image: x:1}}\n---\n"
        f"{HEAD}metadata: {{name: b, owner: My Team}}\nspec: {{image: x:1}}\n---\n"
        f"{HEAD}metadata: {{name: c, owner: {'o' * 64}}}\nspec: {{image: x:1}}\n",
        problems=[
            "f.yaml:3:1 field.missing: metadata.owner is missing",
            'f.yaml:8:28 owner.invalid: metadata.owner "My Team" is not a valid name',
            f'f.yaml:13:28 owner.invalid: metadata.owner "{"o" * 64}" is not a valid name: it has 64 characters',
        ],
        keys="",
        blind="Service/default/a Service/default/b Service/default/c",
    )


def test_a_value_that_may_be_a_secret_is_never_repeated():
    spec = "env: {TOKEN: [hunter2]}, user: 'hunter2!', workingDir: hunter2, command: hunter2"
    found = desired_of({"f.yaml": service(spec)})
    assert len(found.problems) == 4
    assert "hunter2" not in "\n".join(problem.render() for problem in found.problems)


@pytest.mark.parametrize("image", ["team/web", "team/web:latest", "localhost:5000/web"])
def test_an_image_without_a_version_is_a_warning(image):
    desired = desired_of({"f.yaml": service(image=image)})
    assert [(p.code, p.severity.value) for p in desired.problems] == [("image.latest", "warning")]
    assert (len(desired.services), desired.valid, desired.blind) == (1, True, False)


@pytest.mark.parametrize(
    "image", ["team/web:1", "localhost:5000/web:1", "team/web@sha256:" + "a" * 64]
)
def test_an_image_with_a_version_is_no_problem(image):
    assert problem_lines(service(image=image)) == []


@pytest.mark.parametrize(
    "image", ["", "team/Web:1", "web:1 ", "web@sha256:12", "https://x/y", ":1"]
)
def test_an_image_that_is_no_reference_is_refused(image):
    assert problem_lines(service(image=image)) == [
        "f.yaml:4:15 field.value: spec.image is not valid"
    ]


def test_a_writable_bind_is_a_warning():
    text = service("mounts: [{type: bind, source: /tmp/a, target: /a}]")
    assert [line.split(":", 3)[2] for line in problem_lines(text)] == ["17 mount.writable"]
    (problem,) = desired_of({"f.yaml": text}).problems
    assert problem.severity.value == "warning"


def test_two_documents_with_one_key_both_stand_back():
    check(
        {"a.yaml": service() + "---\n" + service(name="other"), "b/c.yaml": service(image="x:2")},
        problems=[
            "a.yaml:3:18 document.duplicate: Service/default/web is also declared in b/c.yaml:1",
            "b/c.yaml:3:18 document.duplicate: Service/default/web is also declared in a.yaml:1",
        ],
        keys="Service/default/other",
        blind="Service/default/web",
    )


def test_a_sound_document_stands_back_from_a_broken_one_of_its_key():
    check(
        service() + "---\n" + service("replicas: x"),
        problems=[
            "f.yaml:3:18 document.duplicate: Service/default/web is also declared in a document that has errors",
            "f.yaml:9:18 field.type: spec.replicas is a string; expected a whole number",
        ],
        keys="",
        blind="Service/default/web",
    )


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("host: 8080", "host: 8080", True),
        ("host: 8080", "host: 8080, hostIP: 0.0.0.0", True),
        ("host: 8080", "host: 8080, hostIP: 127.0.0.2", False),
        ("host: 8080", "host: 8080, protocol: udp", False),
        ("host: 8080", "host: 8081", False),
        ("host: 8080, hostIP: '::1'", "host: 8080, hostIP: '0:0:0:0:0:0:0:1'", True),
        ("host: 8080, hostIP: '::1'", "host: 8080, hostIP: 127.0.0.1", False),
    ],
)
def test_two_services_cannot_claim_one_host_port(first, second, conflict):
    found = desired_of(
        {
            "a.yaml": service(f"ports: [{{container: 80, {first}}}]"),
            "b.yaml": service(f"ports: [{{container: 80, {second}}}]", name="other"),
        }
    )
    assert {problem.code for problem in found.problems} == (
        {"port.conflict"} if conflict else set()
    )
    assert len(found.services) == (0 if conflict else 2)
    assert {str(key) for key in found.blind_keys} == (
        {"Service/default/web", "Service/default/other"} if conflict else set()
    )


def test_a_port_conflict_names_the_other_place():
    text = service("ports: [{container: 80, host: 8080}]")
    other = service(
        "ports: [{container: 90, host: 8080}, {container: 91, host: 8080}]", name="other"
    )
    assert problem_lines({"a.yaml": text, "b.yaml": other}) == [
        "a.yaml:4:38 port.conflict: host port 8080/tcp on 127.0.0.1 is also claimed by Service/default/other (b.yaml:1)",
        "b.yaml:4:38 port.conflict: host port 8080/tcp on 127.0.0.1 is also claimed by Service/default/web (a.yaml:1)",
        "b.yaml:4:67 port.conflict: host port 8080/tcp on 127.0.0.1 is also claimed by Service/default/web (a.yaml:1)",
    ]


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        ("", "", True),
        (", shared: true", "", True),
        (", shared: true", ", shared: true", False),
        ("", ", readOnly: true", False),
        (", readOnly: true", ", readOnly: true", False),
    ],
)
def test_two_services_cannot_both_write_to_an_exclusive_volume(first, second, conflict):
    mount = "mounts: [{type: volume, source: data, target: /data"
    found = desired_of(
        {
            "a.yaml": service(f"{mount}{first}}}]"),
            "b.yaml": service(f"{mount}{second}}}]", name="other"),
            "c.yaml": service(f"{mount}}}]", name="elsewhere", more=", namespace: other"),
        }
    )
    codes = [problem.code for problem in found.problems]
    assert codes == (["volume.exclusive"] * 2 if conflict else [])
    assert len(found.services) == (1 if conflict else 3)


NETWORK = "apiVersion: trimtab/v1\nkind: Network\nmetadata: {name: db, owner: team}\n"


def test_networks_and_volumes_are_declared():
    desired = desired_of(
        {
            "f.yaml": NETWORK
            + "spec: {internal: false}\n---\n"
            + "apiVersion: trimtab/v1\nkind: Volume\nmetadata: {name: data, owner: team}\n---\n"
            + service("network: {attach: [db]}")
        }
    )
    assert desired.problems == ()
    assert [(str(n.key), n.owner, n.spec.internal) for n in desired.networks] == [
        ("Network/default/db", "team", False)
    ]
    assert [(str(v.key), v.owner) for v in desired.volumes] == [("Volume/default/data", "team")]


def test_a_service_stands_back_while_its_network_has_errors():
    check(
        {
            "n.yaml": NETWORK + "spec: {intern: true}\n",
            "s.yaml": service("network: {attach: [db]}"),
        },
        problems=[
            'n.yaml:4:8 field.unknown: unknown key "intern" in spec',
            "s.yaml:4:27 network.broken: the document of Network/default/db has errors",
        ],
        keys="",
        blind="Network/default/db Service/default/web",
    )


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("bridge", "default"),
        ("host", "default"),
        ("platform-network", "default"),
        ("x", "platform-ingress"),
    ],
)
def test_a_network_cannot_have_the_name_of_an_implied_one(name, namespace):
    text = f"apiVersion: trimtab/v1\nkind: Network\nmetadata: {{name: {name}, namespace: {namespace}, owner: t}}\n"
    (line,) = problem_lines(text)
    assert "network.reserved" in line


@pytest.mark.parametrize("size", ["0Ki", "10G", "10", "1048577Gi", "10.5Gi", "[1Gi]"])
def test_the_size_of_a_volume_is_a_quantity_of_the_documents(size):
    text = f"apiVersion: trimtab/v1\nkind: Volume\nmetadata: {{name: data, owner: t}}\nspec: {{size: {size}}}\n"
    (line,) = problem_lines(text)
    assert line.startswith("f.yaml:4:")


def test_an_adopted_volume_is_never_released():
    spec = "{engineName: shop_data, retain: false}"
    text = (
        f"apiVersion: trimtab/v1\nkind: Volume\nmetadata: {{name: data, owner: t}}\nspec: {spec}\n"
    )
    (line,) = problem_lines(text)
    assert "volume.retain" in line


@pytest.mark.parametrize(("name", "namespace"), [("a", "default"), ("ab", "default"), ("a", "b")])
def test_a_volumes_name_is_as_long_as_the_engine_wants_it(name, namespace):
    text = f"apiVersion: trimtab/v1\nkind: Volume\nmetadata: {{name: {name}, namespace: {namespace}, owner: t}}\n"
    short = 'f.yaml:3:18 volume.name: metadata.name "a" is too short for a volume of the engine'
    assert problem_lines(text) == ([short] if (name, namespace) == ("a", "default") else [])


def test_very_many_problems_of_one_document_are_bounded():
    env = ", ".join(f"A{number}: {number}" for number in range(500))
    problems = problem_lines(service(f"env: {{{env}}}"))
    assert len(problems) == 51
    assert "f.yaml:1:0 problem.more: there are more problems in this document" in problems


def test_the_digest_is_over_what_is_desired_and_nothing_else():
    one = desired_of({"a.yaml": service()})
    moved = desired_of({"b/other.yml": "# words\n\n" + service()})
    assert one.digest == moved.digest
    others = [
        service("replicas: 2"),
        service("state: Stopped"),
        service("pullPolicy: Always"),
        service("rollout: {order: StopFirst}"),
        service(image="team/web:2"),
        service(more=", labels: {a: b}"),
        service(name="other"),
        service() + "---\n" + NETWORK,
        *(
            f"{service('restart: {policy: Never}', name='db')}---\n{depending('web', each)}"
            for each in ("db", "{name: db, condition: Completed}")
        ),
        "",
    ]
    digests = {desired_of({"a.yaml": text}).digest for text in others}
    assert len(digests | {one.digest}) == len(others) + 1


def test_the_same_files_give_the_same_state():
    files = {"b.yaml": service(name="b"), "a.yaml": service("replics: 1", name="a")}
    assert desired_of(files) == desired_of(dict(reversed(files.items())))


_FIELDS = ServiceSpec.model_json_schema()["properties"]
_WORDS = st.sampled_from(
    [*_FIELDS, "type", "source", "target", "container", "host", "mode", "exec"]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_ODD = st.recursive(
    _SCALARS | st.sampled_from(["bind", "volume", "tmpfs", "1Gi", "10s", "a", "/a", "StartFirst"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_WORDS | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)
_DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("trimtab/v1") | _ODD,
        "kind": st.sampled_from(["Service", "Network", "Volume", "Release", "Job"]) | _ODD,
        "metadata": st.fixed_dictionaries(
            {}, optional={"name": st.just("a") | _ODD, "owner": st.just("b") | _ODD, "labels": _ODD}
        )
        | _ODD,
        "spec": st.dictionaries(_WORDS, _ODD, max_size=5).map(lambda spec: {"image": "a:1", **spec})
        | _ODD,
    },
)


@given(documents=st.lists(_DOCUMENTS | _ODD, max_size=3))
def test_no_document_makes_it_raise_and_none_is_passed_over_in_silence(documents):
    text = "\n---\n".join(json.dumps(document) for document in documents)
    desired = desired_of({"f.yaml": text})
    made = len(desired.services) + len(desired.networks) + len(desired.volumes)
    written = sum(document is not None for document in documents)
    assert made <= written
    released = sum(isinstance(d, dict) and d.get("kind") == "Release" for d in documents)
    if made + released < written:
        assert not desired.valid
        assert desired.blind or desired.blind_keys


def depending(name: str, *on: str, more: str = "") -> str:
    """Return a Service with dependencies; the first name is at 4:27 if *more* is empty."""
    listed = ", ".join(one if one.startswith("{") else f"{{name: {one}}}" for one in on)
    return service(f"{more}dependsOn: [{listed}]", name=name)


HEALTHCHECK = "healthcheck: {exec: [a]}"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("dependsOn: [{name: Db}]", '4:27 dependency.name: "Db" is not a valid name of a Service'),
        ("dependsOn: [{name: lab/db}]", '4:27 dependency.name: "lab/db" is not a valid name of a Service'),
        ("dependsOn: [{name: bd}]", "4:27 dependency.undeclared: Service/default/bd is not declared"),
        ("dependsOn: [{name: web}]", "4:27 dependency.cycle: dependencies form a cycle: web -> web"),
        ("dependsOn: [{name: db}, {name: db}]", "4:39 dependency.duplicate: service db is listed twice"),
        ("dependsOn: [{name: db, condition: Ready}]", "4:42 field.value: spec.dependsOn[0].condition is not one of Started, Healthy, Completed"),
        ("dependsOn: [{condition: Started}]", "4:20 field.missing: spec.dependsOn[0].name is missing"),
        ("dependsOn: [db]", "4:20 field.type: spec.dependsOn[0] is a string; expected a mapping"),
    ],
)  # fmt: skip
def test_a_dependency_that_cannot_be_is_told_at_its_place(spec, problem):
    text = service(spec) + "---\n" + service(name="db")
    check(
        text,
        problems=[f"f.yaml:{problem}"],
        keys="Service/default/db",
        blind="Service/default/web",
    )


def test_an_undeclared_dependency_is_told_beside_other_errors_of_its_document():
    assert problem_lines(
        service("replicas: two, dependsOn: [{name: bd}]") + "---\n" + service(name="db")
    ) == [
        "f.yaml:4:18 field.type: spec.replicas is a string; expected a whole number",
        "f.yaml:4:42 dependency.undeclared: Service/default/bd is not declared",
    ]


def test_all_that_is_wrong_with_a_document_is_told_in_one_round():
    text = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: Web_App}
spec:
  image: x:1
  replicas: 2
  ports: [{container: 80, host: 8080}, "443:443"]
  env: {1A: b, DEBUG: false}
  healthcheck: {test: [CMD, /check]}
"""
    assert [line.partition(": ")[0] for line in problem_lines(text)] == [
        "f.yaml:3:1 field.missing",
        "f.yaml:3:18 name.invalid",
        "f.yaml:7:33 port.replicas",
        "f.yaml:7:40 field.type",
        "f.yaml:8:9 env.name",
        "f.yaml:8:23 field.type",
        "f.yaml:9:17 field.unknown",
    ]


def test_a_misspelt_dependency_names_the_one_that_was_meant():
    found = desired_of({"f.yaml": depending("web", "databas") + "---\n" + service(name="database")})
    assert [problem.remedy for problem in found.problems] == ["did you mean database?"]
    (alone,) = desired_of({"f.yaml": depending("web", "db")}).problems
    assert alone.remedy == "declare a document of kind Service called db in this namespace"


def test_a_dependency_is_of_the_same_namespace():
    other = service(name="db", more=", namespace: lab")
    assert problem_lines({"a.yaml": depending("web", "db"), "b.yaml": other}) == [
        "a.yaml:4:27 dependency.undeclared: Service/default/db is not declared"
    ]


def test_a_cycle_is_written_out_at_each_of_its_members_and_blinds_only_them():
    check(
        {
            "a.yaml": depending("a", "b"),
            "b.yaml": depending("b", "d", "c"),
            "c.yaml": depending("c", "a"),
            "d.yaml": service(name="d"),
            "e.yaml": depending("e", "a"),
        },
        problems=[
            "a.yaml:4:27 dependency.cycle: dependencies form a cycle: a -> b -> c -> a (also b.yaml:1, c.yaml:1)",
            "b.yaml:4:38 dependency.cycle: dependencies form a cycle: b -> c -> a -> b (also c.yaml:1, a.yaml:1)",
            "c.yaml:4:27 dependency.cycle: dependencies form a cycle: c -> a -> b -> c (also a.yaml:1, b.yaml:1)",
            "e.yaml:4:27 dependency.broken: the document of Service/default/a has errors: only its running containers count",
        ],
        keys="Service/default/d Service/default/e",
        blind="Service/default/a Service/default/b Service/default/c",
    )


def test_a_long_cycle_is_cut():
    names = [f"s{number:02}" for number in range(40)]
    files = {
        f"{n}.yaml": depending(n, m) for n, m in zip(names, [*names[1:], names[0]], strict=True)
    }
    assert problem_lines(files)[0].split(": ")[2] == (
        "s00 -> s01 -> s02 -> s03 -> s04 -> s05 -> s06 -> s07 -> s08 -> s09 -> … -> s00"
        " (also s01.yaml:1, s02.yaml:1, s03.yaml:1, s04.yaml:1, s05.yaml:1)"
    )


@pytest.mark.parametrize(
    ("condition", "spec", "problem"),
    [
        ("Started", "", ""),
        ("Healthy", HEALTHCHECK, ""),
        ("Completed", "restart: {policy: OnFailure}", ""),
        ("Completed", "restart: {policy: Never}", ""),
        ("Completed", "", "Service/default/db (db.yaml:1) is restarted whenever it ends, so it never completes"),
    ],
)  # fmt: skip
def test_a_condition_that_never_comes_true_is_refused_with_its_remedy(condition, spec, problem):
    files = {
        "db.yaml": service(spec, name="db"),
        "web.yaml": depending("web", f"{{name: db, condition: {condition}}}"),
    }
    found = desired_of(files)
    assert problem_lines(files) == (
        [f"web.yaml:4:42 dependency.condition: {problem}"] if problem else []
    )
    assert [one.key.name for one in found.services] == (["db"] if problem else ["db", "web"])
    assert all("condition: Started here" in problem.remedy for problem in found.problems)


def test_healthy_without_a_healthcheck_relies_on_the_image_with_a_warning():
    files = {
        "db.yaml": service("", name="db"),
        "web.yaml": depending("web", "{name: db, condition: Healthy}"),
    }
    found = desired_of(files)
    assert [each.key.name for each in found.services] == ["db", "web"]
    (warning,) = found.problems
    assert (warning.code, warning.severity) == ("dependency.condition", Severity.WARNING)
    assert "by its image's alone" in warning.message


@pytest.mark.parametrize(
    ("broken", "problem", "blind"),
    [
        (service("replics: 2", name="db"), "the document of Service/default/db has errors", "Service/default/db"),
        (service(name="db") + "---\n" + service(name="db"), "the document of Service/default/db has errors", "Service/default/db"),
        ("a: [", "the document of Service/default/db may be in a file that can't be read", ""),
    ],
)  # fmt: skip
def test_what_depends_on_a_broken_document_does_not_stand_back(broken, problem, blind):
    found = desired_of({"db.yaml": broken, "web.yaml": depending("web", "db")})
    (warning,) = [p for p in found.problems if p.file == "web.yaml"]
    assert (warning.code, warning.severity.value) == ("dependency.broken", "warning")
    assert warning.message == f"{problem}: only its running containers count"
    assert [one.key.name for one in found.services] == ["web"]
    assert " ".join(map(str, found.blind_keys)) == blind


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("network: {aliases: [db]}", 'network.name-of-another: "db" is the name of Service/default/db'),
        ("hostname: DB", 'network.name-of-another: "DB" is the name of Service/default/db'),
        ("network: {mode: declared}", "network.nothing-declared: mode declared joins"),
        ("network: {mode: declared, aliases: [a], attach: [back]}", "network.nothing-implied: "),
        ("network: {mode: none, aliases: [a]}", "network.none: a container on network mode none"),
        ("network: {attach: [back, {name: back}]}", "network.duplicate: network back is listed"),
        ("resources: {memory: 8Mi, memoryReservation: 9Mi}", "memory.reservation: "),
        (
            "healthcheck: {tcp: {port: 1}, startInterval: 1s}",
            "healthcheck.start-interval: spec.healthcheck.startInterval is for exec",
        ),
        (
            "ports: [{container: 80-82, host: 90-92}, {container: 81, host: 91}]",
            "port.duplicate: port 81/tcp is listed twice",
        ),
        ("ports: [{container: 80-82, host: 90}]", "field.value: spec.ports[0] has ranges of two"),
        ("ports: [{container: 82-80}]", "field.value: spec.ports[0].container ends before its first"),
        ('ports: [{container: "80"}]', "field.type: spec.ports[0].container is a string"),
        ("ulimits: {files: 5}", "field.value: "),
        ("ulimits: {nofile: {soft: 5, hard: 4}}", "field.value: spec.ulimits.nofile has a soft limit"),
        ("extraHosts: {db: nowhere}", "field.value: spec.extraHosts.db is not valid"),
        ("extraHosts: {db: '10.0.0.5,'}", "field.value: spec.extraHosts.db is not valid"),
        ("extraHosts: {db: '10.0.0.5,10.0.0.5'}", "field.value: spec.extraHosts.db is not valid"),
        (
            f"extraHosts: {{db: '{','.join(f'10.0.0.{n}' for n in range(9))}'}}",
            "field.value: spec.extraHosts.db is not valid",
        ),
        ("hostname: a b", "field.value: spec.hostname is not valid"),
        ("oomScoreAdj: -1001", "field.value: spec.oomScoreAdj is too small"),
        ("resources: {cpuset: 0-}", "field.value: spec.resources.cpuset is not valid"),
    ],
)  # fmt: skip
def test_a_new_field_that_cannot_work_is_a_problem(spec, problem):
    others = (
        "---\napiVersion: trimtab/v1\nkind: Service\nmetadata: {name: db, owner: team}\n"
        "spec: {image: 'a/b:1'}\n---\napiVersion: trimtab/v1\nkind: Network\n"
        "metadata: {name: back, owner: team}\n"
    )
    found = problem_lines(service(spec) + others)
    assert any(f" {problem}" in line for line in found), found


def test_two_services_of_one_range_of_host_ports_conflict():
    one, two = (
        service("ports: [{container: 80-82, host: 90-92}]"),
        service("ports: [{container: 1, host: 91}]"),
    )
    found = problem_lines(one + "---\n" + two.replace("name: web", "name: other"))
    assert [line.split(": ")[1] for line in found][:2] == [
        "host port 91/tcp on 127.0.0.1 is also claimed by Service/default/other (f.yaml:6)",
        "host port 91/tcp on 127.0.0.1 is also claimed by Service/default/web (f.yaml:1)",
    ]


def test_an_order_at_boot_for_what_is_never_started_again_is_a_problem() -> None:
    text = (
        "apiVersion: trimtab/v1\nkind: Service\nmetadata: {name: web, owner: team}\n"
        "spec: {image: 'a/b:1', restart: {policy: Never, boot: Ordered}}\n"
    )
    (problem,) = desired_of({"f.yaml": text}).problems
    assert (problem.code, problem.line, problem.column) == ("restart.boot", 4, 55)
    assert problem.remedy == "write policy: Always or OnFailure, or leave boot out"
