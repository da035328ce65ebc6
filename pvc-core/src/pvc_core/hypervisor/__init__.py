"""Running guests on this node: the protocol, libvirt, and an in-memory hypervisor for tests and simulation."""
