"""OSDs: what adds, removes, replaces and finds them again on a node, in one of two layouts of their disks."""
