"""The grammar of bodies, without a policy."""

from dataclasses import replace

import pytest

from controller.core.engine_api.field_tables import CONFIG, HOST_CONFIG, UPDATE
from controller.core.engine_api.parse import (
    parse_connect,
    parse_create,
    parse_disconnect,
    parse_exec,
    parse_network,
    parse_update,
    parse_volume,
)
from controller.core.engine_api.requests import (
    CreateRequest,
    EndpointRequest,
    Finding,
    HealthcheckRequest,
    LogConfig,
    MountRequest,
    NetworkRequest,
    PortRequest,
    ResourceLimits,
    RestartRequest,
    Ulimit,
    UpdateRequest,
    VolumeRequest,
)


def check(body, **expected):
    """Parse a valid create and compare the whole request."""
    assert parse_create({"Image": "x", **body}) == CreateRequest(image="x", **expected)


def check_host(body, **expected):
    check({"HostConfig": body}, **expected)


def refused(body):
    """Return the rules and places of a create's findings."""
    findings = parse_create({"Image": "x", **body}).findings
    return [(found.rule, found.path) for found in findings]


def rules(findings):
    """Return the rules of another request's findings."""
    return [found.rule for found in findings]


def refused_host(body):
    return [
        (rule, path.removeprefix("HostConfig.")) for rule, path in refused({"HostConfig": body})
    ]


def test_what_clients_send_for_unset_is_unset():
    zeros = {
        entry.name: value
        for entry in (*CONFIG, *HOST_CONFIG)
        for value in [_zero(entry.read)]
        if not entry.keep_zero and entry.name != "Image"
    }
    config = {entry.name for entry in CONFIG}
    check(
        {
            **{name: value for name, value in zeros.items() if name in config},
            "HostConfig": {name: value for name, value in zeros.items() if name not in config},
        }
    )


def _zero(read):
    zeros: tuple[object, ...] = ("", 0, False, [], {})
    for value in zeros:
        try:
            read(value)
        except ValueError:
            continue
        return value
    raise AssertionError("a type without a zero")


def test_null_is_unset_for_every_field():
    config = {entry.name: None for entry in CONFIG if entry.name != "Image"}
    check({**config, "HostConfig": {entry.name: None for entry in HOST_CONFIG}})


def test_zeros_with_a_meaning_are_kept():
    check({"StopTimeout": 0}, stop_timeout=0)
    check_host({"Init": False}, init=False)
    check_host({"MemorySwappiness": 0}, limits=ResourceLimits(memory_swappiness=0))
    # -1 means unset in the docker command.
    check_host({"MemorySwappiness": -1})


def test_unknown_and_empty_is_dropped_unknown_and_set_is_refused():
    check({"Later": None, "Older": {}, "HostConfig": {"Later": [], "Older": 0, "Other": ""}})
    # docker-py sends this one.
    check({"NetworkingConfig": {"bridge": None}})
    assert refused({"Later": 1, "HostConfig": {"Other": [""]}}) == [
        ("body.unknown", "Later"),
        ("body.unknown", "HostConfig.Other"),
    ]


@pytest.mark.parametrize(
    "key",
    ["hostconfig", "HOSTCONFIG", "hostConfig", "HoſtConfig", "Hostconfig", "\uff28ostConfig"],
)
@pytest.mark.parametrize("value", [None, {}, {"Privileged": True}])
def test_a_known_key_in_another_spelling_is_refused_even_when_empty(key, value):
    assert parse_create({"Image": "x", key: value}).findings == (
        Finding("body.key", key, "a known key in another spelling", "write HostConfig"),
    )


def test_a_runtime_beside_host_config_is_the_runtime():
    # docker-py writes it there.
    check({"Runtime": "runc", "HostConfig": {}}, runtime="runc")
    check({"Runtime": "runc", "HostConfig": {"Runtime": "runc"}}, runtime="runc")
    two = {"Runtime": "runc", "HostConfig": {"Runtime": "kata"}}
    assert refused(two) == [("body.legacy", "Runtime")]


