"""``python -m handbell``: the command ``handbell`` of the Python that runs it."""

from handbell.cli import main

if __name__ == "__main__":
    main()
