"""What scvi-tools' private modules offer and celbo has in another form: thin, each over celbo's own function."""

__all__: list[str] = []
