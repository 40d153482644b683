"""Every field of the reference's schema of policies (§3), in specs that are taken as they are."""

TCP80 = "ports: [{port: '80', protocol: TCP}]"
LABEL = "{matchLabels: {app: client}}"


def rule(list_: str, text: str) -> str:
    return f"{list_}: [{{{text}}}]"


def item(text: str, list_: str = "egress") -> str:
    return rule(list_, f"toPorts: [{{{TCP80}, {text}}}]")


# Field -> what is taken.
TAKEN = {
    "description": "description: free text, ingress: [{}]",
    "labels": "labels: [{key: a, value: b, source: k8s}, {key: c}], ingress: [{}]",
    "log": "log: {value: x}, ingress: [{}]",
    "enableDefaultDeny": "enableDefaultDeny: {ingress: false, egress: true}, egress: [{}]",
    "null": "ingress: null, egressDeny: null, enableDefaultDeny: null, labels: null",
    **{
        f"{prefix}{name} in {list_}": rule(list_, f"{prefix}{name}: {value}")
        for prefix, list_ in (
            ("from", "ingress"), ("from", "ingressDeny"), ("to", "egress"), ("to", "egressDeny"),
        )
        for name, value in (
            ("Endpoints", f"[{LABEL}, {{}}]"), ("CIDR", "[10.0.0.0/8, 192.0.2.1, '2001:db8::/32']"),
            ("CIDRSet", "[{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidrGroupRef: g, except: "
             f"[10.1.0.0/16]}}, {{cidrGroupSelector: {LABEL}}}]"),
            ("Entities", "[all, world, cluster, host, init, ingress, unmanaged, remote-node, "
             "health, none, kube-apiserver, world-ipv4, world-ipv6]"),
            ("Nodes", f"[{LABEL}]"), ("Requires", f"[{LABEL}]"),
            ("Groups", "[{aws: {labels: {a: b}, securityGroupsIds: [x], securityGroupsNames: [y], "
             "region: z}}]"),
        )
    },
    **{
        f"toServices in {list_}": rule(
            list_,
            "toServices: [{k8sService: {serviceName: a, namespace: b}}, {k8sService: {serviceName: "
            f"a}}}}, {{k8sServiceSelector: {{selector: {LABEL}, namespace: b}}}}]",
        )
        for list_ in ("egress", "egressDeny")
    },
    "toFQDNs": "egress: [{toFQDNs: [{matchName: a_b.Example.com.}, {matchPattern: '*.a*.com'}]}]",
    **{
        f"ports in {list_}": rule(
            list_,
            "toPorts: [{ports: [{port: '80', endPort: 90, protocol: TCP}, {port: '0', protocol: "
            "ANY}, {port: dns-TCP, protocol: UDP}, {port: '9', protocol: SCTP}, {port: '7'}]}]",
        )
        for list_ in ("ingress", "ingressDeny", "egress", "egressDeny")
    },
    **{
        f"icmps in {list_}": rule(
            list_, "icmps: [{fields: [{type: 8}, {family: IPv4, type: EchoRequest}, "
            "{family: IPv6, type: 255}, {family: IPv6, type: PacketTooBig}]}]",
        )
        for list_ in ("ingress", "ingressDeny", "egress", "egressDeny")
    },
    **{
        f"authentication {mode}": rule("ingress", f"authentication: {{mode: {mode}}}")
        for mode in ("disabled", "required", "test-always-fail")
    },
    "http": item(
        "rules: {http: [{path: '/a(\\?.*)?', method: GET|HEAD, host: a.com, headers: [X, 'Y: z'], "
        "headerMatches: [{name: X, value: y, mismatch: LOG}, {name: Z, secret: {namespace: a, "
        "name: b}, mismatch: REPLACE}]}]}", "ingress",
    ),
    "http host is not checked": item("rules: {http: [{host: '('}]}"),
    "dns": "egress: [{toPorts: [{ports: [{port: '5353'}], rules: {dns: [{matchName: a.com}, "
           "{matchPattern: '*'}]}}]}]",
    "kafka": item(
        "rules: {kafka: [{role: produce, topic: t}, {apiKey: fetch, apiVersion: '1', clientID: c}]}"
    ),
    "l7proto": item("rules: {l7proto: p, l7: [{a: b}]}"),
    "TLS": item(
        "terminatingTLS: {secret: {namespace: a, name: b}, trustedCA: c, certificate: d, "
        "privateKey: e}, originatingTLS: {secret: {name: b}}, serverNames: [a.com], "
        "rules: {http: [{}]}"
    ),
    "serverNames": item("serverNames: [a.com, b.com]"),
    "listener": item(
        "listener: {envoyConfig: {kind: CiliumClusterwideEnvoyConfig, name: e}, name: l, "
        "priority: 100}"
    ),
}  # fmt: skip
