"""Plugins as core uses them: discovery, loading, registry, typed bindings, supervision, doctor."""
