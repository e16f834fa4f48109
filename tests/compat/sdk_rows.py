"""Rows of docker-py and Testcontainers: expressions that ``sdk.py`` evaluates."""

from __future__ import annotations

from tests.compat.row import Row, refused, works

PY = "docker-py"
SDK = (
    *works(
        PY,
        ("client.ping()", "^True$"),
        ("client.version()['ApiVersion']", r"1\.45"),
        ("client.info()['Name']", "trimtab"),
        (
            "client.info()['ContainersRunning'] >= 0, client.info()['ExperimentalBuild']",
            "True, False",
        ),
        ("client.api.images(quiet=True)[0]", "^'sha256:"),
        ("client.api.containers(trunc=True)", r"^\["),
        ("client.containers.run(IMAGE, ['echo', 'x'], environment={'MAYBE': None})", "x"),
        ("client.api.create_container(IMAGE, runtime='runc')['Id']", "[0-9a-f]{64}"),
        ("client.containers.run(IMAGE, ['echo', 'hello'], remove=True)", r"b'hello\\n'"),
        ("client.containers.run(IMAGE, detach=True, mem_limit='64m')", "^<Container: "),
        ("client.containers.run(IMAGE, ['ls', '-d', '/d'], volumes=[f'{volume}:/d'])", "/d"),
        ("client.containers.create(IMAGE).start()", "^None$"),
        ("client.containers.list(all=True, filters={'name': shown.name})", "^.<Container: "),
        ("client.containers.get(shown.id).image", r"trimtab\.local/worker:1"),
        ("shown.logs(tail=1)", "worker did piece"),
        ("next(shown.logs(stream=True, follow=True))", "worker did piece"),
        ("next(shown.stats(decode=True))['id'] == shown.id", "^True$"),
        ("shown.stats(stream=False)['id'] == shown.id", "^True$"),
        ("next(shown.attach(stream=True, logs=True))", "worker did piece"),
        ("shown.top()['Titles'][0]", "UID"),
        ("shown.diff()", "^None$"),
        ("container.rename(free)", "^None$"),
        ("container.update(mem_limit='64m', memswap_limit='64m')", "Warnings"),
        ("container.pause(), container.unpause()", r"\(None, None\)"),
        ("container.restart(timeout=2)", "^None$"),
        ("container.kill(), container.wait()['StatusCode']", r"\(None, 137\)"),
        ("container.stop(timeout=2), container.remove(v=True)", r"\(None, None\)"),
        ("client.networks.create(free, driver='bridge')", "^<Network: "),
        ("client.networks.list(names=[network.name], greedy=True)", "^.<Network: "),
        ("network.connect(container), network.disconnect(container)", r"\(None, None\)"),
        ("network.remove()", "^None$"),
        ("client.volumes.create(free, labels={'a': 'b'})", "^<Volume: "),
        ("client.volumes.list(filters={'name': volume})", "^.<Volume: "),
        ("client.volumes.get(volume).remove()", "^None$"),
        (
            "client.containers.prune(filters={'label': ['prune=py']})",
            r"'ContainersDeleted': None, 'SpaceReclaimed': 0",
        ),
        ("client.images.get(IMAGE)", r"trimtab\.local/worker:1"),
        ("client.images.list()", r"trimtab\.local/worker:1"),
        ("client.images.pull(*REMOTE)", "^<Image: "),
        ("list(client.api.pull(*REMOTE, stream=True, decode=True))[-1]", "Status: "),
        ("client.images.get_registry_data(':'.join(REMOTE)).id", "sha256:[0-9a-f]{64}"),
        ("next(client.events(since=1, decode=True))['Type']", "container|network|volume"),
        ("client.swarm.leave(force=True)", "^True$"),
        ("error_of(client.nodes.list)", "503 .*not a swarm manager"),
        (
            "client.containers.create(IMAGE, environment={'A': '1'}).attrs['Config']['Env']",
            "'A=1', 'PATH=/bin'",
        ),
    ),
    Row(PY, "shown.exec_run(['ls', '/bin/work']).output", r"b'/bin/work\\n'", role="operator"),
    Row(
        PY,
        "shown.exec_run('cat', stdin=True, tty=True, socket=True).output",
        "Socket",
        role="operator",
    ),
    Row(PY, "client.df()['LayersSize'] >= 0", "^True$", role="operator"),
    *(
        Row(
            PY,
            f"client.images.build(path='built', tag=f'trimtab.local/{{free}}:1'{more})[0]",
            r"trimtab\.local/",
            role="operator",
        )
        for more in ("", ", gzip=True")
    ),
    *refused(
        PY,
        (
            (
                "client.images.build(path='built', tag=f'trimtab.local/{free}:1',"
                " extra_hosts={'a': '192.0.2.1', 'b': '192.0.2.2'})"
            ),
            "query.repeated",
            "send each parameter once",
        ),
        role="operator",
    ),
    *refused(
        PY,
        ("shown.exec_run('ls')", "exec.client", "let an operator run it"),
        ("shown.put_archive('/', b'')", "route.denied", "mount a volume instead"),
        ("shown.get_archive('/bin')", "route.denied", "mount a volume instead"),
        ("shown.top(ps_args='auxe')", "query.invalid", "correct it"),
        ("shown.commit('x')", "route.denied", "build images from a Dockerfile"),
        ("network.connect(shown, aliases=['other'])", "network.alias", "use its name"),
        ("client.containers.run(IMAGE, privileged=True)", "privileged", "ask for the capability"),
        ("client.images.load(b'')", "route.denied", "pull images by reference"),
        ("client.images.get(IMAGE).tag('x')", "role.denied", "it is for operator"),
        (
            "client.login('a', 'b', registry=REGISTRY)",
            "route.denied",
            "/etc/trimtab/registry.json",
        ),
        ("client.df()", "role.denied", "it is for operator"),
    ),
)
TESTCONTAINERS = works(
    "Testcontainers",
    ("logs_after(DockerContainer(IMAGE), 'piece 1')", "worker did piece 1"),
    ("logs_after(DockerContainer(SERVED).with_exposed_ports(8080), 'serves')", "web 1 serves"),
)

