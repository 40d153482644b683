"""Names and numbers that we put into the kernel, in one place: what carries them is ours. Pure."""

DEVICE_HOST = "ist_host"  # one end of the pair that holds the router address
DEVICE_NET = "ist_net"  # its peer
DEVICE_VXLAN = "ist_vxlan"
DEVICE_WIREGUARD = "ist_wg0"
DEVICE_WIREGUARD_DETOUR = "ist_wg1"  # while keys change
ENDPOINT_PREFIX = "lxc"

VXLAN_PORT = 8472
WIREGUARD_PORT = 51871  # the next one, too, while keys change
TUNNEL_OVERHEAD_BYTES = 50  # IPv4 20 + UDP 8 + VXLAN 8 + inner Ethernet 14

ROUTE_PROTOCOL = 73  # rtm_protocol of every route of ours; none of iproute2's registered numbers
RULE_PRIORITIES = range(9, 120)
PIN_DIRECTORY = "isthmus"  # below the bpffs root
LINK_ALIAS = "isthmus"  # ifalias of every device of ours