def test_docker_py_s_spellings_are_taken():
    keys = parse_exec({"Cmd": ["ls"], "detachKeys": "ctrl-p,ctrl-q"})
    assert (keys.detach_keys, keys.findings) == ("ctrl-p,ctrl-q", ())
    assert rules(parse_exec({"Cmd": ["ls"], "detachkeys": "x"}).findings) == ["body.key"]
    assert refused_host({"CPURealtimePeriod": 1000, "CPURealtimeRuntime": 1000}) == [
        ("resources.realtime", "CPURealtimePeriod"),
        ("resources.realtime", "CPURealtimeRuntime"),
    ]
    check_host({"CPURealtimePeriod": 0})


def test_spellings_are_told_in_every_object():
    assert refused_host({"NetworKMode": "host", "Bindſ": ["/:/h"]}) == [
        ("body.key", "NetworKMode"),
        ("body.key", "Bindſ"),
    ]
    assert refused_host({"Mounts": [{"type": "bind", "Target": "/x"}]}) == [
        ("body.key", "Mounts[0].type"),
        ("mount.type", "Mounts[0].Type"),
    ]


def test_fields_of_hostconfig_at_the_top_are_refused_when_set():
    check({entry.name: None for entry in HOST_CONFIG})
    assert refused({"Privileged": True, "Binds": ["/:/h"], "Memory": 0, "Cpuset": "0"}) == [
        ("body.legacy", "Privileged"),
        ("body.legacy", "Binds"),
        ("body.legacy", "Cpuset"),
    ]


@pytest.mark.parametrize("body", [[], [{"Image": "x"}], "x", 1, True])
def test_a_body_is_an_object(body):
    assert rules(parse_create(body).findings) == ["body.type"]


def test_a_create_without_a_body_is_none():
    assert rules(parse_create(None).findings) == ["body.missing"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Memory", True),
        ("Memory", "1"),
        ("Memory", 1.0),
        ("Memory", 2**63),
        ("Binds", {"0": "/:/h"}),
        ("Binds", "/:/h"),
        ("Binds", [1]),
        ("Init", "yes"),
        ("Init", 1),
        ("NetworkMode", 0),
        ("NetworkMode", "host\n"),
        ("PortBindings", []),
        ("Tmpfs", {"/x": 1}),
        ("CapAdd", 1),
        ("RestartPolicy", []),
        ("LogConfig", "none"),
    ],
)
def test_types_are_exact(key, value):
    assert [rule for rule, _ in refused_host({key: value})] == ["body.type"]


def test_every_field_that_nobody_may_set_is_refused_when_set():
    samples = ("x", 1, True, ["x"], {"x": "y"})
    denied = [entry for entry in HOST_CONFIG if entry.posture == "deny"]
    assert denied
    for entry in denied:
        value = next(sample for sample in samples if _reads(entry.read, sample))
        assert (entry.rule, entry.name) in refused_host({entry.name: value})


def _reads(read, value):
    try:
        read(value)
    except ValueError:
        return False
    return True


def test_masked_paths_are_refused_even_when_empty():
    assert refused_host({"MaskedPaths": [], "ReadonlyPaths": []}) == [
        ("masked-paths", "MaskedPaths"),
        ("masked-paths", "ReadonlyPaths"),
    ]


def test_scalars_become_lists_of_one():
    check({"Entrypoint": "/bin/sh", "Cmd": "x"}, entrypoint=("/bin/sh",), command=("x",))
    # An entrypoint of one empty text resets the image's entrypoint: it is not unset.
    check({"Entrypoint": [""]}, entrypoint=("",))


def test_what_a_container_is_and_runs():
    check(
        {
            "Hostname": "a.b-c",
            "Domainname": "example.org",
            "User": "1000:1000",
            "Tty": True,
            "ExposedPorts": {"80": {}, "53/udp": {}, "8000-8010/tcp": {}},
            "Env": ["A=b=c", "B="],
            "WorkingDir": "/app",
            "Labels": {"b": "2", "a": "1"},
            "StopSignal": "SIGRTMIN+3",
            "StopTimeout": 300,
            "Volumes": {"/data": {}},
            "Healthcheck": {"Test": ["CMD", "/x"], "Interval": 10**9, "Retries": 3},
        },
        hostname="a.b-c",
        domainname="example.org",
        user="1000:1000",
        tty=True,
        exposed_ports=("53/udp", "80/tcp", "8000-8010/tcp"),
        env=("A=b=c", "B="),
        working_dir="/app",
        labels=(("a", "1"), ("b", "2")),
        stop_signal="SIGRTMIN+3",
        stop_timeout=300,
        volumes=("/data",),
        healthcheck=HealthcheckRequest(("CMD", "/x"), interval_ns=10**9, retries=3),
    )


