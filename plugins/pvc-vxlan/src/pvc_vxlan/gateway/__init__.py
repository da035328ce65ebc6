"""The gateway of a managed network, on the node that is the primary: its namespace, routes, DHCP and DNS."""