AIODOCKER = "aiodocker"
AIO = (
    *works(
        AIODOCKER,
        ("(await aio.version())['ApiVersion']", r"1\.45"),
        ("(await aio.containers.run({'Image': IMAGE})).id", "[0-9a-f]{64}"),
        (
            (
                "(await (await aio.containers.create({'Image': IMAGE, 'Env': ['A=1']}, name=free))"
                ".show())['Config']['Env']"
            ),
            "'A=1'",
        ),
        ("await aio.containers.container(container.id).restart(timeout=1)", "None"),
        ("await aio.containers.container(container.id).stop(timeout=1)", "None"),
        ("await aio.containers.container(container.id).kill(signal='KILL')", "None"),
        ("await (await aio.containers.get(shown.id)).log(stdout=True, tail=1)", "did piece"),
        (
            (
                "await typed(await aio.containers.create({'Image': IMAGE, 'Cmd': ['cat'],"
                " 'OpenStdin': True, 'StdinOnce': True, 'AttachStdin': True}), b'line')"
            ),
            "b'line'",
        ),
        (
            "(await event_of(aio, aio.volumes.create({'Name': free})))['Type']",
            "container|network|volume",
        ),
        (
            "await (await aio.networks.create({'Name': free, 'CheckDuplicate': True})).delete()",
            "True",
        ),
        ("await (await aio.volumes.get(volume)).delete()", "None|True"),
        ("(await aio.images.pull(':'.join(REMOTE)))[-1]['status']", "Status: "),
        ("len(await aio.containers.list(all=True, filters={'label': ['a']}))", "^[0-9]+$"),
    ),
    *refused(
        AIODOCKER,
        (
            "await aio.containers.create({'Image': IMAGE, 'HostConfig': {'Privileged': True}})",
            "privileged",
            "ask for",
        ),
        (
            "await aio.containers.container(shown.id).commit()",
            "route.denied",
            "build images from a Dockerfile",
        ),
    ),
)
