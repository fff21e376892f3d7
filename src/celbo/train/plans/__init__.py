"""What a step of training is: losses, weights of the KL, optimizers, schedules."""

__all__: list[str] = []
