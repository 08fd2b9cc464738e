"""The name of the pod that a process runs in. In a real one it is the machine's name too."""

import os


def hostname():
    return os.environ["HOSTNAME"]