def test_what_a_container_may_use():
    check_host(
        {
            "Memory": 1,
            "MemorySwap": 2,
            "MemoryReservation": 3,
            "NanoCpus": 4,
            "CpuQuota": 5,
            "CpuPeriod": 6,
            "CpuShares": 7,
            "PidsLimit": 8,
            "ShmSize": 9,
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "StorageOpt": {"size": "1G"},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
            "ConsoleSize": [24, 80],
        },
        limits=ResourceLimits(
            memory=1,
            memory_swap=2,
            memory_reservation=3,
            nano_cpus=4,
            cpu_quota=5,
            cpu_period=6,
            cpu_shares=7,
            pids=8,
        ),
        shm_size=9,
        ulimits=(Ulimit("nofile", 1, 2),),
        storage=(("size", "1G"),),
        restart=RestartRequest("on-failure", 3),
        log=LogConfig("local", (("max-size", "1m"),)),
        console_size=(24, 80),
    )


def test_ports_and_networks():
    check(
        {
            "HostConfig": {
                "NetworkMode": "net",
                "PortBindings": {
                    "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
                    "53/udp": [{}],
                    "9/tcp": None,
                },
            },
            "NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["web"]}, "b": None}},
        },
        network_mode="net",
        ports=(
            PortRequest(53, "udp"),
            PortRequest(80, "tcp"),
            PortRequest(80, "tcp", 8080, "127.0.0.1"),
        ),
        endpoints=(EndpointRequest("net", ("web",)), EndpointRequest("b")),
    )


