"""what somebody wants changed → the leader's answer: a training, a move, a model brought in, artifacts cleared away."""
