"""What this agent was told about policy, for those who ask on its socket."""

from typing import Any

from agent import policy_settings
from agent.view import View
from policy.world import Place, World, to_json


def world(view: View) -> dict[str, Any]:
    """``policy.world`` of this node."""
    table, inputs = view.policies.table, view.policy_inputs
    places = {}
    for endpoint in view.endpoints:
        subject = table.subject(str(endpoint.id))
        if subject is not None:
            name = f"{endpoint.namespace}/{endpoint.pod}"
            places[name] = Place(
                endpoint.id,
                name,
                endpoint.identity.id,
                str(endpoint.address),
                subject,
                view.policies.errors.get(endpoint.id, ""),
            )
    return to_json(
        World(
            view.config.cluster_name,
            view.me.node.name,
            table.options,
            policy_settings.readings(view.config),
            dict(table.identities()),
            places,
            [stored.source for _, stored in sorted(inputs.policies.items())],
            table.known,
        )
    )
