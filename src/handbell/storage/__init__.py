"""The database: how it is opened, its tables, its migrations, and what only one dialect knows."""