def test_the_three_ways_to_mount():
    check_host(
        {
            "Binds": ["/tmp/a:/a:ro", "data:/b", "/tmp/c:/c:rw"],
            "Mounts": [
                {"Type": "bind", "Source": "/tmp/d", "Target": "/d", "ReadOnly": True},
                {
                    "Type": "volume",
                    "Source": "data",
                    "Target": "/e",
                    "VolumeOptions": {
                        "NoCopy": True,
                        "Subpath": "a/b",
                        "Labels": {"a": "b"},
                        "DriverConfig": {"Name": "local"},
                    },
                },
                {
                    "Type": "tmpfs",
                    "Target": "/f",
                    "Consistency": "default",
                    "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o700},
                },
            ],
            "Tmpfs": {"/run": "rw,noexec,size=64m,mode=1777", "/g": ""},
        },
        mounts=(
            MountRequest("bind", "/tmp/a", "/a", True, "binds", "HostConfig.Binds[0]", access="ro"),
            MountRequest("volume", "data", "/b", False, "binds", "HostConfig.Binds[1]"),
            MountRequest(
                "bind", "/tmp/c", "/c", False, "binds", "HostConfig.Binds[2]", access="rw"
            ),
            MountRequest("bind", "/tmp/d", "/d", True, "mounts", "HostConfig.Mounts[0]"),
            replace(
                MountRequest("volume", "data", "/e", False, "mounts", "HostConfig.Mounts[1]"),
                no_copy=True,
                subpath="a/b",
                driver="local",
            ),
            MountRequest(
                "tmpfs", "", "/f", False, "mounts", "HostConfig.Mounts[2]", size=1024, mode=0o700
            ),
            MountRequest(
                "tmpfs",
                "",
                "/run",
                False,
                "tmpfs",
                "HostConfig.Tmpfs./run",
                size=64 * 1024**2,
                mode=0o1777,
            ),
            MountRequest("tmpfs", "", "/g", False, "tmpfs", "HostConfig.Tmpfs./g"),
        ),
    )


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"Hostname": "a b"}, "host.name"),
        ({"Hostname": "a\nb"}, "body.type"),
        ({"Hostname": "a" * 64}, "host.name"),
        ({"Domainname": "a..b"}, "host.name"),
        ({"User": "+0"}, "user.invalid"),
        ({"User": ":0"}, "user.invalid"),
        ({"User": "a:b:c"}, "user.invalid"),
        ({"ExposedPorts": {"99999/tcp": {}}}, "port.invalid"),
        ({"ExposedPorts": {"80/icmp": {}}}, "port.invalid"),
        ({"ExposedPorts": {"20-10/tcp": {}}}, "port.invalid"),
        ({"ExposedPorts": {"\u0661/tcp": {}}}, "port.invalid"),
        ({"ExposedPorts": {"80/tcp": {"a": 1}}}, "port.invalid"),
        ({"ExposedPorts": {f"{n}/tcp": {} for n in range(1, 66)}}, "port.count"),
        ({"Env": [""]}, "env.invalid"),
        ({"Env": ["pass word"]}, "env.invalid"),
        ({"Env": ["s3cret!"]}, "env.invalid"),
        ({"Env": ["=b"]}, "env.invalid"),
        ({"Env": ["A B=c"]}, "env.invalid"),
        ({"Env": ["A=b\0c"]}, "body.type"),
        ({"Env": ["A=\ud800"]}, "body.type"),
        ({"WorkingDir": "app"}, "workdir.invalid"),
        ({"WorkingDir": "/app/../x"}, "workdir.invalid"),
        ({"WorkingDir": "/proc/self/fd/8"}, "workdir.forbidden"),
        ({"WorkingDir": "/sys"}, "workdir.forbidden"),
        ({"StopSignal": "SIGBOGUS"}, "signal.invalid"),
        ({"StopSignal": "65"}, "signal.invalid"),
        ({"StopTimeout": -1}, "stop.timeout"),
        ({"StopTimeout": 301}, "stop.timeout"),
        ({"MacAddress": "02:42:ac:11:00:02"}, "network.address"),
        ({"OnBuild": ["RUN x"]}, "body.build"),
        ({"Volumes": {"/etc:/e": {}}}, "mount.target"),
        ({"Volumes": {"data": {}}}, "mount.target"),
        ({"Healthcheck": {"Test": ["RUN", "x"]}}, "healthcheck.invalid"),
        ({"Healthcheck": {"Test": ["CMD"]}}, "healthcheck.invalid"),
        ({"Healthcheck": {"Test": ["NONE", "x"]}}, "healthcheck.invalid"),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a", "b"]}}, "healthcheck.invalid"),
        ({"Healthcheck": {"Retires": 3}}, "body.unknown"),
    ],
)
def test_grammar_of_a_container(body, rule):
    assert [found for found, _ in refused(body)] == [rule]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"PortBindings": {"80/tcp": [{"HostPort": "1-65536"}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "080"}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "65536"}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": [{"HostPort": 80}]}}, "body.type"),
        ({"PortBindings": {"80-90/tcp": [{"HostPort": "80"}]}}, "port.invalid"),
        ({"PortBindings": {"0/tcp": [{}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": {}}}, "body.type"),
        ({"Binds": ["tmp/a"]}, "mount.invalid"),
        ({"Binds": ["/tmp/a:/b:ro:x"]}, "mount.invalid"),
        ({"Binds": ["c:\\x:/e"]}, "mount.options"),
        ({"Binds": ["/tmp/a:/b:Z"]}, "mount.options"),
        ({"Binds": ["/tmp/a:/b:ro,z"]}, "mount.options"),
        ({"Binds": ["/tmp/a:/b:ro,rw"]}, "mount.options"),
        ({"Binds": ["/tmp/a:/b:"]}, "mount.options"),
        ({"Binds": ["/tmp/a:/b:rshared"]}, "mount.options"),
        ({"Binds": [":/b"]}, "mount.invalid"),
        ({"Binds": ["b"]}, "mount.invalid"),
        ({"Binds": ["/tmp/../etc:/b"]}, "mount.source"),
        ({"Binds": ["//etc:/b"]}, "mount.source"),
        ({"Binds": ["/tmp/a/:/b"]}, "mount.source"),
        ({"Binds": ["/tmp/./a:/b"]}, "mount.source"),
        ({"Binds": ["/tmp/e\u0301:/b"]}, "mount.source"),
        ({"Binds": ["../etc:/b"]}, "mount.source"),
        ({"Binds": ["/tmp/a\u202eb:/b"]}, "body.type"),
        ({"Binds": ["/tmp/a:b"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/e/../../proc"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/proc"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/sys/fs/cgroup"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/dev/shm"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/lib/x"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/usr"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/usr/bin"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc/ssl"]}, "mount.target"),
        ({"Binds": ["data:/etc/shadow:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc/ld.so.preload:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc/cron.d:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc/sudoers.d/x:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/etc/pam.d:ro"]}, "mount.target"),
        ({"Binds": ["/tmp/a:/b", "/tmp/c:/b"]}, "mount.duplicate"),
        ({"Mounts": [{"Type": "BIND", "Target": "/b"}]}, "mount.type"),
        ({"Mounts": [{"Type": "image", "Source": "x", "Target": "/b"}]}, "mount.type"),
        ({"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/b"}]}, "mount.source"),
        ({"Mounts": [_bind := {"Type": "bind", "Source": "/tmp/a"}]}, "mount.target"),
        (
            {"Mounts": [{**_bind, "Target": "/b", "BindOptions": {"Propagation": "rshared"}}]},
            "mount.propagation",
        ),
        (
            {"Mounts": [{**_bind, "Target": "/b", "BindOptions": {"CreateMountpoint": True}}]},
            "mount.options",
        ),
        (
            {"Mounts": [{**_bind, "Target": "/b", "TmpfsOptions": {"SizeBytes": 1}}]},
            "mount.options",
        ),
        ({"Tmpfs": {"/x": "suid"}}, "mount.options"),
        ({"Tmpfs": {"/x": "size=50%"}}, "mount.options"),
        ({"Tmpfs": {"/x": "uid=0"}}, "mount.options"),
        ({"Tmpfs": {"/proc": ""}}, "mount.target"),
        ({"Tmpfs": {"/etc/ssh": ""}}, "mount.target"),
        ({"ConsoleSize": [1]}, "body.type"),
    ],
)
def test_grammar_of_mounts_and_ports(body, rule):
    assert [found for found, _ in refused_host(body)] == [rule]


