"""The pages of docs/reference/, generated from the code: `python -m tools.reference`."""
