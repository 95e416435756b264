"""The database: engines, schema, migrations and what is specific to one SQL dialect."""
