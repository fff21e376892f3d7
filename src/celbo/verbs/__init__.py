"""What a trained model answers, a mixin for each kind of question."""

__all__: list[str] = []
