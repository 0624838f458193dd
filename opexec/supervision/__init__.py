"""How a model's workers come, are watched, are replaced and go: see docs/supervision.md. `replicas.Replicas` is the way in."""
