"""`/v1/policy…`: policies, selectors, rows and what they follow from. Adapter."""

from typing import Any

import msgspec
from aiohttp import web

from agent import policy_shapes as shapes
from agent.policies import NODE_ENDPOINT
from agent.view import View
from model.endpoint import EndpointId
from model.identity import NumericIdentity, ReservedIdentity
from model.labels import Labels
from policy.facts import EndpointFact, Facts, to_json
from policy.known import Subject


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


class PolicyApi:
    """Handlers; each reads the agent's values at the moment of the request."""

    def __init__(self, view: View) -> None:
        self._view = view

    def add_to(self, app: web.Application) -> None:
        """All paths below `/v1/policy`."""
        get = app.router.add_get
        get("/v1/policy", self.policies)
        get("/v1/policy/selectors", self.selectors)
        get("/v1/policy/rules", self.rules)
        get("/v1/policy/facts", self.facts)
        get("/v1/policy/endpoint/{id}", self.endpoint)

    def realized(self, number: EndpointId, identity: NumericIdentity) -> dict[str, Any]:
        """``policy`` of an endpoint."""
        policies = self._view.policies
        rows, error = policies.get(number), self._error(number)
        return {"realized": shapes.realized(rows, identity, policies.realized_revision, error)}

    def health(self, number: EndpointId) -> str:
        """``OK``, ``Disabled``, ``Failure``, or ``Bootstrap`` while nothing is computed yet."""
        policies = self._view.policies
        if not policies.enforced:
            return "Disabled"
        if self._error(number):
            return "Failure"
        return "OK" if policies.get(number) is not None else "Bootstrap"

    def _error(self, number: EndpointId) -> str:
        return self._view.policies.errors.get(number) or self._view.tables.policy.error(number)

    def _labels(self, identity: int) -> Labels | None:
        return self._view.policies.table.labels(identity)

    async def policies(self, request: web.Request) -> web.Response:
        """``Policy``: its revision, and every object as JSON text."""
        inputs = self._view.policy_inputs
        found = [
            shapes.policy(p.source, p.reading, p.generation, inputs.remarks(p.reading))
            for _, p in sorted(inputs.policies.items())
        ]
        text = msgspec.json.encode(found).decode()
        return _json({"revision": self._view.policies.revision, "policy": text})

    async def selectors(self, request: web.Request) -> web.Response:
        """``SelectorCache``."""
        table = self._view.policies.table
        found = [shapes.selector(who, ids, table.users(who)) for who, ids in table.selectors()]
        return _json(sorted(found, key=lambda s: str(s["selector"])))

    async def rules(self, request: web.Request) -> web.Response:
        """What the numbers of rules mean."""
        return _json([shapes.rule(n, r) for n, r in self._view.policies.table.numbered()])

    async def endpoint(self, request: web.Request) -> web.Response:
        """The computed rows of one endpoint, by its number."""
        text = request.match_info["id"]
        number = EndpointId(int(text) if text.isascii() and text.isdigit() else -1)
        rows = self._view.policies.get(number)
        if rows is None:
            return _json(f"endpoint {text} has no computed policy", 404)
        table = self._view.policies.table
        return _json(
            {
                "id": number,
                "policy-enabled": shapes.enforcement(rows),
                "error": self._error(number),
                "rows": [shapes.row(k, rows[k], table.labels, table.rule) for k in sorted(rows)],
            }
        )

    async def facts(self, request: web.Request) -> web.Response:
        """``policy.facts``: all that the computation follows from."""
        view = self._view
        table = view.policies.table
        endpoints = {
            int(e.id): EndpointFact(
                e.namespace,
                e.pod,
                e.identity.id,
                Subject(e.identity.labels, view.kube.pod_ports(e.namespace, e.pod)),
                tuple(str(a) for a in e.local.addresses),
                self._error(e.id),
            )
            for e in view.endpoints
        }
        subject = view.policies.node_subject()
        if subject is not None:
            endpoints[int(NODE_ENDPOINT)] = EndpointFact(
                "",
                "",
                int(ReservedIdentity.HOST),
                subject,
                tuple(str(a) for a in view.host_addresses),
                self._error(NODE_ENDPOINT),
            )
        found = Facts(
            node=view.me.node.name,
            options=table.options,
            settings=view.policy_inputs.settings,
            sources=tuple(p.source for p in view.policy_inputs.policies.values()),
            known=table.known,
            identities=table.identities(),
            endpoints=endpoints,
            api_servers=tuple(map(str, sorted(view.tables.wanted_api_servers))),
            kubelet_port=view.config.policy_kubelet_port,
            pod_cidrs=tuple(sorted(view.policy_inputs.pod_cidrs())),
        )
        return _json(to_json(found))