@pytest.mark.parametrize(
    "config",
    [
        {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}},
        {"Options": {"type": "none", "o": "rbind", "device": "/etc"}},
        {"Name": "evilplugin"},
    ],
)
def test_a_volume_has_no_driver_of_its_own(config):
    mount = {"Type": "volume", "Source": "data", "Target": "/b"}
    found = refused_host({"Mounts": [{**mount, "VolumeOptions": {"DriverConfig": config}}]})
    assert [rule.partition(".")[0] for rule, _ in found] == ["volume"]


def test_a_read_only_folder_below_etc_may_be_bound_and_dots_in_names_are_no_traversal():
    assert refused_host({"Binds": ["/tmp/a..b:/etc/nginx", "/tmp/...:/usr/share/x"]}) == []


@pytest.mark.parametrize(
    ("endpoint", "rule"),
    [
        ({"IPAMConfig": {"IPv6Address": "fd00::9"}}, "network.address"),
        ({"IPAMConfig": {"LinkLocalIPs": ["169.254.1.1"]}}, "network.address"),
        ({"MacAddress": "02:42:00:00:00:01"}, "network.address"),
        ({"NetworkID": "x"}, "network.address"),
        ({"DNSNames": ["x"]}, "network.address"),
        ({"Links": ["a:b"]}, "network.links"),
        ({"DriverOpts": {"a": "b"}}, "network.options"),
        ({"GwPriority": 100}, "network.options"),
        ({"Aliases": ["a b"]}, "network.alias"),
        ({"Later": 1}, "body.unknown"),
    ],
)
def test_endpoints_have_names_and_nothing_else(endpoint, rule):
    networking = {"EndpointsConfig": {"net": endpoint}}
    assert [found for found, _ in refused({"NetworkingConfig": networking})] == [rule]
    request = parse_connect({"Container": "x", "EndpointConfig": endpoint}, network="net")
    assert rules(request.findings) == [rule]


def test_what_an_update_asks_for():
    assert parse_update(
        {"Memory": 1, "CpusetCpus": "", "PidsLimit": 0, "RestartPolicy": {"Name": "no"}}
    ) == UpdateRequest(limits=ResourceLimits(memory=1, pids=-1), restart=RestartRequest("no"))
    assert rules(parse_update({"memory": 1, "Devices": [{}]}).findings) == [
        "body.key",
        "update.field",
    ]
    assert rules(parse_update(None).findings) == ["body.missing"]
    assert {entry.name for entry in UPDATE} >= {"PidsLimit", "NanoCpus", "CpuShares"}


