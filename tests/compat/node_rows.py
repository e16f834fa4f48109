"""Rows of dockerode and Testcontainers for Node: expressions that ``clients/node.js`` evaluates."""

from __future__ import annotations

from tests.compat.row import Row, refused, works

DOCKERODE = "dockerode"
TESTCONTAINERS = "Testcontainers for Node"
NODE = (
    *works(
        DOCKERODE,
        ("(await docker.version()).ApiVersion", r"^1\.45$"),
        ("(await docker.info()).Swarm.NodeID === ''", "^true$"),
        (
            (
                "(await docker.createContainer({Image: IMAGE, name: free(), Env: ['A=1'],"
                " Cmd: ['sh', '-c', 'a\\nb'], HostConfig: {Memory: 67108864}})).id"
            ),
            "^[0-9a-f]{64}$",
        ),
        ("(await (await created({Env: ['A=1']})).inspect()).Config.Env", '"A=1"'),
        (
            "(await docker.run(IMAGE, ['echo', 'hello'], sink()))[0].StatusCode",
            "^0$",
        ),
        (
            (
                "await created().then(async (c) => [await c.start({}), await c.resize({h: 20, w: 80}),"
                " await c.rename({name: free()}), await c.pause(), await c.unpause(),"
                " await c.stop({t: 1}), await c.restart({t: 1}), await c.kill({signal: 'KILL'}),"
                " (await c.wait({condition: 'not-running'})).StatusCode, await c.remove({v: true})][8])"
            ),
            "^137$",
        ),
        ("await created().then((c) => c.update({Memory: 67108864}))", "Warnings"),
        (
            (
                "await created({Cmd: ['cat'], OpenStdin: true, StdinOnce: true, Tty: true}).then("
                "async (c) => { const s = await c.attach({stream: true, hijack: true, stdin: true,"
                " stdout: true}); await c.start(); s.write('line\\n'); return read(s, 'line'); })"
            ),
            "^line",
        ),
        (
            (
                "await created().then(async (c) => { await c.start();"
                " return read(await c.logs({follow: true, stdout: true}), 'piece 1'); })"
            ),
            "worker did piece 1",
        ),
        ("(await docker.listContainers({all: true, filters: {label: ['a']}})).length", "^[0-9]+$"),
        ("(await docker.listImages())[0].Id", "^sha256:"),
        ("(await pulled(await docker.pull(REMOTE))).length", "^[0-9]+$"),
        (
            (
                "await docker.createNetwork({Name: free(), Driver: 'bridge', CheckDuplicate: true})"
                ".then(async (n) => { const c = await created(); await n.connect({Container: c.id});"
                " await n.disconnect({Container: c.id}); return n.remove().then(() => 'removed'); })"
            ),
            "^removed$",
        ),
        (
            (
                "await docker.createVolume({Name: free(), Labels: {a: 'b'}})"
                ".then((v) => v.remove({force: true})).then(() => 'removed')"
            ),
            "^removed$",
        ),
        ("await read(await docker.getEvents({since: 1}), 'Type')", "container|network|volume"),
    ),
    Row(
        DOCKERODE,
        "await created().then(async (c) => { await c.start(); const e = await c.exec({Cmd: ['echo',"
        " 'hello'], AttachStdout: true}); return read(await e.start({hijack: true, stdin: true})); })",
        "hello",
        role="operator",
    ),
    *refused(
        DOCKERODE,
        (
            "await docker.createContainer({Image: IMAGE, HostConfig: {Privileged: true}})",
            "privileged",
            "ask for",
        ),
        (
            "await docker.checkAuth({username: 'a', password: 'b'})",
            "route.denied",
            "/etc/trimtab/registry.json",
        ),
    ),
    *works(
        TESTCONTAINERS,
        (
            (
                "await new GenericContainer(IMAGE).withEnvironment({A: '1'})"
                ".withWaitStrategy(Wait.forLogMessage('piece 1')).start().then((c) => c.stop()).then(() => 'ran')"
            ),
            "^ran$",
        ),
        (
            (
                "await new GenericContainer(SERVED).withExposedPorts(8080)"
                ".withWaitStrategy(Wait.forLogMessage('serves')).start().then((c) => c.getMappedPort(8080))"
            ),
            "^[0-9]+$",
        ),
        (
            "await new Network({nextUuid: free}).start().then((n) => n.stop()).then(() => 'stopped')",
            "^stopped$",
        ),
    ),
    Row(
        TESTCONTAINERS,
        "await new GenericContainer(IMAGE).start().then((c) => c.exec(['echo', 'hello']))",
        "hello",
        role="operator",
    ),
    *refused(
        TESTCONTAINERS,
        ("await new Network().start()", "name.like-an-id", "choose another name"),
        (
            (
                "await new GenericContainer(IMAGE).withCopyContentToContainer([{content: 'x',"
                " target: '/tmp/x'}]).start()"
            ),
            "route.denied",
            "mount a volume instead",
        ),
    ),
)
