"""Commands of the plugin: they run on machines that have none of Ceph's libraries."""
