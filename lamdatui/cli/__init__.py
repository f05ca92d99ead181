"""The commands of `lamdatui` and what they do."""


def main() -> None:
    """The entry point of the command `lamdatui`."""
    from lamdatui.cli.app import main

    main()
