"""The whole gate in memory, over a simulated engine, with proofs that are verified and rendered here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.broker.gate.commands import (
    Command,
    Forward,
    Lost,
    OpenSecret,
    ProofRefused,
    ProofVerified,
    ReadProcess,
    SecretOpened,
    VerifyProof,
)
from controller.core.manifests.check_together import desired_from
from controller.core.manifests.declaration import FolderReading
from controller.core.manifests.parse import read_text
from controller.core.planning.deliveries import bind_secrets
from controller.core.proofs.proven_commit import SignerFiles
from controller.core.secrets.declared import SecretName, declared_from_json
from controller.engine.requests import OutgoingRequest, create_request
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.desired.desired import Desired, SourceIdentity
from controller.model.desired.plan import CreateContainer
from controller.model.errors import Severity
from controller.model.names import Key, container_name, run_name
from controller.model.policy.document import Policy
from controller.model.records import Actor, Precondition, Record, Reply, Role
from controller.ports import EngineFacts
from tests.sim import kernel
from tests.sim.broker import Places, SimBroker
from tests.sim.clock import VirtualClock
from tests.sim.controller import OCTETS, request_of
from tests.sim.engine import SimEngine
from tests.sim.ground import LOCAL, REGISTRY
from tests.sim.journal import SimJournal
from tests.sim.signed import verify_here
from tests.unit.broker.signed.opened import Opener
from tests.unit.core.proofs.repository import Repository, signer_files

CONTROLLER = Actor(990, 990, 11, Role.CONTROLLER)
OPERATOR = Actor(0, 0, 12, Role.OPERATOR)
#: base64url of {"cause":"c"}
CLAIM = "eyJjYXVzZSI6ImMifQ"
DOCUMENTS = """\
apiVersion: trimtab/v1
kind: Service
metadata: {name: web, namespace: shop, owner: team, labels: {tier: front}}
spec:
  image: trimtab.local/web:1
  command: [/bin/serve, "8080"]
  env: {MODE: plain, LEVEL: "3"}
  user: "1000"
  ports: [{container: 8080, host: 18080}]
  resources: {memory: 64Mi, cpus: 0.5, pids: 64}
  healthcheck: {exec: [/bin/check], interval: 5s}
  network: {attach: [{name: back}]}
  mounts:
    - {type: volume, source: data, target: /data}
    - {type: tmpfs, target: /scratch, size: 1Mi}
    - {type: config, source: site, target: /etc/site}
---
apiVersion: trimtab/v1
kind: Service
metadata: {name: api, namespace: shop, owner: team}
spec: {image: "trimtab.local/db:1", replicas: 2, network: {mode: none}}
---
apiVersion: trimtab/v1
kind: Job
metadata: {name: once, namespace: shop, owner: team}
spec: {image: "trimtab.local/job:1", trigger: OnChange, network: {mode: none}}
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
kind: Config
metadata: {name: site, namespace: shop, owner: team}
spec: {data: {index.html: hello}}
"""


def policy_of(since: str, **more: object) -> Policy:
    """Return a policy that requires signed sources in the namespace shop."""
    rule = {"source": "shop", "namespaces": ["shop"], "require": "signed", "keys": "release"}
    return Policy.from_json(
        {
            "name": "signed",
            "profile": "development",
            "images": {"allow": ["trimtab.local/"], "trustLocal": ["trimtab.local/"]},
            "sources": [{**rule, "path": "deploy", "since": since, **more}],
        }
    )


@dataclass
class Instance:
    """A gate with one signed source, and the controller's requests."""

    repository: Repository = field(default_factory=Repository)
    keys: SignerFiles = field(default_factory=signer_files)
    actor: Actor = CONTROLLER
    records: list[Record] = field(default_factory=list)
    reachable: bool = True
    #: More members of the policy's rule.
    rule: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.since = self.repository.commit({})
        self.clock = VirtualClock()
        self.engine = SimEngine(self.clock, images=LOCAL, registry=REGISTRY)
        self.journal = SimJournal(self.clock, lambda record, _line: self.records.append(record))
        self._ids = 0
        facts = EngineFacts(self.engine.engine_id, "26.1.5", "1.45", 4, 8 * 1024**3)
        self._places = Places(
            self.clock, self.journal, policy_of(self.since, **self.rule), facts, self._new_id
        )
        self.broker = SimBroker(self._places, self)
        self.opener = Opener()
        self.broker.prove, self.broker.secrets = self._prove, self.opener

    def _new_id(self) -> str:
        self._ids += 1
        return f"00000000-0000-7000-8000-{self._ids:012d}"

    def _prove(self, command: VerifyProof) -> ProofVerified | ProofRefused:
        return verify_here(command, self.keys, self.clock.now(), self.opener.open)

    # What the simulated broker asks for.

    def look(self, path: str) -> Reply | Lost:
        return Reply(*self.engine.call("GET", path))

    def forward(self, command: Forward) -> Reply | Lost:
        return Reply(*self.engine.call(command.method, command.path, command.body))

    def process(self, command: ReadProcess) -> EffectiveState | NotReadable:
        return kernel.process(self.engine, command)

    def before(self, command: Command) -> None:
        pass

    def after(self, command: Command) -> None:
        pass

    def broker_died(self) -> None:
        pass

    # What people and the controller do.

    def restart(self) -> None:
        """End the broker, and start it again."""
        self.broker.die()
        self.broker.start()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
        actor: Actor | None = None,
    ) -> Reply:
        data = b"" if body is None else json.dumps(body).encode()
        who = actor or self.actor
        context = CLAIM if who.role is Role.CONTROLLER else ""
        return self.broker.serve(
            request_of(who, method, path, query=query, body=data, context=context)
        )

    def send(self, request: OutgoingRequest) -> Reply:
        return self.ask(request.method, request.path, request.body, query=request.query)

    def upload(self, proof: bytes, *, source: str = "shop") -> Reply:
        sent = request_of(
            self.actor,
            "POST",
            "/trimtab/v1/proofs",
            query={"source": source},
            body=proof,
            context=CLAIM,
            kind=OCTETS,
        )
        return self.broker.serve(sent)

    def commit(self, text: str = DOCUMENTS, *, parent: str = "") -> str:
        """Commit documents, and upload the proof."""
        commit = self.repository.commit({"deploy/all.yaml": text.encode()}, parent or self.since)
        reply = self.upload(self.repository.proof(commit))
        assert reply.status == 200, reply.body
        return commit

    def prepare(self, text: str = DOCUMENTS) -> str:
        """Commit documents, and make everything that their containers need."""
        commit = self.commit(text, parent=self.head)
        for request in prerequisites(text):
            reply = self.send(request)
            assert reply.status < 300 or reply.status == 409, (request.path, reply.body)
        return commit

    @property
    def head(self) -> str:
        accepted = self.inventory.accepted.get("shop")
        return self.since if accepted is None else accepted.commit

    @property
    def inventory(self) -> Any:
        assert self.broker.state is not None
        return self.broker.state.inventory

    def run(self, request: OutgoingRequest) -> str:
        """Create and start a container. Return its id."""
        made = self.send(request)
        assert made.status == 201, made.body
        identifier = str(json.loads(made.body)["Id"])
        started = self.ask("POST", f"/containers/{identifier}/start")
        assert started.status == 204, started.body
        return identifier

    def take_down(self, identifier: str) -> None:
        """Remove a container past the controller."""
        for method, path in (("POST", "/stop"), ("DELETE", "")):
            reply = self.ask(method, f"/containers/{identifier}{path}", actor=OPERATOR)
            assert reply.status == 204, reply.body

    def take_down_unstarted(self, identifier: str) -> None:
        """Remove a container that never ran."""
        assert self.ask("DELETE", f"/containers/{identifier}", actor=OPERATOR).status == 204


