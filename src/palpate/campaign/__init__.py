"""All cells of an audit: plan, store, worker and engines (engine_<name>.py)."""
