"""A signed repository with many declared members, and a policy that grants all of them.

The policy grants more than the documents ask for. So signed admission alone stands between a usurped
controller and most of the forged acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.broker.gate.commands import ProofRefused, ProofVerified, VerifyProof
from controller.core.proofs.proven_commit import SignerFiles
from controller.model.policy.document import Policy
from tests.unit.broker.signed.instance import Instance
from tests.unit.broker.signed.opened import armored
from tests.unit.core.proofs.repository import Key, signer_files

#: The key of the source ``lab``.
BOB = Key(3)
RICH = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: team, labels: {tier: front}}
spec:
  image: trimtab.local/web:1
  entrypoint: [/bin/serve]
  command: [--listen, "8080"]
  env: {MODE: plain, LEVEL: "3", REGION: north, PASSWORD: {secret: db, key: password}}
  user: "1000:1000"
  groupAdd: ["2000"]
  workingDir: /srv
  hostname: front
  domainname: example.org
  extraHosts: {peer: 10.1.2.3}
  dns: {servers: [10.0.0.53], search: [example.org], options: [ndots:2]}
  init: true
  stopSignal: SIGTERM
  stopGracePeriod: 20s
  oomScoreAdj: 100
  sysctls: {net.core.somaxconn: "1024"}
  ulimits: {nofile: {soft: 1024, hard: 2048}}
  ports: [{container: 8080, host: 18080}, {container: 9090}]
  resources: {memory: 64Mi, cpus: 0.5, pids: 64, shm: 16Mi, cpuShares: 512}
  security: {capAdd: [CHOWN]}
  healthcheck: {exec: [/bin/check, --fast], interval: 5s, timeout: 2s, retries: 3, startPeriod: 10s}
  lifecycle:
    postStart: [{exec: [/bin/warm, --all], env: {STEP: one}, timeout: 5s}]
    preStop: [{exec: [/bin/drain], timeout: 5s}]
  network: {attach: [{name: back, aliases: [site]}]}
  containerLabels: {com.example.team: shop, com.example.tier: front}
  logs: {maxSize: 10Mi, maxFiles: 3}
  mounts:
    - {type: volume, source: data, target: /data}
    - {type: volume, source: cache, target: /cache, readOnly: true}
    - {type: tmpfs, target: /scratch, size: 1Mi}
    - {type: config, source: site, target: /etc/site, uid: 1000, mode: "0440"}
    - {type: secret, source: db, target: /run/db, uid: 1000, gid: 1000, mode: "0400"}
    - {type: secret, source: tls, target: /run/tls, keys: [key], onChange: {signal: SIGHUP}}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: pool, namespace: shop, owner: team}
spec:
  image: trimtab.local/db:1
  replicas: 3
  env: {ROLE: worker}
  mounts:
    - {type: config, source: site, target: /etc/site, keys: [index.html]}
    - {type: secret, source: host, target: /run/host}
    - {type: secret, source: made, target: /run/token, key: token}
  network: {attach: [{name: back}]}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: plain, namespace: shop, owner: team}
spec: {image: "trimtab.local/web:2", network: {mode: none}}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: once, namespace: shop, owner: team}
spec:
  image: trimtab.local/job:1
  command: [/bin/serve, migrate]
  env: {STEP: all}
  trigger: OnChange
  network: {mode: none}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: nightly, namespace: shop, owner: team}
spec: {image: "trimtab.local/job:1", schedule: "0 4 * * *", network: {mode: none}}
---
apiVersion: trimtab/v1
kind: Network
metadata: {name: back, namespace: shop, owner: team}
spec: {}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: data, namespace: shop, owner: team}
spec: {}
---
apiVersion: trimtab/v1
kind: Volume
metadata: {name: cache, namespace: shop, owner: team}
spec: {}
---
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, namespace: shop, owner: team}
spec: {data: {index.html: hello, style.css: plain}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: db, namespace: shop, owner: team}
spec: {age: {password: PASSWORD}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: tls, namespace: shop, owner: team}
spec: {age: {key: KEY, cert: CERT}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: other, namespace: shop, owner: team}
spec: {age: {password: OTHER}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: host, namespace: shop, owner: team}
spec: {file: {pw: pw}}
---
apiVersion: trimtab/v1
kind: Secret
metadata: {name: made, namespace: shop, owner: team}
spec: {generate: {token: {length: 24}}}
"""
#: The ciphertexts of the Secrets.
CIPHERTEXTS = {
    "PASSWORD}": armored(b"first"),
    "KEY,": armored(b"a key"),
    "CERT}": armored(b"a certificate"),
    "OTHER}": armored(b"other"),
}
for _name, _text in CIPHERTEXTS.items():
    RICH = RICH.replace(f": {_name}", f": {_text}{_name[-1]}")
LAB = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: lab, owner: team}
spec: {image: "trimtab.local/web:2", command: [/bin/serve, lab], network: {mode: none}}
"""
_GRANTS: dict[str, Any] = {
    "name": "signed",
    "profile": "development",
    "images": {"allow": ["trimtab.local/"], "trustLocal": ["trimtab.local/"]},
    "security": {"groupAdd": True, "sysctls": ["net.core.somaxconn", "net.ipv4.tcp_fin_timeout"]},
    "resources": {"cpuset": True, "tmpfs": {"exec": True}},
    "networks": {
        "modes": ["none", "bridge", "isolated"],
        "serviceAliases": True,
        "extraHosts": ["addresses", "host-gateway"],
        "dns": {"servers": ["10.0.0.0/8"], "search": True, "options": True},
    },
    "names": {"underscores": True},
    "env": {"unset": True},
}


def granting_policy(since: str) -> Policy:
    """Return the policy: shop and default have a signed source, lab has another, open has none."""
    rules = [
        {"source": name, "namespaces": spaces, "require": "signed", "keys": keys, "path": "deploy"}
        for name, keys, spaces in (
            ("shop", "release", ["shop", "default"]),
            ("lab", "lab-keys", ["lab"]),
        )
    ]
    return Policy.from_json({**_GRANTS, "sources": [{**rule, "since": since} for rule in rules]})


@dataclass
class RichInstance(Instance):
    """An instance with the granting policy. The source ``lab`` has a key of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folders: dict[str, SignerFiles] = {
            "release": self.keys,
            "lab-keys": signer_files(BOB),
        }
        self.signed = granting_policy(self.since)
        self.require(signed=True)

    def require(self, *, signed: bool) -> None:
        """Put the policy in force, with or without signed sources."""
        assert self.broker.state is not None
        without = self.signed.model_copy(update={"sources": ()})
        self.broker.state.policy = self.signed if signed else without

    def restart(self) -> None:
        """End the broker, and start it again."""
        super().restart()
        self.require(signed=True)

    def _prove(self, command: VerifyProof) -> ProofVerified | ProofRefused:
        self.keys = self.folders[command.rule.keys]
        return super()._prove(command)