@functools.cache
def desired_of(text: str) -> Desired:
    documents = read_text(text, "shop:all.yaml")
    identity = SourceIdentity("x", present=True)
    desired = desired_from(FolderReading(documents, identity))
    asked = {
        each.key: OpenSecret(
            SecretName(each.key.namespace, each.owner, each.key.name),
            declared_from_json(each.declared),
        )
        for each in desired.secrets
    }
    opened = {key: Opener().open(each) for key, each in asked.items()}
    contents = {key: each.content for key, each in opened.items() if isinstance(each, SecretOpened)}
    bound = bind_secrets(desired, contents)
    faults = [each for each in bound.problems if each.severity is not Severity.WARNING]
    assert not faults, faults
    return bound


def create_of(
    key: str, text: str = DOCUMENTS, *, slot: int = 1, attempt: int = 1, **changes: Any
) -> OutgoingRequest:
    """Return the controller's create for a service or a job of documents."""
    service = desired_of(text).workload(Key.parse(key))
    assert service is not None, key
    is_job = service.key.kind == "Job"
    namespace, name = service.key.namespace, service.key.name
    if is_job:
        target = run_name(namespace, name, number=slot, revision=service.revision)
    else:
        target = container_name(namespace, name, slot=slot, revision=service.revision)
        target += f".{attempt}" if attempt > 1 else ""
    action = CreateContainer(
        object=service.key,
        target=target,
        cause="c",
        slot=slot,
        precondition=Precondition(absent=target),
        service=service,
        image=changes.pop("image", service.spec.image),
        with_alias=changes.pop("with_alias", not is_job),
        occasion="change" if is_job else "",
    )
    assert not changes
    return create_request(action, policy_of("0" * 40).networks.names)


@functools.cache
def prerequisites(text: str) -> tuple[OutgoingRequest, ...]:
    """Return the controller's requests for networks, volumes and files."""
    from controller.core.planning.images_networks_volumes import Prerequisites
    from controller.model.desired.plan import CreateNetwork, CreateVolume, DeliverFiles
    from controller.model.observed import Observed

    desired, networks = desired_of(text), policy_of("0" * 40).networks.names
    made = Prerequisites(desired, Observed("i"), networks)
    actions = [a for each in desired.workloads for a in made.missing(each, creating=True)]
    kinds = (CreateNetwork, CreateVolume, DeliverFiles)
    return tuple(create_request(each, networks) for each in actions if isinstance(each, kinds))


#: A change of a JSON body in place.
Change = Callable[[dict[str, Any]], object]
