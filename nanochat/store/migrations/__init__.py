"""How the tables came to be: one file a step in `versions/`, applied by Alembic."""
