"""What the tables have in common: the metadata, and columns that many of them have."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, MetaData, Text, text

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes only an INTEGER primary key the row id; PostgreSQL wants the width spelled out.
Id: Final = BigInteger().with_variant(Integer(), "sqlite")


def instant(name: str, *, required: bool = False) -> Column[int]:
    """Return a column of an instant."""
    return Column(name, BigInteger, nullable=not required)


def service(*, is_key: bool = False) -> Column[str]:
    """Return the column of a push service's name."""
    # One of the push services known to the code. The database does not check it: a further
    # service would need a migration of every installation.
    default = text("'apns'")
    return Column("service", Text, nullable=False, primary_key=is_key, server_default=default)


def of_notification() -> ForeignKeyConstraint:
    """Return what ties a row to its notification, on SQLite."""
    # PostgreSQL would look up a notification for each row, and all rows for a dropped partition.
    key = ForeignKeyConstraint(["notification_id"], ["notifications.id"], ondelete="CASCADE")
    return key.ddl_if(dialect="sqlite")