def test_what_a_network_create_asks_for():
    assert parse_network(
        {
            "Name": "n",
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": True,
            "IPAM": {"Driver": "default", "Config": [], "Options": {}},
            "EnableIPv6": False,
            "EnableIPv4": True,
            "Scope": "local",
            "ConfigFrom": None,
            "Options": {
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.name": "docker0",
            },
            "Labels": {"a": "b"},
        }
    ) == NetworkRequest(
        name="n",
        driver="bridge",
        internal=True,
        icc=False,
        options=("com.docker.network.bridge.name",),
        labels=(("a", "b"),),
    )


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"IPAM": {"Config": [{"AuxiliaryAddresses": {"a": "10.0.0.9"}}]}}, "network.address"),
        ({"IPAM": {"Config": [{"Network": "10.0.0.0/8"}]}}, "body.unknown"),
        ({"IPAM": {"Driver": "evil"}}, "network.options"),
        ({"ConfigOnly": True}, "network.kind"),
        ({"ConfigFrom": {"Network": "x"}}, "network.kind"),
        ({"Ingress": True}, "network.kind"),
        ({"Attachable": True}, "network.kind"),
        ({"Scope": "swarm"}, "network.kind"),
        ({"EnableIPv4": False}, "network.options"),
        ({"Options": {"com.docker.network.bridge.enable_icc": "no"}}, "body.type"),
        ({"internal": True}, "body.key"),
    ],
)
def test_a_network_is_a_plain_bridge(body, rule):
    assert rules(parse_network({"Name": "n", **body}).findings) == [rule]


def test_what_a_volume_create_asks_for():
    assert parse_volume({"Name": "v", "Driver": "local", "DriverOpts": {}}) == VolumeRequest(
        name="v", driver="local"
    )
    for key in ("DriverOpts", "Opts", "driveropts", "ClusterVolumeSpec"):
        assert parse_volume({"Name": "v", key: {"o": "bind"}}).findings


@pytest.mark.parametrize(
    ("options", "size", "rule"),
    [
        ({"size": "10g"}, "10g", None),
        ({"size": ""}, "", None),
        ({"size": "10g", "type": "tmpfs"}, "10g", "volume.options"),
        ({"SIZE": "10g"}, "", "volume.options"),
        ({"size": 10}, "", "body.type"),
        (["size"], "", "body.type"),
    ],
)
def test_a_volume_has_no_option_but_its_size(options, size, rule):
    request = parse_volume({"Name": "v", "DriverOpts": options})
    assert request.size == size
    assert rules(request.findings) == ([rule] if rule else [])


def test_what_connecting_asks_for():
    request = parse_connect({"Container": "c", "EndpointConfig": {"Aliases": ["w"]}}, network="n")
    assert (request.container, request.endpoint) == ("c", EndpointRequest("n", ("w",)))
    assert parse_disconnect({"Container": "c", "Force": True}, network="n").force is True


def test_an_object_whose_members_are_all_unset_is_unset():
    blank = {"IPv4Address": "", "IPv6Address": "", "LinkLocalIPs": None}
    connect = {"Container": "c", "EndpointConfig": {"IPAMConfig": blank}}
    assert parse_connect(connect, network="n").findings == ()
    assert parse_network({"Name": "n", "ConfigFrom": {"Network": ""}}).findings == ()
    chosen = {"IPAMConfig": {**blank, "IPv4Address": "10.0.0.9"}}
    asked = parse_connect({"Container": "c", "EndpointConfig": chosen}, network="n")
    assert (asked.findings, asked.endpoint.asked) == ((), "10.0.0.9")
    refused = parse_connect({"Container": "c", "EndpointConfig": {"IPAMConfig": [0]}}, network="n")
    assert rules(refused.findings) == ["body.type"]
    # Names given by a user are not fields: their empty values have a meaning.
    options = {"Container": "c", "EndpointConfig": {"DriverOpts": {"a": ""}}}
    assert parse_connect(options, network="n").findings != ()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("moby/buildkit:buildx-stable-1", True),
        ("docker.io/moby/buildkit", True),
        ("ghcr.io/moby/buildkit:1", False),
        ("moby/buildkit2", False),
    ],
)
def test_the_builder_of_buildx_is_refused_with_another_way_to_build(image: str, told: bool) -> None:
    body = {"Image": image, "HostConfig": {"Privileged": True, "PidMode": "host"}}
    findings = {each.rule: each for each in parse_create(body).findings}
    assert ("DOCKER_BUILDKIT=0" in findings["privileged"].remedy) is told
    assert "DOCKER_BUILDKIT=0" not in findings["namespace.pid"].remedy
