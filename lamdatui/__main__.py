"""`python -m lamdatui`."""

import os
import sys

# Else torch.py, or json.py, of the folder that one is in would be taken for the package.
if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from lamdatui.cli.app import main

if __name__ == "__main__":
    main()
