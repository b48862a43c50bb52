"""The commands there are: what each is called, the module that has it, and what it is for.

A line here is all that is needed to list a command, so that `faas --help` and a shell's completion import none of them. A module has the
group as its `app`, or single commands that its `register` adds. What a line says of a command is the first paragraph of that command's own
help; a test holds them together.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "HELP_NAMES", "OPTIONS", "PURPOSE"]

PURPOSE = "Deploy functions, call them over HTTP, run them by cron, on a cluster of your own."

HELP_NAMES = ("-h", "--help")

OPTIONS = (
    ("--version", "Print the version and end."),
    ("--install-completion", "Install completion for the current shell."),
    ("--show-completion", "Show completion for the current shell, to copy it or customize the installation."),
    (", ".join(HELP_NAMES), "Show this message and exit."),
)

COMMANDS = (
    ("up", "platform", "Start the platform. What isn't said stays as it was the last time."),
    ("down", "platform", "Stop the platform and everything that runs on it; the data stays."),
    ("status", "platform", "Show what runs, and whether all of it is ready."),
    ("kubeconfig", "platform", "Print the kubeconfig; `export KUBECONFIG=$(faas kubeconfig --path)` sets kubectl up."),
    ("run", "platform", "Run one component alone in the foreground, on the data dir of a cluster."),
    ("init", "deploy", "Make a function to start from."),
    ("deploy", "deploy", "Deploy a folder or file as functions, and wait until they serve."),
    ("diff", "diff", "Show what `faas deploy` would change; exit code 1 where that is anything."),
    ("dev", "dev", "Run functions here, without a cluster, with the same paths, errors, secrets, calls and cron."),
    (
        "invoke",
        "invoke",
        "Call a function; its reply goes to standard output, and a status of 400 or more ends with exit code 1.",
    ),
    ("list", "functions", "List functions."),
    ("describe", "functions", "Show a function with its revisions, instances and recent events."),
    ("scale", "functions", "Change how far a function scales."),
    ("delete", "functions", "Delete functions with their revisions and instances."),
    ("logs", "logs", "Print the logs of a function's instances, those that are gone first."),
    (
        "exec",
        "shell",
        "Run a command in an instance of a function; without one, a shell. Ends with the command's exit code.",
    ),
    ("revisions", "revisions", "List the revisions of a function, with their share of the calls, tags and URLs."),
    (
        "rollback",
        "revisions",
        "Give all calls to an earlier revision. `faas traffic NAME latest=100` goes back to the newest.",
    ),
    ("traffic", "revisions", "Show or change which revisions take the calls."),
    (
        "whoami",
        "identity",
        "Show who the kubeconfig's credentials are to the cluster, and which roles they have where.",
    ),
    (
        "login",
        "login",
        "Log in to a cluster. The token is read from standard input (`faas login URL < token`), at a terminal without showing it.",
    ),
    (
        "why",
        "why",
        "Say what happened to a call and why, what is wrong with a function, or (`faas why scaled NAME`) why it was scaled as it was.",
    ),
    ("usage", "usage", "What functions have used, by function; with -o json by day too."),
    ("cron", "cron", "Cron triggers of functions."),
    ("calls", "calls", "Records of asynchronous and cron calls."),
    ("secret", "secrets", "Secrets that functions read as files."),
    ("key", "keys", "Keys that open functions whose visibility is key."),
    ("token", "tokens", "Tokens for people and machines of a team."),
    ("certs", "certs", "The cluster's certificates."),
    ("namespace", "namespaces", "Namespaces, one per team."),
    ("node", "nodes", "Nodes: machines that join the cluster."),
    ("images", "images", "Runtime images for Docker nodes."),
)
"""Name, module of `cli`, first paragraph of its help; in the order of the help."""
