"""Model code that travels with an export. It imports nothing of this project."""
